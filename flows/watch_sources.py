"""New commits of watched sources -> the merges that depend on them."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from tasks.watching import watch_pipeline


@flow(name="watch-sources", flow_run_name="watch sources")
def watch_sources(
    pipelines: list[str] = ["configs/pipelines/demo.yaml"],  # noqa: B006 - the form shows this default
    deployment: str = "merge-and-evaluate/merge-and-evaluate",
) -> list[str]:
    """Start the merges whose sources have a new commit on the Hub, once per commit; the first look only takes note.

    Args:
        pipelines: Pipeline files, as the workers see them.
        deployment: What is run for each.
    """
    looks = [watch_pipeline.submit(Path(path), deployment) for path in pipelines]
    # Each has had its look before the first failure is told.
    for each in looks:
        each.wait()
    return [run for each in looks if (run := each.result()) is not None]
