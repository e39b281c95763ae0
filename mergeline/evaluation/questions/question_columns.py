"""Columns of the questions by which accuracy may be broken down: short values that many questions share."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

from mergeline.errors import EvaluationInputError

MOST_VALUES = 50
_LONGEST_VALUE = 80
# The question itself and its identity.
_NOT_GROUPS = {"id", "story_id", "story", "question", "candidate_answers", "answer"}


def question_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return column -> value for each question, of the columns that accuracy may be broken down by.

    These hold numbers, words or lists of them, with at most 50 distinct values of at most 80 characters.
    """
    texts = [{name: _text(value) for name, value in row.items() if name not in _NOT_GROUPS} for row in rows]
    values: defaultdict[str, set[str | None]] = defaultdict(set)
    for text in texts:
        for name, value in text.items():
            values[name].add(value)
    kept = {name for name, distinct in values.items() if None not in distinct and len(distinct) <= MOST_VALUES}
    return [{name: value for name, value in text.items() if name in kept and value is not None} for text in texts]


def check_columns(known: Set[str], columns: Sequence[str]) -> None:
    """Raise :class:`EvaluationInputError` unless all of ``columns`` are among those of :func:`question_columns`."""
    if absent := [column for column in columns if column not in known]:
        raise EvaluationInputError(
            f"The questions have no column {absent[0]!r} to break accuracy down by; they have "
            f"{', '.join(sorted(known)) or 'none'} (with at most {MOST_VALUES} short values)."
        )


def _text(value: object) -> str | None:
    if isinstance(value, (list, tuple)):
        items: list[str | None] = [_text(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        text = ", ".join(item for item in items if item is not None) if None not in items else None
    elif isinstance(value, (str, bool, int)):
        text = value.strip() if isinstance(value, str) else json.dumps(value)
    else:
        return None
    return text if text is not None and len(text) <= _LONGEST_VALUE else None
