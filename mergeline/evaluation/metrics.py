"""A report as flat numbers, for whatever charts and compares runs; names are relative to the lm-eval task."""

from __future__ import annotations

from mergeline.evaluation.compare.changed_questions import letter
from mergeline.evaluation.compare.comparison import NOT_COMPARABLE
from mergeline.evaluation.results import Comparison, EvaluationReport


def model_metrics(report: EvaluationReport, label: str) -> dict[str, float]:
    """Return what a report says of one model, beyond ``acc`` and ``acc_stderr``.

    Keys: ``acc_ci_low``, ``acc_ci_high``, ``acc_clustered_stderr``, ``acc_above_majority``, ``gold_probability``,
    ``brier``, ``calibration_error``, ``answers.A`` and so on (shares), and ``acc.<column>.<value>``.
    """
    summary = next(one for one in report.summaries if one.label == label)
    total = sum(summary.histogram)
    metrics = {
        "acc_ci_low": summary.low,
        "acc_ci_high": summary.high,
        "acc_above_majority": summary.above_majority,
        "gold_probability": summary.gold_probability,
        "brier": summary.brier,
        "calibration_error": summary.calibration_error,
        **{f"answers.{letter(choice)}": count / total for choice, count in enumerate(summary.histogram)},
    }
    if summary.clustered_stderr is not None:
        metrics["acc_clustered_stderr"] = summary.clustered_stderr
    for breakdown in report.breakdowns:
        for one in breakdown.slices:
            accuracies = {score.label: score.accuracy for score in one.scores}
            if label in accuracies:
                metrics[f"acc.{breakdown.column}.{one.value or 'none'}"] = accuracies[label]
    return metrics


def comparison_metrics(comparison: Comparison) -> dict[str, float]:
    """Return what a comparison says beyond difference, interval, wins, losses and p value; nothing if it says nothing.

    Keys: ``p_value_by_cluster``, ``detectable``, ``discordance``, ``not_inferior`` (0 or 1).
    """
    if comparison.verdict == NOT_COMPARABLE:
        return {}
    metrics = {
        "p_value_by_cluster": comparison.clustered_p_value,
        "discordance": comparison.discordance,
        "not_inferior": float(comparison.is_not_inferior),
    }
    return metrics if comparison.detectable is None else metrics | {"detectable": comparison.detectable}
