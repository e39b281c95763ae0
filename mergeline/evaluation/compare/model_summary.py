"""Statistics of one model's answers: accuracy with its interval, probabilities, letters, calibration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from mergeline.evaluation.compare.statistics import Interval, clustered_stderr, design_effect, wilson_interval
from mergeline.evaluation.results import Answer, CalibrationBin, Evaluation, ModelSummary

CALIBRATION_BINS = 10


def summarise(evaluation: Evaluation) -> ModelSummary:
    """Summarise one model's answers, at least one."""
    answers = evaluation.answers
    probabilities = [choice_probabilities(answer) for answer in answers]
    interval = accuracy_interval(answers)
    bins = calibration(answers)
    return ModelSummary(
        label=evaluation.label,
        accuracy=evaluation.accuracy,
        low=interval.low,
        high=interval.high,
        n_clusters=len({answer.cluster for answer in answers}),
        clustered_stderr=clustered_stderr(_hits(answers), [answer.cluster for answer in answers]),
        above_majority=evaluation.accuracy - majority_accuracy(evaluation),
        gold_probability=_mean([row[answer.target] for row, answer in zip(probabilities, answers, strict=True)]),
        brier=_mean([_brier(row, answer.target) for row, answer in zip(probabilities, answers, strict=True)]),
        histogram=_histogram([answer.prediction for answer in answers], answers),
        target_histogram=_histogram([answer.target for answer in answers], answers),
        calibration=bins,
        calibration_error=sum(bin.count * abs(bin.confidence - bin.accuracy) for bin in bins) / len(answers),
    )


def accuracy_interval(answers: Sequence[Answer]) -> Interval:
    """Return Wilson's 95 % interval for the accuracy, with both counts divided by the design effect of the clusters."""
    effect = design_effect(_hits(answers), [answer.cluster for answer in answers])
    return wilson_interval(sum(answer.is_correct for answer in answers) / effect, len(answers) / effect)


def majority_accuracy(evaluation: Evaluation) -> float:
    """Return the accuracy of always giving the most frequent right choice, in [0, 1]."""
    return max(Counter(answer.target for answer in evaluation.answers).values()) / evaluation.n_questions


def choice_probabilities(answer: Answer) -> tuple[float, ...]:
    """Return the softmax of the choices' log-probabilities; the probabilities add up to 1."""
    largest = max(answer.log_probabilities)
    weights = [math.exp(value - largest) for value in answer.log_probabilities]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def calibration(answers: Sequence[Answer]) -> tuple[CalibrationBin, ...]:
    """Compare confidence with accuracy in ten bins of the chosen answer's probability.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(CALIBRATION_BINS)]
    for answer in answers:
        confidence = max(choice_probabilities(answer))
        bins[min(int(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)].append((confidence, answer.is_correct))
    return tuple(
        CalibrationBin(
            low=number / CALIBRATION_BINS,
            high=(number + 1) / CALIBRATION_BINS,
            count=len(answered),
            confidence=_mean([confidence for confidence, _ in answered]),
            accuracy=_mean([float(is_correct) for _, is_correct in answered]),
        )
        for number, answered in enumerate(bins)
    )


def letter(choice: int) -> str:
    """Return the letter of a choice's index: A for 0."""
    return chr(ord("A") + choice)


def _brier(probabilities: Sequence[float], target: int) -> float:
    return sum((value - (choice == target)) ** 2 for choice, value in enumerate(probabilities))


def _histogram(choices: Sequence[int], answers: Sequence[Answer]) -> tuple[int, ...]:
    counts = Counter(choices)
    return tuple(counts[choice] for choice in range(max(len(answer.log_probabilities) for answer in answers)))


def _hits(answers: Sequence[Answer]) -> list[float]:
    return [float(answer.is_correct) for answer in answers]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
