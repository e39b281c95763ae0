"""One YAML document and where in it each value stands, so that a mistake is shown with its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

_MAX_BYTES = 1_000_000
"""Aliases can make a small YAML file explode; a recipe is a few kilobytes."""


class StrictModel(BaseModel):
    """Base of everything a user writes: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True)
class YamlDocument:
    """Parsed YAML together with the line of every value."""

    value: dict[str, Any]
    origin: str
    """File name (or ``form``) that messages begin with."""
    lines: dict[tuple[str | int, ...], int]
    """Path of a value -> its line in the file, counted from 1."""

    def place(self, path: Sequence[str | int]) -> str:
        """Name the place of ``path`` as ``file:line: a.b[0]``; a missing value gives its parent's line."""
        known = tuple(path)
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        return f"{self.origin}{line}: {dotted(path)}" if path else f"{self.origin}{line}"


def dotted(path: Sequence[str | int]) -> str:
    """Render a path as a reader writes it: ``parameters.t[0].value``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def read_yaml(text: str, origin: str, error: type[Exception]) -> YamlDocument:
    """Parse one YAML mapping, refusing what would be lost silently.

    Args:
        text: The document, at most 1 MB.
        origin: File name for messages.
        error: Raised, with one line, for syntax errors, repeated keys and anything that is not a mapping.
    """
    if len(text.encode()) > _MAX_BYTES:
        raise error(f"{origin}: larger than {_MAX_BYTES // 1000} kB; a recipe or pipeline is a few kilobytes.")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value: Any = yaml.safe_load(text)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        where = f":{mark.line + 1}" if mark else ""
        raise error(f"{origin}{where}: not valid YAML: {problem.problem or problem.context}.") from None
    except yaml.YAMLError as problem:
        raise error(f"{origin}: not valid YAML: {' '.join(str(problem).split())}.") from None
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if value is None else type(value).__name__
        raise error(f"{origin}: expected a YAML mapping such as `merge_method: slerp`, found {found}.")
    lines: dict[tuple[str | int, ...], int] = {}
    repeated = _walk(root, (), lines)
    if repeated:
        raise error(f"{origin}:{lines[repeated]}: {dotted(repeated)} is given twice; keep one of them.")
    return YamlDocument(cast("dict[str, Any]", value), origin, lines)


def _walk(
    node: yaml.Node, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]
) -> tuple[str | int, ...] | None:
    """Record the line of every value below ``node``; return the path of a repeated key, if any."""
    lines.setdefault(path, node.start_mark.line + 1)
    children: Iterable[tuple[tuple[str | int, ...], yaml.Node, int]] = ()
    if isinstance(node, yaml.MappingNode):
        children = [((*path, str(key.value)), value, key.start_mark.line + 1) for key, value in node.value]
        keys = [child[0] for child in children]
        for key in keys:
            if keys.count(key) > 1:
                lines[key] = max(line for name, _, line in children if name == key)
                return key
    elif isinstance(node, yaml.SequenceNode):
        children = [((*path, i), item, item.start_mark.line + 1) for i, item in enumerate(node.value)]
    for child_path, child, line in children:
        lines[child_path] = line
        repeated = _walk(child, child_path, lines)
        if repeated:
            return repeated
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean `x`?``, or the list of what is known when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(names)}."


def problems_of(document: YamlDocument, problem: ValidationError, root: type[BaseModel]) -> list[str]:
    """Turn pydantic's errors into one line each: place, what was found, what to do."""
    seen: dict[str, None] = {}
    for error in problem.errors(include_url=False):
        path = [step for step in error["loc"] if not (isinstance(step, str) and "[" in step)]
        place = document.place(path)
        found = error["input"]
        shown = repr(found) if isinstance(found, str | int | float | bool) else type(found).__name__
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
    return list(seen)


def _fields_at(root: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys known at ``path`` below ``root``."""
    model: type[BaseModel] = root
    for step in path:
        if isinstance(step, int) or step not in model.model_fields:
            continue
        found = _model_in(model.model_fields[step].annotation)
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the pydantic model inside ``annotation`` (``X | None``, ``tuple[X, ...]``)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
