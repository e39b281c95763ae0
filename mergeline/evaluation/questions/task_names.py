"""Names of lm-eval's own tasks, read from its YAML files in half a second; lm-eval's own index takes 15 s."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mergeline.errors import EvaluationInputError

_NAME = re.compile(rb"""^["']?(task|group|tag|class)["']?[ \t]*:[ \t]*["']?([^\s"'#\[{!-][^\s"'#]*)?""", re.MULTILINE)


@dataclass(frozen=True)
class TaskNames:
    """Names that lm-eval's YAML files define."""

    tasks: dict[str, Path] = field(default_factory=dict[str, Path])
    """Tasks that one YAML file defines completely: name -> file."""
    others: set[str] = field(default_factory=set[str])
    """Groups, tags, and tasks written in Python."""


@cache
def installed_task_names() -> TaskNames:
    """Return the names that stand at the start of a line in lm-eval's YAML files; empty if it is not installed.

    lm-eval is not imported.
    """
    names = TaskNames()
    spec = importlib.util.find_spec("lm_eval")
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        for directory, _, files in os.walk(Path(location) / "tasks"):
            for name in files:
                if name.endswith(".yaml"):
                    _add_names(names, Path(directory, name))
    return names


def _add_names(names: TaskNames, path: Path) -> None:
    keys = {key: value.decode("utf-8", "replace") for key, value in _NAME.findall(path.read_bytes())}
    if keys.get(b"task") and b"class" not in keys and b"group" not in keys:
        names.tasks.setdefault(keys[b"task"], path)
    names.others.update(value for value in keys.values() if value and value not in names.tasks)


def check_name(name: str, shipped: Iterable[str]) -> None:
    """Raise :class:`EvaluationInputError` with the nearest names if lm-eval has no task or group ``name``.

    Args:
        name: As the user wrote it.
        shipped: Names of the tasks that Mergeline adds.
    """
    names = installed_task_names()
    if name in names.tasks or name in names.others:
        return
    known = {*names.tasks, *names.others, *shipped}
    # A few names stand in lists or are generated while lm-eval reads its files: only its own index is complete.
    known |= _indexed_names()
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "give a task's name or the path of its YAML file."
        raise EvaluationInputError(f"lm-eval has no task {name!r}; {hint}")


@cache
def _indexed_names() -> frozenset[str]:
    if importlib.util.find_spec("lm_eval") is None:
        raise EvaluationInputError(
            "Evaluation needs the package lm_eval; install it with: pip install 'mergeline[eval]'."
        )
    from lm_eval.tasks import TaskManager

    return frozenset(TaskManager().all_tasks)
