"""Whether a merge is good enough to be published, as the pipeline's policy says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mergeline.evaluation.compare.comparison import BETTER, NOT_COMPARABLE, WORSE
from mergeline.evaluation.results import Comparison, EvaluationReport
from mergeline.publish.policy import PublishWhen


@dataclass(frozen=True)
class Decision:
    """What was decided, and why."""

    is_published: bool
    reason: str
    is_pending: bool = False
    """Whether somebody may still say yes: the merge is finished and waits for approval."""


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
    found = "; ".join(dict.fromkeys(words)) or "nothing was compared"
    return Decision(bool(passes) and all(passes), f"publish.when is {when}: {found}")


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
