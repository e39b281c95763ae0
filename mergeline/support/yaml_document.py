"""A YAML document with the line of every value, so that messages name the line of a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mergeline.support.bounded_yaml import BoundedLoader, RefusedYamlError
from mergeline.support.text import require_short

_MAX_PROBLEMS = 50
"""Whoever has more to mend reads these first; finding the nearest known word for 20,000 takes a minute."""


class StrictModel(BaseModel):
    """Base of everything a user writes: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True)
class YamlDocument:
    """Parsed YAML together with the line of every value."""

    value: dict[str, Any]
    origin: str
    """File name (or ``form``) that messages begin with."""
    lines: dict[tuple[str | int, ...], int]
    """Keys and indices that lead to a value -> its line in the file, counted from 1."""

    def place(self, path: Sequence[str | int]) -> str:
        """Return ``file:line: a.b[0]`` for a path; of a missing value, the line of its parent."""
        known = tuple(path)
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        return f"{self.origin}{line}: {dotted(path)}" if path else f"{self.origin}{line}"


def dotted(path: Sequence[str | int]) -> str:
    """Render a path as ``parameters.t[0].value``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def read_yaml(text: str, origin: str, error: type[Exception]) -> YamlDocument:
    """Parse a YAML mapping whose keys are all different.

    Args:
        text: The document, at most 250 kB.
        origin: File name for messages.
        error: Raised, with one line, for anything else; see :class:`BoundedLoader` for what is too large or too deep.
    """
    value, lines = _load(text, origin, error)
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise error(f"{origin}: expected a YAML mapping such as `merge_method: slerp`, found {found}.")
    return YamlDocument(cast("dict[str, Any]", value), origin, lines)


def read_yaml_value(text: str, origin: str, error: type[Exception]) -> Any:
    """Parse a YAML value of any kind, within the same limits as :func:`read_yaml`."""
    return _load(text, origin, error)[0]


def _load(text: str, origin: str, error: type[Exception]) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    require_short(text.encode(errors="replace"), origin, error)
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        loader = BoundedLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        # Before the construction, which copies the keys merged by `<<` into the nodes.
        _add_lines(lines, (), node.start_mark, node)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as problem:
        where = f":{problem.problem_mark.line + 1}" if problem.problem_mark else ""
        reason = "" if isinstance(problem, RefusedYamlError) else "not valid YAML: "
        raise error(f"{origin}{where}: {reason}{problem.problem or problem.context}.") from None
    except yaml.YAMLError as problem:
        raise error(f"{origin}: not valid YAML: {' '.join(str(problem).split())}.") from None


def _add_lines(
    lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...], mark: yaml.Mark, node: yaml.Node
) -> None:
    """Record the line of ``node``, which begins at ``mark`` with its key, and of every value below it."""
    if path in lines:
        raise RefusedYamlError(f"{dotted(path)} is given twice; keep one of them", mark)
    lines[path] = mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _add_lines(lines, (*path, str(key.value)), key.start_mark, value)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _add_lines(lines, (*path, index), item.start_mark, item)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean `x`?``, or the list of known words if none is similar."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(names)}."


def problems_of(document: YamlDocument, problem: ValidationError, root: type[BaseModel]) -> list[str]:
    """Render each of pydantic's errors as a line: place, what is wrong, what was found."""
    seen: dict[str, None] = {}
    for error in problem.errors(include_url=False)[:_MAX_PROBLEMS]:
        path = [step for step in error["loc"] if not (isinstance(step, str) and "[" in step)]
        place = document.place(path)
        value = error["input"]
        shown = repr(value) if isinstance(value, str | int | float | bool) else type(value).__name__
        if error["type"] == "extra_forbidden":
            known = _fields_at(root, path[:-1])
            seen[f"{place}: unknown key.{did_you_mean(str(path[-1]), known)}"] = None
        elif error["type"] == "missing":
            seen[f"{place}: required and missing."] = None
        elif error["type"] == "value_error":
            seen[f"{place}: {str(error['msg']).removeprefix('Value error, ')}"] = None
        else:
            message = str(error["msg"])
            seen[f"{place}: {message[0].lower()}{message[1:]}, found {shown}."] = None
    if problem.error_count() > _MAX_PROBLEMS:
        seen[f"{document.origin}: {problem.error_count() - _MAX_PROBLEMS:,} more problems; mend these first."] = None
    return list(seen)


def _fields_at(root: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys known at ``path`` below ``root``."""
    model: type[BaseModel] = root
    for step in path:
        if isinstance(step, int) or step not in model.model_fields:
            continue
        nested = _model_in(model.model_fields[step].annotation)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the pydantic model inside ``annotation`` (``X | None``, ``tuple[X, ...]``)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in models if model is not None), None)
