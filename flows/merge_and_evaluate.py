"""The whole pipeline: plan, merge, evaluate beside the parents, decide, publish, track."""

from __future__ import annotations

from typing import Annotated, get_args

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.approval import ask_for_approval
from flows.executors import require_executor
from flows.form import EXAMPLE_RECIPE, DeviceChoice, YamlBox
from flows.steps import flow_host
from mergeline.merge.devices import CORES
from mergeline.pipeline.form import read_form
from mergeline.pipeline.published_files import report_files
from mergeline.pipeline.run import PipelineResult, run_pipeline
from mergeline.publish.policy import PublishWhen
from mergeline.sources.hub import Hub
from tasks.tracking import show_report_pages

EXAMPLE_SETTINGS = """\
evaluate:
  dataset: mergeline-demo/spartqa-directions
"""

# As with the device: offered by the form, judged by the pipeline language.
PublishChoice = Annotated[str, Field(json_schema_extra={"enum": list(get_args(PublishWhen))})]


@flow(name="merge-and-evaluate", flow_run_name="{name}", task_runner=ThreadPoolTaskRunner(max_workers=CORES))
def merge_and_evaluate(
    recipe: YamlBox = EXAMPLE_RECIPE,
    name: str = "demo-slerp",
    tasks: list[str] = ["spartqa_train"],  # noqa: B006 - the form shows this default
    limit: int | None = None,
    publish: PublishChoice = "never",
    repo_id: str = "",
    private: bool = True,
    device: DeviceChoice = "auto",
    more: YamlBox = EXAMPLE_SETTINGS,
) -> PipelineResult:
    """Merge checkpoints, evaluate the result beside its parents, publish it and record everything.

    Args:
        recipe: What to merge, in mergekit's YAML.
        name: Names the run and the directory, without spaces.
        tasks: lm-eval tasks; none: no evaluation.
        limit: Only the first this many questions; none: all.
        publish: When the merge goes on the Hub; after_approval waits on this run's page for somebody to say yes.
        repo_id: Where, as owner/name; without an owner, in the namespace of the token.
        private: Whether a new repository is private.
        device: Where the arithmetic runs; auto takes the worker's GPU, or its CPU.
        more: Further settings of the pipeline language, in YAML: the questions, samples, MLflow's experiment.
    """
    pipeline = read_form({
        "recipe": recipe, "name": name, "tasks": tasks, "limit": limit, "publish": publish, "repo_id": repo_id,
        "private": private, "device": device, "more": more,
    })  # fmt: skip
    require_executor(pipeline.settings.execute)
    host = flow_host(ask_for_approval)
    result = run_pipeline(pipeline, Hub(), host)
    if host.ask is None or pipeline.settings.publish.when != "after_approval":
        show_report_pages(result.run, report_files(result.directory))
    return result
