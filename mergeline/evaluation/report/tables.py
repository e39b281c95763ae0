"""Evaluation reports as text: Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergeline.evaluation.compare.comparison import NO_DIFFERENCE, NOT_COMPARABLE
from mergeline.evaluation.compare.model_summary import accuracy_interval, letter
from mergeline.evaluation.results import Breakdown, Comparison, Evaluation, EvaluationReport, ModelSummary
from mergeline.support.text import table

_HEADERS = ("Model", "Task", "Version", "Filter", "n-shot", "Metric", "Value", "Stderr", "95 % interval")


def results_table(evaluations: Sequence[Evaluation]) -> str:
    """Return a table with lm-eval's columns, one row per model, and a Wilson interval that accounts for clusters."""
    return _markdown(_HEADERS, [_row(evaluation) for evaluation in evaluations])


def comparison_line(comparison: Comparison) -> str:
    """Return one sentence about a comparison: verdict, difference, interval, counts and p values."""
    pair = f"{comparison.label} against {comparison.reference}: {comparison.verdict}"
    if comparison.verdict == NOT_COMPARABLE:
        return f"{pair} ({comparison.reason})"
    p_values = f"p = {comparison.p_value:.2g}"
    if comparison.clustered_p_value != comparison.p_value:
        p_values += f", by cluster {comparison.clustered_p_value:.2g}"
    line = (
        f"{pair} ({comparison.difference:+.3f}, 95 % interval {comparison.low:+.3f} to {comparison.high:+.3f}; "
        f"{comparison.wins} won, {comparison.losses} lost, {p_values})"
    )
    if comparison.verdict != NO_DIFFERENCE:
        return line
    if comparison.is_not_inferior:
        line += f"; not worse by more than {comparison.margin:g}"
    if comparison.detectable is not None:
        line += f"; {comparison.detectable:.3f} could have been found"
    return line


def report_text(report: EvaluationReport) -> str:
    """Return a report as Markdown: results, baselines, comparisons, flags, summaries, breakdowns, lm-eval's tables."""
    questions, clusters = report.merge.n_questions, len({answer.cluster for answer in report.merge.answers})
    counts = f"{questions:,} questions" + ("" if clusters == questions else f" in {clusters:,} clusters")
    baselines = f"Chance {report.chance_accuracy:.3f}, majority answer {report.majority_accuracy:.3f}"
    if report.oracle_accuracy is not None and len(report.parent_comparisons):
        baselines += f", either parent right {report.oracle_accuracy:.3f}"
    notes = [
        *(comparison_line(comparison) for comparison in (*report.comparisons, *report.parent_comparisons)),
        *(f"Note: {flag}" for flag in report.flags),
    ]
    parts = [
        results_table(report.evaluations),
        f"{baselines}; {counts}.",
        "\n".join(f"- {note}" for note in notes),
        summary_table(report.summaries),
        *(breakdown_table(breakdown) for breakdown in report.breakdowns),
        own_tables(report.evaluations),
    ]
    return "\n\n".join(filter(None, parts))


def summary_table(summaries: Sequence[ModelSummary]) -> str:
    """Return a table of each model's clustered stderr, probability of the right answer, calibration and letters."""
    if not summaries:
        return ""
    letters = "/".join(letter(choice) for choice in range(len(summaries[0].histogram)))
    headers = ("Model", "Clustered stderr", "Above majority", "Gold probability", "Brier", "ECE", f"Answers {letters}")
    rows: list[Sequence[str]] = [
        (
            summary.label,
            "unknown" if summary.clustered_stderr is None else f"±{summary.clustered_stderr:.4f}",
            f"{summary.above_majority:+.3f}",
            f"{summary.gold_probability:.3f}",
            f"{summary.brier:.3f}",
            f"{summary.calibration_error:.3f}",
            "/".join(str(count) for count in summary.histogram),
        )
        for summary in summaries
    ]
    rows.append(("right answers", *[""] * 5, "/".join(str(count) for count in summaries[0].target_histogram)))
    return _markdown(headers, rows)


def breakdown_table(breakdown: Breakdown) -> str:
    """Return the accuracy of every model on every value of a column, each with its 95 % interval."""
    labels = [score.label for score in breakdown.slices[0].scores] if breakdown.slices else []
    rows = [
        (
            group.value or "(none)",
            str(group.n_questions),
            *(f"{score.accuracy:.3f} ({score.low:.2f} to {score.high:.2f})" for score in group.scores),
        )
        for group in breakdown.slices
    ]
    return _markdown((breakdown.column, "n", *labels), rows)


def own_tables(evaluations: Sequence[Evaluation]) -> str:
    """Return lm-eval's own table of each model, unchanged."""
    tables = [f"{evaluation.label}:\n\n{evaluation.table}" for evaluation in evaluations if evaluation.table]
    return "\n\n".join(["As lm-eval printed it:", *tables]) if tables else ""


def _row(evaluation: Evaluation) -> tuple[str, ...]:
    interval = accuracy_interval(evaluation.answers)
    return (
        evaluation.label,
        Path(evaluation.settings.task).stem,
        evaluation.task_version.removesuffix(".0"),
        "none",
        str(evaluation.n_shot),
        "acc",
        f"{evaluation.accuracy:.4f}".removesuffix("0"),
        f"±{evaluation.stderr:.4f}",
        f"{interval.low:.3f} to {interval.high:.3f}",
    )


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(table(headers, rows))
