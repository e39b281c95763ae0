"""Find an lm-eval task: its name, its YAML file and a digest of the files that define it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.task_names import check_name, installed_task_names
from mergeline.support.bounded_yaml import BoundedLoader
from mergeline.support.digests import digest

SPARTQA_TRAIN = "spartqa_train"

_SHIPPED_TASKS = Path(__file__).parent / "lm_eval_tasks"


@dataclass(frozen=True)
class LmEvalTask:
    """One lm-eval task, not yet loaded by lm-eval."""

    name: str
    """lm-eval's name for it, e.g. ``spartqa_train``."""
    yaml_path: Path | None
    """File that defines it; None: one of lm-eval's own that only lm-eval can find."""
    split: str | None
    """Split of the data that it evaluates; None: unknown until lm-eval loads it."""
    source_digest: str | None
    """sha256 over the YAML, the YAML files it includes and the Python beside them; None: lm-eval's version stands for
    it."""
    n_shot: int = 0
    """Solved examples shown before each question, according to the YAML."""
    shot_split: str | None = None
    """Split from which the solved examples are drawn."""

    @property
    def needs_questions(self) -> bool:
        """Whether this is the shipped ``spartqa_train``, which has no data of its own."""
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
    """Return the error message for a task whose solved examples are among its questions."""
    return (
        f"lm-eval task {name!r} shows {n_shot} solved examples, which would be drawn from the very questions it asks; "
        "name a fewshot_split of its own data, or set num_fewshot: 0."
    )


def _path(task: str) -> Path | None:
    """Return the YAML file of a task; None if only lm-eval can find it."""
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


class _TagsAsTextLoader(BoundedLoader):
    """Reads lm-eval's YAML without importing the functions of its ``!function`` tags."""


def _tag_as_text(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    return node.value


_TagsAsTextLoader.add_multi_constructor("!", _tag_as_text)


def _read(path: Path) -> dict[str, Any]:
    try:
        config: object = yaml.load(path.read_text("utf-8"), Loader=_TagsAsTextLoader)
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
    """Return ``path`` and all YAML files it includes, directly or indirectly, each once."""
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
    """Digest the YAML chain, the Python files beside each YAML, and the modules of its ``!function`` tags.

    Modules of installed packages are left out.
    """
    chain = _yaml_chain(path)
    functions: set[Path] = set()
    for yaml_path in chain:
        functions |= set(yaml_path.parent.glob("*.py"))
        for module in re.findall(r"!function\s+([\w.]+)\.\w+", yaml_path.read_text("utf-8")):
            named = yaml_path.parent / f"{module.replace('.', '/')}.py"
            functions |= {named} if named.is_file() else set()
    # Names without directories: a copied task is the same task.
    contents = [(source.name, hashlib.sha256(source.read_bytes()).hexdigest()) for source in (*chain, *functions)]
    return digest(sorted(contents))
