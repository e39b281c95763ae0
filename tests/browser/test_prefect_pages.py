"""What a person does in Prefect's pages, on the production form of the stack: both servers on PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard
from playwright.sync_api import Locator, Page, expect

from deployments.local.demo import TOKEN
from flows.form import EXAMPLE_RECIPE
from mergeline.cli.command_line import main
from tests.browser.conftest import CHROMIUM, PATIENCE_MS
from tests.servers.postgres import PostgresCluster, programs, running_cluster
from tests.servers.stack import PATIENCE_SECONDS, QUICK, Stack, running_stack, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
    pytest.mark.skipif(programs() is None, reason="needs PostgreSQL's server (Debian: apt-get install postgresql)"),
]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL server with the two databases."""
    with running_cluster() as cluster:
        for database in ("prefect", "mlflow"):
            cluster.create_database(database)
        yield cluster


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cluster: PostgresCluster) -> Iterator[Stack]:
    """``mergeline up`` whose servers keep everything in PostgreSQL."""
    variables = {
        "PREFECT_API_DATABASE_CONNECTION_URL": cluster.url("prefect", "asyncpg"),
        "MLFLOW_BACKEND_STORE_URI": cluster.url("mlflow", "psycopg2"),
    }
    with running_stack(tmp_path_factory.mktemp("up"), "--with-hub", **variables) as stack:
        yield stack


def test_a_merge_is_asked_for_watched_approved_and_published(
    stack: Stack, cluster: PostgresCluster, page: Page, keep_screenshot: Callable[[str], None]
) -> None:
    open_form(stack, page)
    keep_screenshot("prefect-deployment-form")
    page.get_by_label("name (Optional)", exact=True).fill("from-the-form")
    page.get_by_role("tab", name="int").click()
    page.get_by_role("spinbutton").fill("50")
    page.get_by_label("Select publish").click()
    page.get_by_role("option", name="after_approval").click()
    page.get_by_label("repo_id").fill("from-the-form")
    write_into_box(page, "dataset:", QUICK + "execute: {max_shard_size: 150kB}")
    run = submit(stack, page)
    expect_state(page, "Suspended")
    # Nobody is kept waiting by a person who thinks.
    wait_until(lambda: "executed-flow-run" in event_names(stack, run["id"]), "end of the process")

    page.get_by_role("tab", name="Artifacts").click()
    for key in ("merge-plan", "merge-progress", "geometry", "evaluation", "mlflow-run"):
        expect(page.get_by_text(key, exact=True)).to_be_visible()
    keep_screenshot("prefect-run-artifacts")
    open_artifact(stack, page, run["id"], "evaluation")
    expect(shown(page, "from-the-form against mergeline-demo/compass: better")).to_be_visible()
    keep_screenshot("prefect-evaluation")
    open_artifact(stack, page, run["id"], "geometry")
    expect(shown(page, "Between the models the cosine is")).to_be_visible()
    keep_screenshot("prefect-geometry")

    page.goto(f"{stack.pages['prefect']}/v2/runs/flow-run/{run['id']}")
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    dialogue = page.get_by_role("dialog")
    expect(dialogue.get_by_text("from-the-form against mergeline-demo/clock: better")).to_be_visible()
    keep_screenshot("prefect-approval")
    dialogue.get_by_label("Select Decision").click()
    page.get_by_role("option", name="approve").click()
    dialogue.get_by_label("Select Visibility").click()
    page.get_by_role("option", name="public").click()
    keep_screenshot("prefect-approval-filled")
    resume(stack, page, run["id"])
    stack.wait_for_state(run["id"], "Completed")
    expect_state(page, "Completed")
    open_artifact(stack, page, run["id"], "hub-commit")
    link = page.get_by_test_id("markdown-display").get_by_role("link", name="mergeline/from-the-form on the Hub")
    expect(link).to_be_visible()
    keep_screenshot("prefect-hub-commit")

    api = HfApi(endpoint=stack.pages["hub"].partition("/?")[0], token=TOKEN)
    published = api.model_info("mergeline/from-the-form")
    assert published.private is False
    assert published.sha in str(link.get_attribute("href"))
    card = ModelCard.load(api.hf_hub_download("mergeline/from-the-form", "README.md", cache_dir=stack.folder / "hf"))
    assert "better" in card.text
    # Everything but the question and what came of it was found finished the second time.
    names = [each["name"] for each in stack.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})]
    assert len([name for name in names if name.startswith("merge model-")]) == 3
    assert len([name for name in names if name.startswith("publish ")]) == 1
    # Both servers have written in PostgreSQL, and nowhere else.
    assert b"from-the-form" in cluster.dump("prefect")
    assert b"spartqa_train/acc" in cluster.dump("mlflow")
    assert list(stack.folder.rglob("*.db")) == []


def test_a_mistake_in_the_form_is_told_as_on_the_command_line(
    stack: Stack, page: Page, keep_screenshot: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mistaken = EXAMPLE_RECIPE.replace("base_model", "base_modle")
    (tmp_path / "recipe.yaml").write_text(mistaken)
    assert main(["plan", str(tmp_path / "recipe.yaml")]) == 2
    sentence = capsys.readouterr().err.strip().partition("recipe.yaml:")[2]
    assert sentence.startswith("2: base_modle: ")
    open_form(stack, page)
    write_into_box(page, "merge_method", mistaken)
    submit(stack, page)
    expect_state(page, "Failed")
    page.get_by_role("tab", name="Details").click()
    expect(page.get_by_text(sentence).first).to_be_visible()
    keep_screenshot("prefect-mistake")


def test_a_schedule_starts_a_run(stack: Stack, page: Page, keep_screenshot: Callable[[str], None]) -> None:
    (stack.folder / "configs" / "pipelines").mkdir(parents=True)
    recipe = "".join(f"  {line}\n" for line in EXAMPLE_RECIPE.splitlines())
    (stack.folder / "configs" / "pipelines" / "demo.yaml").write_text(f"name: watched\nrecipe: |\n{recipe}")
    deployment = stack.deployment("watch-sources")
    # Those that are there wait for a quarter of an hour.
    often = {"interval": 20, "anchor_date": datetime.now(UTC).isoformat()}
    (schedule,) = stack.ask(f"deployments/{deployment['id']}/schedules", [{"schedule": often, "active": True}])
    page.goto(f"{stack.pages['prefect']}/v2/deployments/deployment/{deployment['id']}")
    expect(page.get_by_text("Every 15 minutes")).to_be_visible()
    run = wait_until(lambda: started_runs(stack, "watch-sources"), "a scheduled run")[0]
    stack.ask(f"deployments/{deployment['id']}/schedules/{schedule['id']}", method="DELETE")
    assert run["auto_scheduled"]
    stack.wait_for_state(run["id"], "Completed")
    page.goto(f"{stack.pages['prefect']}/v2/runs/flow-run/{run['id']}")
    expect_state(page, "Completed")
    expect(page.get_by_text("auto-scheduled").first).to_be_visible()
    keep_screenshot("prefect-scheduled-run")


def started_runs(stack: Stack, flow: str) -> list[dict[str, Any]]:
    """Return a flow's runs that no longer wait for their time."""
    return [run for run in stack.runs(flow) if run["state_type"] != "SCHEDULED"]


def open_form(stack: Stack, page: Page) -> None:
    """Go to the form as a person does."""
    page.goto(f"{stack.pages['prefect']}/v2/deployments")
    page.get_by_role("link", name="merge-and-evaluate").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(box(page, "merge_method")).to_be_visible()


def expect_state(page: Page, name: str) -> None:
    """Wait until a run's page shows its state."""
    expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE_SECONDS * 1000)


def shown(page: Page, text: str) -> Locator:
    """Return where an artifact says this; its page holds the text a second time, as it was written."""
    return page.get_by_test_id("markdown-display").get_by_text(text)


def box(page: Page, content: str) -> Locator:
    """Return the code box that holds this."""
    return page.get_by_role("textbox").filter(has_text=content)


def write_into_box(page: Page, content: str, text: str) -> None:
    """Replace what a code box holds."""
    box(page, content).click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.press("Delete")
    expect(page.locator(".cm-line", has_text=content)).to_have_count(0)
    page.keyboard.insert_text(text)
    expect(page.locator(".cm-line", has_text=text.splitlines()[0])).to_have_count(1)


def submit(stack: Stack, page: Page) -> dict[str, Any]:
    """Send the form and go to the page of the run that comes of it."""
    earlier = {run["id"] for run in stack.runs("merge-and-evaluate")}
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("tab=Runs"))

    def new() -> list[dict[str, Any]]:
        return [run for run in stack.runs("merge-and-evaluate") if run["id"] not in earlier]

    (run,) = wait_until(new, "a new run")
    page.locator(f"a[href*='{run['id']}']").first.click()
    page.wait_for_url(re.compile(f"/runs/flow-run/{run['id']}"))
    return run


def resume(stack: Stack, page: Page, run: str) -> None:
    """Press the dialogue's button until it has been heard: a list that is still closing swallows what is pressed."""
    button = page.get_by_role("dialog").get_by_role("button", name="Resume")

    def is_heard() -> bool:
        if stack.ask(f"flow_runs/{run}")["state"]["name"] != "Suspended":
            return True
        if button.is_visible():
            button.click()
            with suppress(AssertionError):
                expect(button).to_be_hidden(timeout=10_000)
        return False

    wait_until(is_heard, "the run to be resumed")


def open_artifact(stack: Stack, page: Page, run: str, key: str) -> None:
    """Open the newest version of an artifact of a run."""
    found = stack.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}})
    page.goto(f"{stack.pages['prefect']}/v2/artifacts/artifact/{found[-1]['id']}")


def event_names(stack: Stack, run: str) -> str:
    """Return the names of all events about a run, and of those that mention it."""
    about = {"any_resource": {"id": [f"prefect.flow-run.{run}"]}}
    found = stack.ask("events/filter", {"filter": about, "limit": 50})
    return " ".join(event["event"] for event in found["events"])
