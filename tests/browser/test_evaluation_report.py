"""The report of a real evaluation in a real browser: read, measured and looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from mergeline.evaluation.compare.comparison import compare_with_parents
from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.questions.task_questions import read_questions
from mergeline.evaluation.report.html_report import render_report
from mergeline.evaluation.results import EvaluationSettings
from mergeline.evaluation.sample import sample_models
from mergeline.merge.geometry import read_geometry
from mergeline.merge.manifest import RECIPE_NAME
from mergeline.merge.merging import merge_recipe
from mergeline.pipeline.language import DEFAULT_PROMPTS
from mergeline.sources.hub import Hub

DEMO_MODELS = Path(__file__).parents[2] / "deployments" / "local" / "demo_models"
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1400, "height": 1500}


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's merge beside its parents and base on its thousand questions, with all that a page shows."""
    work = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        # Models this small are three times slower on two threads.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(DEMO_MODELS)
        recipe = work / "recipe.yaml"
        recipe.write_text(
            "merge_method: slerp\nbase_model: compass\nmodels: [{model: compass}, {model: clock}]\n"
            "parameters: {t: 0.5}\ndtype: float32\n"
        )
        merged = merge_recipe(recipe, work / "slerp", hub=Hub(), max_shard_bytes=10**9)
        models = [ModelToEvaluate(f"mergeline-demo/{name}", DEMO_MODELS / name) for name in ("compass", "clock")]
        models.append(ModelToEvaluate("demo-slerp", merged.directory))
        base = ModelToEvaluate("mergeline-demo/base", DEMO_MODELS / "base")
        settings = EvaluationSettings("spartqa_train", "directions", engine="fast")
        questions = read_questions("spartqa_train", None, "directions")
        ancestor, *parents, merge = evaluate_models([base, *models], settings, questions, cache_dir=work / "cache")
        page = render_report(
            compare_with_parents(merge, parents, ancestor, margin=0.02),
            samples=sample_models(models, DEFAULT_PROMPTS, max_new_tokens=20),
            recipe_text=(merged.directory / RECIPE_NAME).read_text(),
            manifest=merged.manifest,
            prompts=questions.prompts(),
            geometry=read_geometry(merged.directory),
        )
    path = work / "report.html"
    path.write_text(page, "utf-8")
    return path


@pytest.fixture
def opened(page: Page, report_file: Path, outside_requests: list[str]) -> Iterator[Page]:
    """The report as opened from a disk; at the end, nothing was fetched and nothing complained of."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_viewport_size(WIDE)
    page.goto(report_file.as_uri())
    yield page
    assert complaints == []
    assert outside_requests == []
    assert requests == [report_file.as_uri()]


CROWDED = """() => {
    const found = [];
    for (const chart of document.querySelectorAll('svg')) {
        const frame = chart.getBoundingClientRect();
        if (!frame.width) continue;
        const texts = [...chart.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
        texts.forEach(([name, box], number) => {
            if (box.left < frame.left - 1 || box.right > frame.right + 1) found.push(name + ' is cut');
            for (const [other, its] of texts.slice(number + 1))
                if (box.left < its.right && its.left < box.right
                    && box.top + 2 < its.bottom && its.top + 2 < box.bottom)
                    found.push(name + ' lies on ' + other);
        });
    }
    return found;
}"""
"""Texts of charts that leave their chart, or lie on another."""

SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg text')]
    .map(text => text.getBoundingClientRect().height).filter(height => height > 0))"""
"""Height of the lowest text in a chart that is shown, in pixels."""

FAINTEST = """() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number)
            .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = node => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (colour !== 'rgba(0, 0, 0, 0)') return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    let least = 21;
    for (const node of document.querySelectorAll('h1, h2, h3, p, li, strong, th, td, small, pre, summary, svg text')) {
        const style = getComputedStyle(node);
        const [a, b] = [light(node.tagName === 'text' ? style.fill : style.color), light(behind(node))];
        least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
    return least;
}"""
"""The least contrast of any text with what lies behind it, as WCAG counts it; 4.5 is what it asks for."""


@pytest.mark.slow
def test_what_the_page_says_is_what_was_found(opened: Page, keep_screenshot: Callable[[str], None]) -> None:
    keep_screenshot("evaluation-report")
    assert opened.locator("h1").inner_text() == "demo-slerp"
    assert opened.locator(".verdicts strong").all_inner_texts() == ["better", "better"]
    assert "evaluated on train split" in opened.locator(".flags").inner_text()
    accuracy = opened.locator("section", has=opened.get_by_role("heading", name="Accuracy"))
    marks = accuracy.locator("svg:visible .mark-label").all_text_contents()
    assert marks == ["chance 0.250", "majority answer 0.264", "some parent right 1.000"]
    rows = [row.locator("td").all_inner_texts()[:2] for row in accuracy.locator("table tr").all()[1:]]
    assert rows == [
        ["mergeline-demo/base", "0.4940"], ["mergeline-demo/compass", "0.7460"], ["mergeline-demo/clock", "0.7550"],
        ["demo-slerp", "1.0000"],
    ]  # fmt: skip
    assert opened.locator(".cell").count() == 21
    assert opened.get_by_role("heading", name="“Who are you?”").is_visible()
    question = opened.locator("details", has_text="directions-0").first
    question.locator("summary").click()
    assert "Answer:" in question.locator("pre").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overlaps_is_cut_or_too_faint(opened: Page, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    assert opened.evaluate(CROWDED) == []
    assert opened.evaluate(FAINTEST) >= 4.5
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.slow
def test_it_is_read_on_a_phone(opened: Page, keep_screenshot: Callable[[str], None]) -> None:
    opened.set_viewport_size(PHONE)
    assert opened.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert opened.evaluate(CROWDED) == []
    assert opened.evaluate(SMALLEST) > 11
    keep_screenshot("evaluation-report-phone")
    assert (
        opened.locator("section", has=opened.get_by_role("heading", name="Accuracy")).locator("svg:visible").count()
        == 1
    )


@pytest.mark.slow
def test_it_is_printed_dark_on_white_whatever_the_screen(opened: Page) -> None:
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.evaluate(FAINTEST) >= 4.5
