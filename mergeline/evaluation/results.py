"""What an evaluation is asked and what it answers, as records that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from mergeline.evaluation.summaries import Breakdown, ModelSummary, Retention

MARGIN = 0.02
"""Accuracy that may be lost and still count as not worse, unless a pipeline says otherwise."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Everything, besides the model, that decides an evaluation's numbers."""

    task: str
    """lm-eval task, e.g. ``spartqa_train``."""
    dataset: str | None = None
    """Local file, Hub dataset id or ``directions``, each with a selection if any, e.g.
    ``tasksource/spartqa-mchoice?shuffle=9163&take=1000``; None: the task's own questions."""
    limit: int | None = None
    """Evaluate the first this many questions; None: all."""
    batch_size: int = 32
    """Questions per forward pass."""
    dtype: str = "auto"
    """Weights are loaded in this dtype: ``auto`` (as stored), ``float32``, ``bfloat16``, ``float16``."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:n``."""
    seed: int = 1234
    """Seeds lm-eval's own random generators; a multiple-choice task draws nothing from them."""
    engine: str = "stock"
    """``stock``: lm-eval as it is. ``fast``: the same scores from the last position's logits alone."""


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
    """What else the data says of the question and many share, e.g. ``relation``; see :mod:`breakdown`."""

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
    """Dtype of the weights as loaded, e.g. ``bfloat16``: what ``auto`` came to."""
    prompt_source: str = ""
    """The task's ``doc_to_text``: the source of its function, or its template."""
    task_digest: str = ""
    """sha256 over the task's YAML and Python; empty for a task of lm-eval's that only its version identifies."""
    questions_digest: str = ""
    """sha256 over the questions given; empty where they are the task's own."""
    n_fast: int = 0
    """Questions that ``engine: fast`` served itself; the others went to stock lm-eval."""

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
    """Lower end of the 95 % paired interval, bootstrapped by cluster."""
    high: float
    """Upper end of the same interval."""
    wins: int
    """Questions only ``label`` answers rightly."""
    losses: int
    """Questions only ``reference`` answers rightly."""
    p_value: float
    """Exact two-sided McNemar test, Holm-corrected over the comparisons made together."""
    verdict: str
    """``better``, ``worse``, ``no detectable difference`` or ``not comparable``."""
    clustered_p_value: float = 1.0
    """The same test with whole clusters as its units, Holm-corrected likewise; ``p_value`` without clusters."""
    stderr: float | None = None
    """Clustered standard error of ``difference``; None: a single cluster, or not comparable."""
    detectable: float | None = None
    """Smallest true difference that this comparison finds four times in five; None as for ``stderr``."""
    both_right: int = 0
    """Questions that both answer rightly."""
    both_wrong: int = 0
    """Questions that neither answers rightly."""
    oracle_accuracy: float | None = None
    """Share of questions that at least one of the two answers rightly."""
    margin: float = MARGIN
    """Accuracy that may be lost and still count as not worse."""
    is_not_inferior: bool = False
    """Whether the interval lies above minus ``margin``: proof that no more was lost, at 2.5 %."""
    reason: str = ""
    """Why the two are ``not comparable``, in words."""

    @property
    def discordance(self) -> float:
        """Share of questions that just one of the two answers rightly, in [0, 1]."""
        total = self.wins + self.losses + self.both_right + self.both_wrong
        return (self.wins + self.losses) / total if total else 0.0


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
    """Share of questions that at least one parent answers rightly: what a merge that loses nothing would score."""
    breakdowns: tuple[Breakdown, ...] = ()
    """Accuracy by each column that splits the questions into a few kinds."""
    retentions: tuple[Retention, ...] = ()
    """What is left of each parent's strengths."""

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """References first, the merge last: the order of every table."""
        return (*self.references, self.merge)


@dataclass(frozen=True)
class Sample:
    """One prompt and what a model wrote after it."""

    label: str
    prompt: str
    completion: str
    max_new_tokens: int
    seed: int
    dtype: str = "auto"
    """Weights were loaded in this dtype; ``auto``: as stored."""
    decoding: str = "greedy"
    """How each token was chosen from the model's probabilities."""
