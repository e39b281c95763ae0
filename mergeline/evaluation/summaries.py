"""What a report says of each model and each kind of question, as records that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CalibrationBin:
    """The questions on which a model was about equally sure."""

    low: float
    """Lower end of the probability of the chosen answer; the next bin begins where this one ends."""
    high: float
    count: int
    confidence: float
    """Mean probability of the chosen answer, among the choices; 0 in an empty bin."""
    accuracy: float
    """Share of right answers; 0 in an empty bin."""


@dataclass(frozen=True)
class ModelSummary:
    """One model's answers in numbers."""

    label: str
    accuracy: float
    low: float
    """Lower end of Wilson's 95 % interval on the effective number of questions."""
    high: float
    n_clusters: int
    clustered_stderr: float | None
    """Standard error of the accuracy where questions on one story are one piece of evidence; None: one cluster."""
    above_majority: float
    """Accuracy minus that of always giving the most frequent right answer."""
    gold_probability: float
    """Mean probability of the right choice, among the choices."""
    brier: float
    """Mean over questions of Σ over choices of (probability - 1 where right)², in [0, 2]; lower is better."""
    histogram: tuple[int, ...]
    """How often each choice was given."""
    target_histogram: tuple[int, ...]
    """How often each choice was right."""
    calibration: tuple[CalibrationBin, ...]
    calibration_error: float
    """Mean distance of confidence and accuracy over the bins, weighted by questions, in [0, 1]."""


@dataclass(frozen=True)
class SliceScore:
    """One model on one kind of question."""

    label: str
    correct: int
    accuracy: float
    low: float
    """Lower end of Wilson's 95 % interval on the effective number of questions."""
    high: float


@dataclass(frozen=True)
class Slice:
    """The questions that share a value of a column."""

    value: str
    n_questions: int
    n_clusters: int
    scores: tuple[SliceScore, ...]
    """One per evaluation that answered the same questions, in the report's order."""


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by the values of one column."""

    column: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Retention:
    """What a merge kept of one strength of a parent: a kind of question that no other parent answers as well."""

    parent: str
    column: str
    value: str
    n_questions: int
    parent_accuracy: float
    merge_accuracy: float

    @property
    def share(self) -> float:
        """The merge's accuracy over the parent's; above 1 where the merge is better."""
        return self.merge_accuracy / self.parent_accuracy


@dataclass(frozen=True)
class GeometryCell:
    """How far apart two sources are in one tensor, for the heat map."""

    layer: int | None
    """Index of the layer; None for a tensor outside the layers."""
    kind: str
    """The tensor's name without its layer, e.g. ``self_attn.q_proj``."""
    value: float
    """Cosine between the sources, in [-1, 1]."""
