"""Score one model on an lm-eval task; runs in the worker process."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeline.errors import EvaluationError, EvaluationInputError
from mergeline.evaluation.questions.question_columns import question_columns
from mergeline.evaluation.results import Answer, Evaluation, EvaluationSettings
from mergeline.evaluation.worker.loaded_model import load_model
from mergeline.evaluation.worker.task import TaskRequest, question_id, target_index
from mergeline.support.digests import digest

if TYPE_CHECKING:
    from mergeline.evaluation.worker.fast_scoring import TokenizedPrompts

_FILTER = "none"


@dataclass(frozen=True)
class ModelRequest:
    """A model to load, with the label and digest that its evaluation records."""

    label: str
    directory: Path
    digest: str


def score_model(
    task: Any,
    model: ModelRequest,
    settings: EvaluationSettings,
    versions: dict[str, str],
    request: TaskRequest,
    tokenized: TokenizedPrompts,
) -> Evaluation:
    """Load a model, score it on ``task`` with lm-eval, and free its memory.

    Raises:
        EvaluationInputError: the model cannot be loaded, or a question is longer than its context.
        EvaluationError: a log-probability is not finite, or lm-eval's ``acc`` contradicts the log-probabilities.
    """
    import torch

    started = time.perf_counter()
    loaded, tokenizer = load_model(model.label, model.directory, settings.dtype, settings.device)
    loaded_dtype = str(loaded.dtype).removeprefix("torch.")
    try:
        language_model = _language_model(loaded, tokenizer, settings, tokenized)
        results = _evaluate(task, model.label, language_model, settings)
        n_fast = len(getattr(language_model, "served", ()))
    finally:
        language_model = None
        del loaded
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    (name,) = results["results"]
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    columns = question_columns([sample["doc"] for sample in samples])
    answers = tuple(
        replace(_answer(task, sample, model.label), columns=column)
        for sample, column in zip(samples, columns, strict=True)
    )
    scores = results["results"][name]
    from lm_eval.utils import make_table

    return Evaluation(
        label=model.label,
        model_digest=model.digest,
        settings=settings,
        accuracy=float(scores[f"acc,{_FILTER}"]),
        stderr=_stderr(scores[f"acc_stderr,{_FILTER}"]),
        task_version=str(results["versions"][name]),
        task_hash=_task_hash(samples, answers),
        table=make_table(results).strip(),
        answers=answers,
        versions=versions,
        elapsed_seconds=time.perf_counter() - started,
        n_shot=int(results["n-shot"][name]),
        split=str(task.config.test_split or task.config.validation_split),
        loaded_dtype=loaded_dtype,
        prompt_source=str(results["configs"][name].get("doc_to_text", "")),
        task_digest=request.source_digest,
        questions_digest=request.rows_digest,
        n_fast=n_fast,
    )


def _language_model(model: Any, tokenizer: Any, settings: EvaluationSettings, tokenized: TokenizedPrompts) -> Any:
    from lm_eval.models import huggingface

    # A decorator hides the constructors' parameters from type checkers.
    if settings.engine == "fast":
        from mergeline.evaluation.worker import fast_scoring

        make_fast: Any = fast_scoring.FastLanguageModel
        return make_fast(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size, tokenized=tokenized)
    make_stock: Any = huggingface.HFLM
    return make_stock(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size)


def _evaluate(task: Any, label: str, language_model: Any, settings: EvaluationSettings) -> Any:
    """Call lm-eval's ``evaluate``, which unlike ``simple_evaluate`` does not read git or the machine's description."""
    import numpy
    import torch
    from lm_eval.evaluator import evaluate

    random.seed(settings.seed)
    numpy.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    task.set_fewshot_seed(seed=settings.seed)
    _check_lengths(task, label, language_model, settings.limit)
    return evaluate(lm=language_model, task_dict={"tasks": {task.task_name: task}}, limit=settings.limit)


def _check_lengths(task: Any, label: str, language_model: Any, limit: int | None) -> None:
    """Refuse a question longer than the context: lm-eval would silently cut its beginning, the story."""
    if task.config.num_fewshot or task.multiple_input:
        return
    for number, question in task.doc_iterator(limit=limit):
        length = len(language_model.tok_encode(task.doc_to_text(question)))
        if length > language_model.max_length:
            raise EvaluationInputError(
                f"{label}: question {question_id(question, number)} has {length} tokens, the model reads "
                f"{language_model.max_length}; leave the question out or evaluate a model with a longer context."
            )


def _answer(task: Any, sample: dict[str, Any], label: str) -> Answer:
    question = sample["doc"]
    identifier = question_id(question, sample["doc_id"])
    choices = task.doc_to_choice(question)
    log_probabilities = tuple(float(response[0][0]) for response in sample["resps"][: len(choices)])
    if not all(math.isfinite(value) for value in log_probabilities):
        raise EvaluationError(
            f"{label}, question {identifier}: log-probabilities {list(log_probabilities)} are not all finite; "
            "check the merged weights for NaN, or evaluate in float32."
        )
    target = target_index(task, question, identifier, choices)
    prediction = log_probabilities.index(max(log_probabilities))
    if (prediction == target) != bool(sample["acc"]):
        raise EvaluationError(
            f"{label}, question {identifier}: lm-eval counts acc {sample['acc']} where the answer is {prediction} "
            f"and {target} is right; the task scores in a way that cannot be compared answer by answer."
        )
    cluster = question.get("story_id")
    return Answer(
        question=identifier,
        cluster=identifier if cluster is None else str(cluster),
        target=target,
        prediction=prediction,
        log_probabilities=log_probabilities,
    )


def _stderr(value: object) -> float:
    # lm-eval writes "N/A" for a single question.
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def _task_hash(samples: Sequence[dict[str, Any]], answers: Sequence[Answer]) -> str:
    """Digest every question's prompt, choices and target."""
    return digest(
        [
            [[list(argument) for argument in sample["arguments"]], answer.target]
            for sample, answer in zip(samples, answers, strict=True)
        ]
    )
