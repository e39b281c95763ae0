"""The records of evaluations: settings, answers, comparisons and reports. All of them travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Scoring = Literal["stock", "fast"]


@dataclass(frozen=True)
class EvaluationSettings:
    """Everything that decides an evaluation's numbers, except the model and the questions themselves."""

    task: str
    """lm-eval task, e.g. ``spartqa_train``."""
    dataset: str | None = None
    """Local file, Hub dataset id or ``directions``, with a selection if any, e.g.
    ``tasksource/spartqa-mchoice?shuffle=9163&take=1000``; None: the task's own questions."""
    limit: int | None = None
    """Number of questions to evaluate, from the first; None: all."""
    batch_size: int = 32
    """Questions per forward pass."""
    dtype: Dtype = "auto"
    """Dtype in which weights are loaded; ``auto``: as stored."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:n``."""
    seed: int = 1234
    """Seeds lm-eval's own random generators; a multiple-choice task draws nothing from them."""
    engine: Scoring = "stock"
    """How choices are scored. ``stock``: lm-eval unchanged. ``fast``: the same scores, computed from the logits of
    the last position only."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question."""

    question: str
    """Identifier of the question within its data."""
    cluster: str
    """Questions that share a story share this."""
    target: int
    """Index of the right choice."""
    prediction: int
    """Index of the choice with the highest log-probability."""
    log_probabilities: tuple[float, ...]
    """One per choice, in nats."""
    columns: dict[str, str] = field(default_factory=dict[str, str])
    """Further columns of the data, e.g. ``relation``; see :mod:`mergeline.evaluation.questions.question_columns`."""

    @property
    def is_correct(self) -> bool:
        return self.prediction == self.target


@dataclass(frozen=True)
class Evaluation:
    """One model on one lm-eval task."""

    label: str
    """What the reader calls the model: a Hub id, a directory's name, or the merge's name."""
    model_digest: str
    """sha256 over the model's weights, config and tokenizer files."""
    settings: EvaluationSettings
    accuracy: float
    """lm-eval's ``acc``, in [0, 1]."""
    stderr: float
    """lm-eval's own standard error of ``acc``, in [0, 1]."""
    task_version: str
    """``metadata.version`` of the lm-eval task."""
    task_hash: str
    """sha256 over every question's prompt, choices and target; equal for comparable evaluations."""
    table: str
    """lm-eval's own results table, unchanged Markdown."""
    answers: tuple[Answer, ...]
    versions: dict[str, str] = field(default_factory=dict[str, str])
    """Package name -> version: lm_eval, transformers, torch, tokenizers, datasets."""
    elapsed_seconds: float = 0.0
    n_shot: int = 0
    """Solved examples shown before each question."""
    split: str = ""
    """Split of the data that the lm-eval task evaluates, e.g. ``train``."""
    loaded_dtype: str = ""
    """Dtype of the loaded weights, e.g. ``bfloat16``, also where the settings say ``auto``."""
    prompt_source: str = ""
    """The task's ``doc_to_text``: the source of its function, or its template."""
    task_digest: str = ""
    """sha256 over the task's YAML and Python; empty for a task that only lm-eval's version identifies."""
    questions_digest: str = ""
    """sha256 over the questions; empty where they are the task's own."""
    n_fast: int = 0
    """Number of questions scored by ``engine: fast``; stock lm-eval scored the others."""

    @property
    def n_questions(self) -> int:
        return len(self.answers)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same questions, paired."""

    label: str
    reference: str
    difference: float
    """Accuracy of ``label`` minus accuracy of ``reference``, in [-1, 1]."""
    low: float
    """Lower end of the 95 % interval of the paired difference."""
    high: float
    """Upper end of that interval."""
    wins: int
    """Number of questions that only ``label`` answers correctly."""
    losses: int
    """Number of questions that only ``reference`` answers correctly."""
    p_value: float
    """Exact two-sided McNemar test, Holm-corrected over the comparisons of one call."""
    verdict: str
    """``better``, ``worse``, ``no detectable difference`` or ``not comparable``."""
    clustered_p_value: float = 1.0
    """Exact test that swaps answers by whole clusters, Holm-corrected; equal to ``p_value`` without clusters."""
    stderr: float | None = None
    """Clustered standard error of ``difference``; None for a single cluster, or if not comparable."""
    detectable: float | None = None
    """Smallest true difference that is detected with 80 % power; None as for ``stderr``."""
    both_right: int = 0
    """Number of questions that both answer correctly."""
    both_wrong: int = 0
    """Number of questions that neither answers correctly."""
    oracle_accuracy: float | None = None
    """Share of questions that at least one of the two answers correctly."""
    margin: float = 0.0
    """Loss of accuracy that still counts as not worse, in [0, 1]."""
    is_not_inferior: bool = False
    """Whether the whole interval lies above ``-margin``: a one-sided test at 2.5 %."""
    reason: str = ""
    """Why the two are ``not comparable``."""

    @property
    def discordance(self) -> float:
        """Share of questions that exactly one of the two answers correctly, in [0, 1]."""
        total = self.wins + self.losses + self.both_right + self.both_wrong
        return (self.wins + self.losses) / total if total else 0.0


@dataclass(frozen=True)
class CalibrationBin:
    """The questions whose chosen answer has a probability between ``low`` and ``high``."""

    low: float
    """Included; ``high`` is excluded, except in the last bin."""
    high: float
    count: int
    confidence: float
    """Mean probability of the chosen answer, normalised over the choices; 0 in an empty bin."""
    accuracy: float
    """Share of correct answers; 0 in an empty bin."""


@dataclass(frozen=True)
class ModelSummary:
    """Statistics of one model's answers."""

    label: str
    accuracy: float
    low: float
    """Lower end of Wilson's 95 % interval on the effective number of questions."""
    high: float
    n_clusters: int
    clustered_stderr: float | None
    """Standard error of the accuracy, clustered by story; None for a single cluster."""
    above_majority: float
    """Accuracy minus that of always giving the most frequent right answer."""
    gold_probability: float
    """Mean probability of the right choice, normalised over the choices."""
    brier: float
    """Mean over questions of Σ (probability - [choice is right])² over the choices, in [0, 2]; lower is better."""
    histogram: tuple[int, ...]
    """Number of times each choice was given."""
    target_histogram: tuple[int, ...]
    """Number of times each choice was right."""
    calibration: tuple[CalibrationBin, ...]
    calibration_error: float
    """Expected calibration error: mean |confidence - accuracy| over the bins, weighted by questions, in [0, 1]."""


@dataclass(frozen=True)
class GroupScore:
    """One model's score on one group of questions."""

    label: str
    correct: int
    accuracy: float
    low: float
    """Lower end of Wilson's 95 % interval on the effective number of questions."""
    high: float


@dataclass(frozen=True)
class QuestionGroup:
    """All questions with the same value in a column."""

    value: str
    n_questions: int
    n_clusters: int
    scores: tuple[GroupScore, ...]
    """One per evaluation of the same questions, in the report's order."""


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by the values of one column."""

    column: str
    slices: tuple[QuestionGroup, ...]
    """One per value; published files have always called them so."""


@dataclass(frozen=True)
class Retention:
    """A merge's accuracy on a group of questions that one parent answers better than all others."""

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
class EvaluationReport:
    """A merge beside its parents and base on one lm-eval task."""

    merge: Evaluation
    references: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...]
    """The merge against each parent, in the parents' order."""
    majority_accuracy: float
    """Accuracy of always giving the most frequent right answer."""
    chance_accuracy: float
    """1 / number of choices."""
    flags: tuple[str, ...] = ()
    """Warnings in words, e.g. ``compass: below majority baseline``."""
    summaries: tuple[ModelSummary, ...] = ()
    """One per evaluation, in the order of ``evaluations``."""
    parent_comparisons: tuple[Comparison, ...] = ()
    """The parents against each other, corrected among themselves."""
    oracle_accuracy: float | None = None
    """Share of questions that at least one parent answers correctly: the score of a merge that loses nothing."""
    breakdowns: tuple[Breakdown, ...] = ()
    """Accuracy by each column that splits the questions into a few groups."""
    retentions: tuple[Retention, ...] = ()
    """The merge's accuracy on each parent's strongest groups."""

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """References first, merge last: the order of every table."""
        return (*self.references, self.merge)


@dataclass(frozen=True)
class Sample:
    """One prompt and a model's completion."""

    label: str
    prompt: str
    completion: str
    max_new_tokens: int
    seed: int
    dtype: str = "auto"
    """Dtype in which weights were loaded; ``auto``: as stored."""
    decoding: str = "greedy"
    """How each token was chosen from the model's probabilities."""
