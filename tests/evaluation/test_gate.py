import subprocess
import sys
from functools import partial

import pytest

from mergeline.errors import PipelineError
from mergeline.evaluation.compare import comparison
from mergeline.pipeline.form import read_form, to_form
from mergeline.publish.gate import Decision, decide

compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)

RECIPE = """\
merge_method: slerp
base_model: a/b
models: [{model: a/b}, {model: c/d}]
parameters: {t: 0.5}
"""


@pytest.fixture
def reports(made_up):
    """A merge that wins 200 of 1,000 against ``weak`` and answers like ``twin``."""
    merge, twin = (made_up(label, [0] * 1000, [0] * 800 + [1] * 200) for label in ("merge", "twin"))
    weak = made_up("weak", [0] * 1000, [0] * 600 + [1] * 400)
    return {
        "against weak": [compare_with_parents(merge, [weak])],
        "against both": [compare_with_parents(merge, [weak, twin])],
        "worse": [compare_with_parents(weak, [merge])],
        "alone": [compare_with_parents(merge, [])],
        "foreign": [compare_with_parents(merge, [made_up("other", [0], [0], task_hash="else")])],
        "few": [compare_with_parents(made_up("m", [0] * 20, [0] * 20), [made_up("p", [0] * 20, [0] * 20)])],
    }


@pytest.mark.parametrize(
    ("when", "which", "is_published", "reason"),
    [
        ("always", "worse", True, "publish.when is always"),
        ("never", "against weak", False, "publish.when is never"),
        ("better_than_parents", "against weak", True, "publish.when is better_than_parents: better than weak"),
        (
            "better_than_parents", "against both", False,
            "publish.when is better_than_parents: better than weak; no detectable difference (twin)",
        ),
        ("better_than_parents", "alone", False, "publish.when is better_than_parents: nothing was compared"),
        (
            "not_worse_than_parents", "against both", True,
            "publish.when is not_worse_than_parents: not worse than weak by more than 0.02; not worse than twin by "
            "more than 0.02",
        ),
        (
            "not_worse_than_parents", "few", False,
            "publish.when is not_worse_than_parents: may have lost up to 0.161 against p, more than the margin of 0.02",
        ),
        ("not_worse_than_parents", "foreign", False, "publish.when is not_worse_than_parents: not comparable (other)"),
        ("not_worse_than_parents", "alone", False, "publish.when is not_worse_than_parents: nothing was compared"),
    ],
)  # fmt: skip
def test_what_each_policy_decides(reports, when, which, is_published, reason):
    assert decide(when, reports[which]) == Decision(is_published, reason)


def test_a_loss_is_never_not_worse(reports):
    decision = decide("not_worse_than_parents", reports["worse"])
    assert not decision.is_published
    assert "may have lost up to 0.2" in decision.reason


def test_approval_is_for_a_person_to_give(reports):
    decision = decide("after_approval", reports["against weak"])
    assert (decision.is_published, decision.is_pending) == (False, True)
    assert decision.reason == "publish.when is after_approval: waits for approval"


def form(**changes):
    fields = {
        "recipe": RECIPE, "name": "merge", "tasks": ["spartqa_train"], "limit": None, "publish": "never",
        "repo_id": "owner/merge", "private": True, "device": "auto", "more": "",
    }  # fmt: skip
    return read_form(fields | changes)


@pytest.mark.parametrize("when", ["after_approval", "not_worse_than_parents", "better_than_parents"])
def test_every_policy_can_be_asked_for(when):
    pipeline = form(publish=when)
    assert pipeline.settings.publish.when == when
    assert read_form(to_form(pipeline)) == pipeline


@pytest.mark.parametrize("when", ["not_worse_than_parents", "better_than_parents"])
def test_a_policy_about_parents_needs_an_evaluation(when):
    with pytest.raises(PipelineError, match=r"publish\.when needs an evaluation; add one to evaluate\.tasks"):
        form(publish=when, tasks=[])


def test_engine_margin_and_breakdown_survive_the_form():
    pipeline = form(more="evaluate: {engine: fast, margin: 0.01, breakdown: [relation]}")
    wanted = pipeline.settings.evaluate
    assert (wanted.engine, wanted.margin, wanted.breakdown) == ("fast", 0.01, ("relation",))
    assert read_form(to_form(pipeline)) == pipeline


def test_an_unknown_engine_is_refused():
    with pytest.raises(PipelineError, match=r"evaluate.*engine"):
        form(more="evaluate: {engine: turbo}")


def test_the_gate_is_imported_without_html_templates_and_statistics():
    code = (
        "import sys, mergeline.publish.gate; "
        "heavy = {'html', 'jinja2', 'markupsafe', 'scipy', 'numpy', 'torch', 'lm_eval'} & sys.modules.keys(); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (0, "")
