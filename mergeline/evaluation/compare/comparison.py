"""Compare a merge with its parents question by question, and give each comparison a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.compare.breakdown import break_down, columns_to_break_down, retentions
from mergeline.evaluation.compare.flags import flags
from mergeline.evaluation.compare.model_summary import majority_accuracy, summarise
from mergeline.evaluation.compare.paired_differences import paired_interval, sign_flip_p_value
from mergeline.evaluation.compare.statistics import (
    SIGNIFICANCE,
    Interval,
    clustered_stderr,
    detectable_difference,
    holm,
    mcnemar_p_value,
)
from mergeline.evaluation.questions.question_columns import check_columns
from mergeline.evaluation.results import Answer, Comparison, Evaluation, EvaluationReport

BETTER = "better"
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
NOT_COMPARABLE = "not comparable"


def compare(merge: Evaluation, references: Sequence[Evaluation], *, margin: float) -> tuple[Comparison, ...]:
    """Compare ``merge`` with each reference, question by question, in the references' order.

    ``better`` and ``worse`` need all three: an exact McNemar p value below 0.05, the same for the test that swaps
    answers by whole clusters, both Holm-corrected over all comparisons of the call, and a 95 % interval that excludes
    0. Evaluations with other questions, prompts, dtype, batch size, engine or limit are ``not comparable``: interval
    -1 to 1, no wins, no losses, p values 1.

    Args:
        merge: The evaluation that is judged.
        references: The evaluations it is compared with.
        margin: Loss of accuracy that still counts as not worse, in [0, 1].
    """
    return _corrected([(merge, reference) for reference in references], margin)


def compare_with_parents(
    merge: Evaluation,
    parents: Sequence[Evaluation],
    base: Evaluation | None = None,
    *,
    margin: float,
    columns: Sequence[str] | None = None,
) -> EvaluationReport:
    """Compare a merge with its parents, and show the base model, if given, beside them.

    Args:
        merge: The evaluation that is judged.
        parents: Evaluations of the models it was merged from.
        base: Shown, but not compared with.
        margin: Loss of accuracy that still counts as not worse, in [0, 1].
        columns: Columns of the questions to break accuracy down by; None: those with 2 to 20 values.

    Raises:
        EvaluationInputError: an evaluation without answers, or a column that the questions do not have.
    """
    references = (*(() if base is None else (base,)), *parents)
    evaluations = (*references, merge)
    for evaluation in evaluations:
        if not evaluation.answers:
            raise EvaluationInputError(f"{evaluation.label}: its evaluation holds no answers to compare.")
    alike = [evaluation for evaluation in evaluations if evaluation.task_hash == merge.task_hash]
    chosen = columns_to_break_down(merge) if columns is None else tuple(columns)
    check_columns({name for answer in merge.answers for name in answer.columns}, chosen)
    breakdowns = tuple(break_down(alike, column) for column in chosen)
    return EvaluationReport(
        merge=merge,
        references=references,
        comparisons=compare(merge, parents, margin=margin),
        majority_accuracy=majority_accuracy(merge),
        chance_accuracy=1 / len(merge.answers[0].log_probabilities),
        flags=tuple(flags(merge, references)),
        summaries=tuple(summarise(evaluation) for evaluation in evaluations),
        parent_comparisons=_corrected(list(combinations(parents, 2)), margin),
        oracle_accuracy=_oracle_accuracy([parent for parent in parents if parent in alike]),
        breakdowns=breakdowns,
        retentions=retentions(breakdowns, merge.label, [parent.label for parent in parents]),
    )


def verdict(p_values: Sequence[float], interval: Interval) -> str:
    """Return the verdict for corrected p values and the interval of a difference; both must show a difference."""
    is_beyond_chance = all(p_value < SIGNIFICANCE for p_value in p_values)
    if is_beyond_chance and interval.low > 0:
        return BETTER
    if is_beyond_chance and interval.high < 0:
        return WORSE
    return NO_DIFFERENCE


@dataclass(frozen=True)
class _Pair:
    """Two comparable evaluations, before their p values are corrected for multiple comparisons."""

    differences: list[int]
    """Per question: 1 if only the first is right, -1 if only the second is, else 0."""
    clusters: list[str]
    both_right: int

    @property
    def wins(self) -> int:
        return self.differences.count(1)

    @property
    def losses(self) -> int:
        return self.differences.count(-1)

    def judge(
        self, merge: Evaluation, reference: Evaluation, margin: float, p_value: float, clustered_p_value: float
    ) -> Comparison:
        interval = paired_interval(self.differences, self.clusters)
        stderr = clustered_stderr(self.differences, self.clusters)
        total, wins, losses = len(self.differences), self.wins, self.losses
        return Comparison(
            label=merge.label,
            reference=reference.label,
            difference=(wins - losses) / total,
            low=interval.low,
            high=interval.high,
            wins=wins,
            losses=losses,
            p_value=p_value,
            verdict=verdict((p_value, clustered_p_value), interval),
            clustered_p_value=clustered_p_value,
            stderr=stderr,
            detectable=None if stderr is None else detectable_difference(stderr, total),
            both_right=self.both_right,
            both_wrong=total - self.both_right - wins - losses,
            oracle_accuracy=(self.both_right + wins + losses) / total,
            margin=margin,
            is_not_inferior=interval.low > -margin,
        )


def _corrected(pairs: Sequence[tuple[Evaluation, Evaluation]], margin: float) -> tuple[Comparison, ...]:
    """Compare each (evaluation, reference) and Holm-correct the p values over all comparable pairs."""
    paired = [None if _reason(*evaluations) else _pair(*evaluations) for evaluations in pairs]
    comparable = [pair for pair in paired if pair is not None]
    p_values = iter(holm([mcnemar_p_value(pair.wins, pair.losses) for pair in comparable]))
    clustered = iter(holm([sign_flip_p_value(pair.differences, pair.clusters) for pair in comparable]))
    return tuple(
        _not_comparable(*evaluations, margin)
        if pair is None
        else pair.judge(*evaluations, margin, next(p_values), next(clustered))
        for evaluations, pair in zip(pairs, paired, strict=True)
    )


def _pair(merge: Evaluation, reference: Evaluation) -> _Pair:
    answers = list(zip(merge.answers, reference.answers, strict=True))
    return _Pair(
        differences=[int(ours.is_correct) - int(theirs.is_correct) for ours, theirs in answers],
        clusters=[answer.cluster for answer in merge.answers],
        both_right=sum(ours.is_correct and theirs.is_correct for ours, theirs in answers),
    )


def _reason(merge: Evaluation, reference: Evaluation) -> str:
    """Return why two evaluations cannot be compared; empty if they can."""
    if merge.task_hash != reference.task_hash or merge.n_questions != reference.n_questions:
        return "other questions or prompts"
    # `auto` and a named dtype are the same setting if the weights were loaded in the same dtype.
    is_loaded_alike = merge.loaded_dtype != "" and merge.loaded_dtype == reference.loaded_dtype
    for name in ("batch_size", "limit", "engine") if is_loaded_alike else ("dtype", "batch_size", "limit", "engine"):
        ours, theirs = getattr(merge.settings, name), getattr(reference.settings, name)
        if ours != theirs:
            return f"{name} {ours} against {theirs}"
    return ""


def _not_comparable(merge: Evaluation, reference: Evaluation, margin: float) -> Comparison:
    return Comparison(
        label=merge.label,
        reference=reference.label,
        difference=merge.accuracy - reference.accuracy,
        low=-1.0,
        high=1.0,
        wins=0,
        losses=0,
        p_value=1.0,
        verdict=NOT_COMPARABLE,
        margin=margin,
        reason=_reason(merge, reference),
    )


def _oracle_accuracy(parents: Sequence[Evaluation]) -> float | None:
    if not parents:
        return None
    by_question: list[tuple[Answer, ...]] = list(zip(*(parent.answers for parent in parents), strict=True))
    return sum(any(answer.is_correct for answer in answers) for answers in by_question) / len(by_question)
