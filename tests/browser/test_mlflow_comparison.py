"""MLflow's own pages over a real family of merges: what differs is lined up with the scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from deployments.local.demo import TOKEN, fill
from deployments.loopback_hub import LocalHub
from mergeline.tracking.runs import TrackedRun
from mergeline.tracking.store import TrackingSettings
from tests.builders.merge_family import record_family
from tests.servers.mlflow_server import MlflowServer

pytestmark = [
    pytest.mark.slow,
    # huggingface_hub 2.4 hands the bodies of LFS uploads to httpx2 in a way that httpx2 is about to drop.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

FRACTIONS = (0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Family:
    """Three merges on a server that shows them."""

    url: str
    runs: dict[float, tuple[TrackedRun, float]]

    @property
    def page(self) -> str:
        run, _ = self.runs[FRACTIONS[0]]
        return f"{self.url}/#/experiments/{run.experiment_id}/runs?workflowType=machine_learning"


@pytest.fixture(scope="module")
def family(browser: object, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    folder = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch, LocalHub(folder / "hub") as hub:
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("MERGELINE_HOME", str(folder / "state"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub-cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        fill(hub.endpoint)
        settings = TrackingSettings(mlflow_server.url, "mergeline/directions")
        yield Family(mlflow_server.url, record_family(settings, folder, FRACTIONS, questions=50))


def test_three_merges_are_compared_at_a_glance(
    family: Family, page: Page, keep_screenshot: Callable[[str], None], outside_requests: list[str]
) -> None:
    page.goto(family.page)
    for t in FRACTIONS:
        row = page.get_by_role("row").filter(has_text=f"family slerp t={t}").first
        row.get_by_label("toggle row selection").first.check()
    close_assistant(page)
    keep_screenshot("mlflow-runs")

    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Comparing 3 Runs").first).to_be_visible()
    # The plot opens with the one setting that differs and the score, without anybody choosing them.
    expect(page.locator(".axis-title")).to_have_text(["t", "spartqa_train/acc"])
    keep_screenshot("mlflow-parallel-coordinates")

    score = page.get_by_role("link", name="spartqa_train/acc", exact=True)
    names = beside(page.get_by_role("rowheader", name="Run Name:"))
    fractions = [float(text) for text in beside(page.get_by_role("rowheader", name="t", exact=True))]
    assert sorted(fractions) == list(FRACTIONS)
    assert names == [f"family slerp t={t}" for t in fractions]
    told = [round(family.runs[t][1], 3) for t in fractions]
    assert len(set(told)) == len(FRACTIONS)
    for section in range(2):  # of parameters, of metrics
        page.get_by_label("Show diff only").nth(section).click()
    expect(page.get_by_role("link", name="fetch/bytes", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Artifacts", exact=True).scroll_into_view_if_needed()
    # Itself not scrolled to: the names would move beside figures that stay where they are.
    expect(score).to_be_visible()
    assert [float(text) for text in beside(score)] == told
    keep_screenshot("mlflow-comparison")
    assert outside_requests == []


def test_a_run_says_in_words_and_links_what_it_is(
    family: Family, page: Page, keep_screenshot: Callable[[str], None]
) -> None:
    run, _ = family.runs[0.5]
    assert run.url is not None
    page.goto(run.url)
    expect(page.get_by_role("cell", name="better", exact=True).first).to_be_visible()
    link = page.get_by_role("link", name="mergeline-demo/compass").first
    expect(link).to_have_attribute("href", re.compile(r"/mergeline-demo/compass/tree/[0-9a-f]{40}$"))
    close_assistant(page)
    keep_screenshot("mlflow-run")


def beside(head: Locator) -> list[str]:
    """Return what stands to the right of a line's head, from left to right: MLflow's tables are not all of cells."""
    texts: list[str] = head.evaluate(
        """head => {
            const at = head.getBoundingClientRect(), middle = at.top + at.height / 2;
            return [...document.querySelectorAll('*')]
                .filter(element => !element.children.length && element.textContent.trim())
                .map(element => ({text: element.textContent.trim(), at: element.getBoundingClientRect()}))
                .filter(({at: {left, top, bottom}}) =>
                    left >= at.right - 1 && Math.abs((top + bottom) / 2 - middle) < 8)
                .sort((one, other) => one.at.left - other.at.left)
                .map(each => each.text);
        }"""
    )
    return texts


def close_assistant(page: Page) -> None:
    """Close the panel that MLflow opens beside its pages."""
    button = page.get_by_role("button", name="Close", exact=True)
    expect(button).to_be_visible()
    button.click()
    expect(button).to_be_hidden()
