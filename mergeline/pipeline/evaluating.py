"""Models by name, scored and compared: an evaluation that is no part of a merge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergeline.evaluation.evaluate_models import ModelToEvaluate, check_labels
from mergeline.evaluation.questions.task_questions import TaskQuestions
from mergeline.evaluation.results import EvaluationReport
from mergeline.merge.devices import choose_devices
from mergeline.pipeline import steps
from mergeline.pipeline.language import Evaluate
from mergeline.pipeline.preflight import fetch_questions, find_questions
from mergeline.sources.checkpoint import open_checkpoint
from mergeline.sources.hub import Hub
from mergeline.support.calling import Call, call_directly

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedEvaluation:
    """One lm-eval task's report, with what it is about."""

    report: EvaluationReport
    models: list[ModelToEvaluate]
    """As they lie on this machine; the one in question last."""
    questions: TaskQuestions


def fetch_models(names: Sequence[str], hub: Hub, call: Call = call_directly) -> list[ModelToEvaluate]:
    """Bring models onto this machine; each is called what it was asked for by."""
    check_labels([ModelToEvaluate(name, Path()) for name in names])
    directories = call(steps.fetch_checkpoints, [open_checkpoint(name, hub) for name in names], hub)
    return [ModelToEvaluate(name, directory) for name, directory in zip(names, directories, strict=True)]


def evaluate_named(
    names: Sequence[str],
    evaluate: Evaluate | None = None,
    *,
    device: str = "auto",
    hub: Hub | None = None,
    on_line: Callable[[str], None] = logger.info,
    call: Call = call_directly,
) -> Iterator[NamedEvaluation]:
    """Score models and compare the last with the others, one lm-eval task after another.

    Args:
        names: Directories or Hub ids; the model in question last.
        evaluate: Settings, as a pipeline's section ``evaluate``; its base is shown but not compared with.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        hub: Where models and questions are looked up; the environment's Hub by default.
        on_line: Called with each line of progress.
        call: Calls the steps.

    Yields:
        One evaluation per lm-eval task.

    Raises:
        InputError: If a model, a task, its questions or the device is not there.
        EvaluationError: If lm-eval failed.
    """
    evaluate, hub = evaluate or Evaluate(), hub or Hub()
    chosen = choose_devices(device)[0]
    questions = find_questions(evaluate, hub)
    base = [evaluate.base] if evaluate.base is not None else []
    models = fetch_models([*base, *names], hub, call)
    call(fetch_questions, questions, hub)
    for task in evaluate.tasks:
        asked = questions.of(task, hub)
        report = call(steps.score, models, len(base), evaluate, asked, chosen, on_line)
        yield NamedEvaluation(report, models, asked)
