"""What an evaluation earns a merge: publication, by the pipeline's policy, and the title of champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mergeline.evaluation.compare.comparison import BETTER, NOT_COMPARABLE, WORSE, compare
from mergeline.evaluation.results import Comparison, Evaluation, EvaluationReport
from mergeline.publish.policy import PublishWhen


@dataclass(frozen=True)
class Decision:
    """Whether a merge is published, and why."""

    is_published: bool
    reason: str
    is_pending: bool = False
    """Whether the merge waits for a person's approval."""


def decide(when: PublishWhen, reports: Sequence[EvaluationReport]) -> Decision:
    """Apply the publishing policy to an evaluation.

    Args:
        when: ``always``; ``never``; ``better_than_parents``: every comparison with a parent says `better`;
            ``not_worse_than_parents``: every interval excludes a loss larger than the margin, so that too few
            questions publish nothing; ``after_approval``: nothing yet, a person decides later.
        reports: One per lm-eval task.
    """
    if when == "after_approval":
        return Decision(False, f"publish.when is {when}: waits for approval", is_pending=True)
    if when in ("always", "never"):
        return Decision(when == "always", f"publish.when is {when}")
    comparisons = [comparison for report in reports for comparison in report.comparisons]
    if when == "better_than_parents":
        passes = [comparison.verdict == BETTER for comparison in comparisons]
        words = [_verdict(comparison) for comparison in comparisons]
    else:
        passes = [comparison.is_not_inferior for comparison in comparisons]
        words = [_loss(comparison) for comparison in comparisons]
    reason = "; ".join(dict.fromkeys(words)) or "nothing was compared"
    return Decision(bool(passes) and all(passes), f"publish.when is {when}: {reason}")


def takes_title(reports: Sequence[EvaluationReport], champion: Sequence[Evaluation] | None = None) -> bool:
    """Return whether a merge becomes champion: `better` than every parent and than the champion, on every lm-eval task.

    Args:
        reports: The merge's, one per lm-eval task.
        champion: The present champion's evaluations, in the order of ``reports``; None: there is no champion yet.

    Raises:
        ValueError: The champion has more or fewer evaluations than there are reports.
    """
    if not decide("better_than_parents", reports).is_published:
        return False
    return champion is None or all(
        compare(report.merge, [evaluation], margin=0.0)[0].verdict == BETTER
        for report, evaluation in zip(reports, champion, strict=True)
    )


def _verdict(comparison: Comparison) -> str:
    if comparison.verdict in (BETTER, WORSE):
        return f"{comparison.verdict} than {comparison.reference}"
    return f"{comparison.verdict} ({comparison.reference})"


def _loss(comparison: Comparison) -> str:
    if comparison.verdict == NOT_COMPARABLE:
        return _verdict(comparison)
    if comparison.is_not_inferior:
        return f"not worse than {comparison.reference} by more than {comparison.margin:g}"
    return (
        f"may have lost up to {-comparison.low:.3f} against {comparison.reference}, more than the margin of "
        f"{comparison.margin:g}"
    )
