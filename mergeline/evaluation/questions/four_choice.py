"""Read and check four-choice questions in SpartQA's form, before any model is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from mergeline.errors import EvaluationInputError

LETTERS = ("A", "B", "C", "D")

Row = dict[str, Any]

_DATA_SUFFIXES = (".jsonl", ".json", ".parquet")
# Written by the datasets library beside the data.
_NOT_DATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
_PROBLEMS_SHOWN = 20
_RELATION = re.compile(r"\b(left|right|above|below|near|far|touch)", re.IGNORECASE)


def load_questions(path: Path) -> list[Row]:
    """Read and check the questions of ``spartqa_train``.

    Args:
        path: A ``.jsonl``, ``.json`` or ``.parquet`` file, or a downloaded dataset repository, of which the
            ``train`` split is read.

    Returns:
        One row per question with ``id``, ``story_id`` (its cluster: from the data, else equal for equal stories),
        ``story``, ``question``, ``candidate_answers``, ``answer`` (always a letter) and ``relation`` (from the data,
        else the first relation in the question); further columns are kept as text.

    Raises:
        EvaluationInputError: with up to 20 rows that lm-eval would score wrongly or not at all.
    """
    return check_questions(read_rows(path, split="train"), path.name)


def check_questions(numbered: Sequence[tuple[int, Row]], origin: str) -> list[Row]:
    """Check (number, row) pairs and return rows as :func:`load_questions` does; ``origin`` is named in errors."""
    rows: list[Row] = []
    problems: list[str] = []
    for number, row in numbered:
        row_problems = list(_problems(row))
        problems.extend(f"{origin}, row {number}: {problem}" for problem in row_problems)
        if not row_problems:
            rows.append(_normalised(row, number))
    if len(problems) > _PROBLEMS_SHOWN:
        problems[_PROBLEMS_SHOWN:] = [f"{origin}: and {len(problems) - _PROBLEMS_SHOWN} more problems like these."]
    if problems:
        raise EvaluationInputError(problems)
    return rows


def read_rows(path: Path, split: str | None) -> list[tuple[int, Row]]:
    """Read (number, row) pairs from a data file, or from one split of a downloaded dataset repository.

    Rows are numbered from 1 within their file; in JSON Lines, by line.

    Raises:
        EvaluationInputError: no readable file, no unambiguous split, or no rows.
    """
    if not path.exists():
        raise EvaluationInputError(f"{path}: no such file or directory with questions.")
    files = _split_files(path, split) if path.is_dir() else [path]
    rows = [numbered for file in files for numbered in _read_file(file)]
    if not rows:
        raise EvaluationInputError(f"{path}: holds no questions.")
    return rows


def _problems(row: Row) -> Iterator[str]:
    for name in ("story", "question"):
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            yield f"`{name}` is {_shown(row, name)}; expected text."
    candidates: object = row.get("candidate_answers")
    if not _is_four_texts(candidates):
        yield f"`candidate_answers` is {_shown(row, 'candidate_answers')}; expected four texts."
    if _letter(row.get("answer")) is None:
        yield f"`answer` is {_shown(row, 'answer')}; expected a letter A to D or an index 0 to 3."


def _is_four_texts(value: object) -> bool:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return len(items) == len(LETTERS) and all(isinstance(item, str) and item.strip() for item in items)


def _letter(answer: object) -> str | None:
    # lm-eval scores "A " and "a" as wrong without a warning, and counts -1 from the end.
    if isinstance(answer, str):
        return answer if answer in LETTERS else None
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    return None


def _shown(row: Row, name: str) -> str:
    if name not in row:
        return "missing"
    text = json.dumps(row[name], ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _normalised(row: Row, number: int) -> Row:
    identifier = str(row["id"]) if row.get("id") is not None else str(number)
    return {
        # As text, since the datasets library requires one type per column.
        **{name: value if isinstance(value, str) else _plain(value) for name, value in row.items()},
        "id": identifier,
        "story_id": str(row["story_id"]) if row.get("story_id") is not None else _story_id(row["story"]),
        "story": row["story"],
        "question": row["question"],
        "candidate_answers": row["candidate_answers"],
        "answer": _letter(row["answer"]),
        "relation": _relation(row),
    }


def _relation(row: Row) -> str:
    if row.get("relation") is not None:
        return _plain(row["relation"])
    match = _RELATION.search(row["question"])
    return match[0].lower() if match else ""


def _story_id(story: str) -> str:
    # The data on the Hub have no such column, but questions on the same story are not independent.
    return f"story-{hashlib.sha256(story.encode()).hexdigest()[:12]}"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in cast("list[object]", value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _split_files(directory: Path, split: str | None) -> list[Path]:
    """Select a split's files as the Hub does: by its name as a word in the path. A single file needs no split name."""
    files = sorted(
        path
        for path in directory.rglob("*")
        if path.suffix in _DATA_SUFFIXES
        and path.name not in _NOT_DATA
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    if not files:
        raise EvaluationInputError(f"{directory}: no .jsonl, .json or .parquet file in it; expected questions.")
    if len(files) == 1:
        return files
    selected = [path for path in files if split and _names_split(path.relative_to(directory), split)]
    if len({path.suffix for path in selected}) != 1:
        names = ", ".join(str(path.relative_to(directory)) for path in files[:8])
        raise EvaluationInputError(
            f"{directory}: cannot tell which files are the {split or 'evaluated'} split ({names}); name one file."
        )
    return selected


def _names_split(path: Path, split: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(split)}(?![a-z0-9])", path.as_posix().lower()) is not None


def _read_file(path: Path) -> list[tuple[int, Row]]:
    if path.suffix not in _DATA_SUFFIXES:
        raise EvaluationInputError(f"{path}: expected a .jsonl, .json or .parquet file with questions.")
    if path.suffix == ".parquet":
        return _checked(path, _read_parquet(path))
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise EvaluationInputError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    if text.lstrip().startswith("["):
        return _checked(path, list(enumerate(_parse(path, 1, text), start=1)))
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _checked(path, [(number, _parse(path, number, line)) for number, line in lines])


def _parse(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise EvaluationInputError(
            f"{path.name}, row {number + error.lineno - 1}: not JSON ({error.msg} at character {error.colno})."
        ) from None


def _read_parquet(path: Path) -> list[tuple[int, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise EvaluationInputError(f"{path}: cannot be read as Parquet: {error}.") from None
    return list(enumerate(cast("list[object]", table.to_pylist()), start=1))


def _checked(path: Path, rows: Sequence[tuple[int, object]]) -> list[tuple[int, Row]]:
    for number, row in rows:
        if not isinstance(row, dict):
            raise EvaluationInputError(
                f"{path.name}, row {number}: expected an object with a question's fields, found {type(row).__name__}."
            )
    return cast("list[tuple[int, Row]]", list(rows))
