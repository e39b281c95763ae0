"""The pipeline's steps as Prefect tasks: what each plain function of the engine becomes in a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import get_run_logger, runtime

from flows.executors import merge_shards
from mergeline.merge.assembly import assemble
from mergeline.pipeline import preflight, steps
from mergeline.pipeline.run import Ask, Host
from tasks import assembling, evaluating, fetching, planning, publishing, tracking

P = ParamSpec("P")
T = TypeVar("T")

TASKS: dict[Callable[..., Any], Callable[..., Any]] = {
    steps.prepare: planning.plan,
    steps.open_run: tracking.open_run,
    steps.fetch_checkpoints: fetching.fetch_checkpoints,
    steps.merge_shards: merge_shards,
    assemble: assembling.assemble,
    steps.verify: assembling.verify,
    preflight.fetch_questions: fetching.fetch_questions,
    steps.score: evaluating.evaluate,
    steps.sample: evaluating.sample,
    steps.publish: publishing.publish,
    steps.record: tracking.record_merge,
    steps.fail_run: tracking.fail_run,
}
"""Engine's step -> Prefect task, or a function that starts several."""


def as_task(step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a step as its Prefect task."""
    return TASKS[step](*args, **kwargs)


def flow_host(ask: Ask) -> Host:
    """Return the running flow as a pipeline's host; only a deployment can wait for a person."""
    tags: dict[str, Any] = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_url": runtime.flow_run.ui_url,
    }
    return Host(
        call=as_task,
        tags={key: str(value) for key, value in tags.items() if value},
        log=get_run_logger().info,
        show_run=tracking.show_run,
        ask=ask if runtime.deployment.id is not None else None,
    )
