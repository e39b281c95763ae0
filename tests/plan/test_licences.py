"""The licence policy, row by row."""

import itertools

import pytest

from mergeline.plan.licences import result_licence


@pytest.mark.parametrize(
    ("sources", "identifier", "name", "is_publishable"),
    [
        (["mit", "mit"], "mit", None, True),
        (["Apache-2.0 ", "apache-2.0"], "apache-2.0", None, True),
        (["apache-2.0", "mit", "cc-by-4.0", "bsd-3-clause"], "apache-2.0", None, True),
        (["apache-2.0", "cc-by-nc-4.0"], "cc-by-nc-4.0", None, True),
        (["apache-2.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"], "cc-by-nc-sa-4.0", None, True),
        (["cc-by-sa-4.0", "mit"], "cc-by-sa-4.0", None, True),
        (["gpl-3.0", "agpl-3.0", "mit"], "agpl-3.0", None, True),
        (["cc-by-sa-4.0", "cc-by-nc-4.0"], "other", "conflicting-terms", False),
        (["gpl-3.0", "cc-by-nc-4.0"], "other", "conflicting-terms", False),
        (["agpl-3.0", "llama3.1"], "other", "conflicting-terms", False),
        (["gpl-3.0", "gemma"], "other", "conflicting-terms", False),
        (["gpl-2.0", "openrail"], "other", "conflicting-terms", False),
        (["gpl-2.0", "gpl-3.0"], "other", "conflicting-terms", False),
        (["cc-by-nc-sa-4.0", "llama3"], "other", "conflicting-terms", False),
        (["mit", "cc-by-nd-4.0"], "cc-by-nd-4.0", None, False),
        (["mit", "cc-by-nc-nd-4.0", "gemma"], "other", "conflicting-terms", False),
        (["llama3.1", "mit"], "llama3.1", None, True),
        (["llama3.1", "gemma"], "other", "multiple", True),
        (["llama3", "llama3.1"], "other", "multiple", True),
        (["llama3.1", "cc-by-nc-4.0"], "other", "multiple", True),
        (["other", "mit"], "other", "unspecified", True),
        (["A licence of our own", "mit"], "other", "a-licence-of-our-own", True),
        ([None, "mit"], "unknown", None, True),
        (["unknown"], "unknown", None, True),
        ([None, "cc-by-nc-4.0"], "other", "multiple", True),
        (["apple-amlr", "apache-2.0"], "apple-amlr", None, True),
        (["someone-research-licence"], "other", "someone-research-licence", True),
        ([], "unknown", None, True),
    ],
)
def test_the_table(sources: list[str | None], identifier: str, name: str | None, is_publishable: bool) -> None:
    for order in itertools.permutations(sources):
        licence = result_licence(order)
        assert (licence.identifier, licence.name, licence.is_publishable) == (identifier, name, is_publishable)
        assert licence.reasons


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        (["apache-2.0", "cc-by-nc-4.0"], "cc-by-nc-4.0 forbids commercial use"),
        (["apache-2.0", "cc-by-nc-4.0"], "notices that apache-2.0 asks for stay"),
        (["llama3.1", "mit"], "Built with Llama"),
        (["llama3.1", "gemma"], "gemma and llama3.1 all hold; ship the text of each"),
        ([None], "without one there is no permission"),
        (["cc-by-nd-4.0"], "does not let derivatives be shared"),
        (["gpl-3.0", "gemma"], "exclude each other: gpl-3.0 allows no further restrictions"),
        (["my-research-licence"], "read as forbidding commercial use"),
        (["sea-licence"], "not a licence this policy knows"),
    ],
)
def test_the_reasons_say_what_it_asks(sources: list[str | None], reason: str) -> None:
    assert reason in " ".join(result_licence(sources).reasons)
