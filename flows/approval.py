"""A person decides whether a merge goes on the Hub: asked on the run's page, for as long as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prefect import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from mergeline.errors import InputError
from mergeline.evaluation.report.tables import comparison_line
from mergeline.evaluation.results import EvaluationReport
from mergeline.merge.merging import MergedModel
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.pipeline.published_files import report_files
from mergeline.plan.licences import require_publishable
from mergeline.publish.gate import Decision
from mergeline.support.text import table
from mergeline.tracking import TrackedRun
from tasks.tracking import show_report_pages

PATIENCE_SECONDS = 30 * 24 * 3600
"""After so long without an answer the run fails; the same run started again asks again."""


class Approval(RunInput):
    """Whether the merge goes on the Hub."""

    decision: Literal["approve", "reject"] = Field(description="Publish this merge, or do not.")
    visibility: Literal["private", "public"] = Field(default="private", description="Of a repository not yet there.")
    remark: str = Field(default="", description="Kept with the run.")


def ask_for_approval(
    prepared: PreparedPipeline, reports: Sequence[EvaluationReport], run: TrackedRun | None, merged: MergedModel
) -> tuple[Decision, bool]:
    """Suspend this run of a deployment until somebody has decided; its process ends meanwhile, no worker is held.

    Whoever decides finds the evaluation's pages on the run's page. Prefect then starts the run again from the top,
    where every stage finds what it had finished, and this call returns.

    Returns:
        The decision, and whether a new repository is private.

    Raises:
        InputError: If it is to be public and the sources' licences forbid that.
    """
    show_report_pages(run, report_files(merged.directory))
    settings = prepared.pipeline.settings.publish
    answer = suspend_flow_run(
        wait_for_input=Approval.with_initial_data(
            description=_question(prepared, reports), visibility="private" if settings.private else "public"
        ),
        timeout=PATIENCE_SECONDS,
        # What was approved is this plan: had a source moved on meanwhile, somebody would be asked again.
        key=f"approval-{prepared.planned.plan.digest[:12]}",
    )
    is_private = answer.visibility == "private"
    is_approved = answer.decision == "approve"
    if is_approved:
        _require_publishable(prepared, is_private)
    word = f"approved, {answer.visibility}" if is_approved else "rejected"
    return Decision(is_approved, ": ".join(filter(None, [word, answer.remark]))), is_private


def _question(prepared: PreparedPipeline, reports: Sequence[EvaluationReport]) -> str:
    parts = [f"Publish **{prepared.pipeline.settings.name}** as `{prepared.repo_id}`?"]
    try:
        _require_publishable(prepared, is_private=False)
    except InputError as problem:
        parts.append(str(problem))
    for report in reports:
        # Narrow enough for a dialogue; all of it is the run's artifact `evaluation`.
        scores = [(each.label, f"{each.accuracy:.3f} ±{each.stderr:.4f}") for each in report.evaluations]
        remarks = [*map(comparison_line, report.comparisons), *report.flags]
        parts.append("\n".join(table(("model", report.merge.settings.task), scores)))
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    return "\n\n".join(parts)


def _require_publishable(prepared: PreparedPipeline, is_private: bool) -> None:
    require_publishable([source.license for source in prepared.planned.plan.sources], is_public=not is_private)
