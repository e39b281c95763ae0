"""Evaluations kept on disk, each under a key of everything that decides its numbers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.lm_eval_task import LmEvalTask
from mergeline.evaluation.results import Answer, Evaluation, EvaluationSettings
from mergeline.support.digests import digest

SCORING_VERSION = 3
"""Raised whenever the same model, task and questions would be scored otherwise, so that nothing stale is reused."""

_PACKAGES = ("lm_eval", "transformers", "torch", "tokenizers", "datasets")


def package_versions() -> dict[str, str]:
    """Return the installed version of every package that has a say in a score, without importing any.

    Raises:
        EvaluationInputError: one of them is not installed.
    """
    try:
        return {name: version(name) for name in _PACKAGES}
    except PackageNotFoundError as error:
        raise EvaluationInputError(
            f"Evaluation needs the package {error.name}; install it with: pip install 'mergeline[eval]'."
        ) from None


def evaluation_key(
    model_digest: str,
    task: LmEvalTask,
    questions_digest: str,
    settings: EvaluationSettings,
    versions: Mapping[str, str],
) -> str:
    """Return the sha256, in hex, that names the evaluation of one model; two different models never share one.

    ``settings.task`` and ``settings.dataset`` are only names: the task's source and the questions stand for them.
    """
    return digest(
        {
            "scoring": SCORING_VERSION,
            "model": model_digest,
            "task": [task.name, task.source_digest],
            "questions": questions_digest,
            "settings": asdict(replace(settings, task=task.name, dataset=None)),
            "versions": dict(versions),
        }
    )


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write ``evaluation`` so that ``path`` is either absent or whole, even across a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(evaluation), ensure_ascii=False, allow_nan=False)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_evaluation(path: Path) -> Evaluation | None:
    """Read what :func:`write_evaluation` wrote; None where there is none, or none that can be read."""
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return evaluation_from_json(record)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def evaluation_from_json(record: Mapping[str, Any]) -> Evaluation:
    """Rebuild an :class:`Evaluation` from ``dataclasses.asdict`` of it, as parsed from JSON."""
    fields = dict(record)
    fields["settings"] = EvaluationSettings(**fields["settings"])
    fields["answers"] = tuple(_answer(answer) for answer in cast("list[dict[str, Any]]", fields["answers"]))
    return Evaluation(**fields)


def _answer(record: dict[str, Any]) -> Answer:
    fields = dict(record)
    fields["log_probabilities"] = tuple(fields["log_probabilities"])
    return Answer(**fields)
