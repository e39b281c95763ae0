"""Prefect task: start a pipeline's merge when one of its sources has a new commit."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client

from mergeline.pipeline.form import to_form
from mergeline.pipeline.language import LoadedPipeline, load_pipeline
from mergeline.pipeline.watching import Look, look
from mergeline.sources.hub import Hub
from tasks.retrying import HUB_RETRIES


@task(name="watch-pipeline", task_run_name="watch {path}", tags=["cpu"], cache_policy=NO_CACHE, **HUB_RETRIES)
def watch_pipeline(path: Path, deployment: str) -> str | None:
    """Look at the pipeline's sources and run the deployment if one has moved; see :func:`look`.

    Returns:
        The flow run that was started, or None.
    """
    pipeline = load_pipeline(path)
    with look(pipeline, Hub()) as found:
        if not found.moved:
            get_run_logger().info("%s: nothing new in %s", path, ", ".join(found.commits) or "sources that never move")
            return None
        return start_merge(pipeline, found, deployment)


def start_merge(pipeline: LoadedPipeline, found: Look, deployment: str) -> str:
    """Run the deployment with the pipeline as its form; the same commits never start a second run."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            client.read_deployment_by_name(deployment).id,
            parameters=to_form(pipeline),
            idempotency_key=f"watch-sources {found.key}",
            tags=["watched"],
        )
    news = [f"- `{source}` is at `{found.commits[source]}`" for source in found.moved]
    create_markdown_artifact(
        "\n".join([f"Started `{deployment}` as flow run `{run.id}`:", "", *news]),
        key="started-merge",
        description=pipeline.settings.name,
    )
    return str(run.id)
