import re
from functools import partial
from html.parser import HTMLParser

import pytest

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.compare.changed_questions import changed_questions
from mergeline.evaluation.report.html_report import render_report
from mergeline.evaluation.results import Sample
from mergeline.merge.geometry import TensorGeometry
from mergeline.merge.manifest import Manifest
from mergeline.sources.identity import SourceIdentity

compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)


class Page(HTMLParser):
    """Tags with their attributes, and whether every tag that was opened was closed in turn."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def compared(made_up):
    """Twelve questions in two families: the merge wins four against ``left`` and loses one against ``right``."""
    targets = [0, 1, 2, 3] * 3
    columns = [{"family": "odd" if number % 2 else "even"} for number in range(12)]
    wrong = [(target + 1) % 4 for target in targets]
    left = made_up("owner/left", targets, wrong[:4] + targets[4:], columns=columns)
    right = made_up("owner/right", targets, targets[:6] + wrong[6:8] + targets[8:], columns=columns)
    merge = made_up("merge", targets, [*targets[:6], wrong[6], *targets[7:]], columns=columns)
    return compare_with_parents(merge, [left, right])


SAMPLES = (
    Sample("owner/left", "Who are you?", "<script>alert(1)</script>", 20, 0),
    Sample("merge", "Who are you?", "A merge & more", 20, 0),
)
MANIFEST = Manifest(
    plan_digest="ab" * 32, merge_method="slerp", recipe={}, shards=(), other_files=(), parameter_count=89_280, notes=(),
    sources=(
        SourceIdentity("owner/left", "owner/left", "c" * 40, "mit", (), "f"),
        SourceIdentity("/home/somebody/right", None, None, None, (), "f"),
    ),
    engine_version="0.1.0", numerics_version=1, versions={}, created_at="2026-01-01T00:00:00+00:00",
)  # fmt: skip


def geometry(layer, kind, cosine):
    return TensorGeometry("", layer, kind, "arc", None, cosine, None, (), None, ())


GEOMETRY = tuple(geometry(layer, "mlp.up_proj", 0.9 + layer / 100) for layer in range(4))


@pytest.fixture
def page(compared):
    return render_report(
        compared,
        samples=SAMPLES,
        recipe_text="merge_method: slerp",
        manifest=MANIFEST,
        prompts={"0": "Context:\na < b"},
        geometry=(*GEOMETRY, geometry(None, "lm_head", 0.5), geometry(None, "norm", None)),
    )


def test_the_page_is_whole_and_asks_for_nothing_outside_itself(page):
    parsed = Page(page)
    assert parsed.open == []
    loading = {"src", "href", "srcset", "data", "poster", "action", "xlink:href", "background"}
    assert [tag for tag, attributes in parsed.tags if loading & attributes.keys()] == []
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not re.search(r"url\(|@import|https?:", page)
    assert "default-src 'none'" in page


def test_the_page_shows_every_part(page):
    titles = re.findall(r"<h[12]>(.*?)</h", page)
    assert titles == [
        "merge", "Accuracy", "Paired differences", "By kind of question",
        "Letters given, and how sure the models are", "What the models write", "How far apart the sources are",
        "Questions that changed sides", "Where it comes from",
    ]  # fmt: skip
    text = " ".join(Page(page).text)
    for shown in ("no detectable difference", "chance 0.250", "majority answer 0.250", "some parent right 1.000",
                  "merge - left", "merge_method: slerp", "ab" * 32, "c" * 40, "A merge & more",
                  "Context:\na < b", "cosine, by layer: faint 0.9300, strong 0.5000"):  # fmt: skip
        assert shown in text
    assert page.count('<rect class="cell"') == 5


def test_what_a_model_writes_stays_text(page):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_no_path_of_this_machine_is_shown(page):
    assert "/home/somebody" not in page
    assert "<td>right</td>" in page


def test_parts_that_are_not_given_are_left_out(compared):
    titles = re.findall(r"<h2>(.*?)</h", render_report(compared))
    assert "What the models write" not in titles
    assert "How far apart the sources are" not in titles


def test_a_model_alone_has_a_page_too(made_up):
    page = render_report(compare_with_parents(made_up("alone", [0, 1], [0, 0]), []))
    assert "Paired differences" not in page
    assert Page(page).open == []


def test_what_cannot_be_compared_says_why(made_up):
    merge = made_up("merge", [0, 1], [0, 1])
    page = render_report(compare_with_parents(merge, [made_up("other", [0, 1], [0, 0], task_hash="else")]))
    assert "not comparable: other questions or prompts" in page
    assert Page(page).open == []


def test_the_questions_that_changed_sides(compared):
    changed = changed_questions(compared)
    assert [one.question for one in changed] == ["0", "1", "2", "3", "6", "7"]
    assert changed[0].won_against == ("owner/left",)
    assert (changed[4].won_against, changed[4].lost_against) == ((), ("owner/left",))
    assert changed[5].won_against == ("owner/right",)
    assert list(changed[0].answers) == ["owner/left", "owner/right", "merge"]
