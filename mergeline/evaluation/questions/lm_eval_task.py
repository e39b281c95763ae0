"""An lm-eval task as Mergeline finds it: its name, its YAML file and the digest of all that defines it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.task_names import check_name, installed_task_names
from mergeline.support.digests import digest

SPARTQA_TRAIN = "spartqa_train"

_SHIPPED_TASKS = Path(__file__).parent / "lm_eval_tasks"


@dataclass(frozen=True)
class LmEvalTask:
    """One lm-eval task, found but not loaded."""

    name: str
    """As lm-eval calls it, e.g. ``spartqa_train``."""
    yaml_path: Path | None
    """File that defines it; None: one of lm-eval's own, which only lm-eval can find."""
    split: str | None
    """Split of the data that it evaluates; None: not known before lm-eval loads it."""
    source_digest: str | None
    """sha256 over the YAML, the YAML files it includes and the Python beside them; None: lm-eval's version says it."""
    n_shot: int = 0
    """Solved examples shown before each question, as far as the YAML says."""
    shot_split: str | None = None
    """Split of the data that they are drawn from."""

    @property
    def needs_questions(self) -> bool:
        """Whether the task as shipped has no data of its own."""
        return self.yaml_path == _shipped_yaml(SPARTQA_TRAIN)


def find_lm_eval_task(task: str) -> LmEvalTask:
    """Find ``task``: one that Mergeline ships, the path of a YAML file, or the name of one of lm-eval's own.

    Raises:
        EvaluationInputError: lm-eval has no task of that name, a YAML file is missing, unreadable or defines no task,
            or the task shows solved examples from the very questions it asks.
    """
    path = _path(task)
    if path is None:
        return LmEvalTask(name=task, yaml_path=None, split=None, source_digest=None)
    config = _read_with_includes(path)
    name = config.get("task")
    if not isinstance(name, str) or not name:
        raise EvaluationInputError(f"{path}: expected the YAML of one lm-eval task, with a `task:` name; found none.")
    split = config.get("test_split") or config.get("validation_split")
    n_shot = config.get("num_fewshot") or 0
    shot_split = config.get("fewshot_split") or config.get("training_split") or config.get("validation_split") or split
    if n_shot and split is not None and shot_split == split:
        raise EvaluationInputError(shots_from_own_questions(name, n_shot))
    return LmEvalTask(name, path, split, _source_digest(path), n_shot, shot_split)


def shots_from_own_questions(name: str, n_shot: int) -> str:
    """Return the message on a task whose solved examples are among the questions it asks."""
    return (
        f"lm-eval task {name!r} shows {n_shot} solved examples, which would be drawn from the very questions it asks; "
        "name a fewshot_split of its own data, or set num_fewshot: 0."
    )


def _path(task: str) -> Path | None:
    """Return the YAML file of a task; None where only lm-eval can find it."""
    if (shipped := _shipped_yaml(task)).is_file():
        return shipped
    if task.endswith((".yaml", ".yml")):
        path = Path(task).expanduser().resolve()
        if not path.is_file():
            raise EvaluationInputError(f"lm-eval task {task!r}: no such file; give a task's name or its YAML file.")
        return path
    check_name(task, [directory.name for directory in _SHIPPED_TASKS.iterdir()])
    return installed_task_names().tasks.get(task)


def _shipped_yaml(name: str) -> Path:
    return _SHIPPED_TASKS / name / f"{name}.yaml"


class _TagBlindLoader(yaml.SafeLoader):
    """Reads lm-eval's YAML without importing what its ``!function`` tags name."""


def _tag_as_text(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    return node.value


_TagBlindLoader.add_multi_constructor("!", _tag_as_text)


def _read(path: Path) -> dict[str, Any]:
    try:
        config: object = yaml.load(path.read_text("utf-8"), Loader=_TagBlindLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EvaluationInputError(
            f"{path}: cannot be read as an lm-eval task: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(config, dict):
        raise EvaluationInputError(f"{path}: expected the YAML of an lm-eval task, found {type(config).__name__}.")
    return cast("dict[str, Any]", config)


def _included(path: Path, config: dict[str, Any]) -> list[Path]:
    include: object = config.get("include") or []
    names = cast("list[object]", include) if isinstance(include, list) else [include]
    return [(path.parent / str(name)).resolve() for name in names]


def _yaml_chain(path: Path) -> list[Path]:
    """Return ``path`` and every YAML file it includes, however deep, each once."""
    chain: list[Path] = []
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in chain:
            chain.append(current)
            waiting.extend(_included(current, _read(current)))
    return chain


def _read_with_includes(path: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for current in reversed(_yaml_chain(path)):
        merged |= _read(current)
    return merged


def _source_digest(path: Path) -> str:
    """Digest the YAML chain, the Python files beside each YAML, and the modules its ``!function`` tags name by path.

    A ``!function`` from an installed package is not followed.
    """
    chain = _yaml_chain(path)
    functions: set[Path] = set()
    for yaml_path in chain:
        functions |= set(yaml_path.parent.glob("*.py"))
        for module in re.findall(r"!function\s+([\w.]+)\.\w+", yaml_path.read_text("utf-8")):
            named = yaml_path.parent / f"{module.replace('.', '/')}.py"
            functions |= {named} if named.is_file() else set()
    # Names without directories: the same task in another place is the same task.
    contents = [(source.name, hashlib.sha256(source.read_bytes()).hexdigest()) for source in (*chain, *functions)]
    return digest(sorted(contents))
