"""Evaluations stored on disk, each under a key of everything that decides its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.lm_eval_task import LmEvalTask
from mergeline.evaluation.results import Evaluation, EvaluationSettings
from mergeline.support.digests import digest
from mergeline.support.durable import write_whole

SCORING_VERSION = 3
"""Raised whenever the same model, task and questions would get other scores, so that no stale result is reused."""

_PACKAGES = ("lm_eval", "transformers", "torch", "tokenizers", "datasets")
_EVALUATION = TypeAdapter(Evaluation)


def package_versions() -> dict[str, str]:
    """Return the installed version of every package that can change a score, without importing any.

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

    ``settings.task`` and ``settings.dataset`` are only names and left out: the task's source and the questions
    themselves are digested.
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
    """Write ``evaluation`` so that ``path`` is either absent or complete, even after a power cut."""
    text = json.dumps(asdict(evaluation), ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def read_evaluation(path: Path) -> Evaluation | None:
    """Read what :func:`write_evaluation` wrote; None if there is no file, or an unreadable one."""
    try:
        return _EVALUATION.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
