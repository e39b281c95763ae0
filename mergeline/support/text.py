"""Sizes, counts and tables as text, and text files read within a limit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mergeline.errors import InputError

MAX_TEXT_BYTES = 250_000
"""The parser takes about a second for this much."""


def size(nbytes: int) -> str:
    """Render a number of bytes in decimal units: ``14.48 GB``, ``359.3 kB``."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.{2 if unit == 'GB' else 1}f} {unit}"
        amount /= 1000
    return f"{amount:.2f} TB"


def count(number: int) -> str:
    """Render a number of parameters: ``7.242 billion``, ``89,280``."""
    return f"{number / 1e9:.3f} billion" if number >= 10**8 else f"{number:,}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table whose columns also line up as plain text; numbers align right.

    A line break in a cell becomes a blank, and ``|`` is escaped, so that no cell can break the table.
    """
    header, *rows = ([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (header, *rows))
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (width + 1) + (":" if flush else "-") for width, flush in zip(widths, right, strict=True))
    return [line(header), f"|{rule}|", *map(line, rows)]


def _is_number(text: str) -> bool:
    return re.match(r"\**[+±-]? ?\d|-$", text) is not None


def read_text(path: Path, error: type[Exception], noun: str) -> str:
    """Return the text of a UTF-8 file of at most 250 kB, or raise ``error`` with one line saying why it cannot."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        require_short(content, str(path), error)
        return content.decode()
    except FileNotFoundError:
        raise error(f"{path}: no such {noun} file; check the path.") from None
    except OSError as problem:
        raise error(f"{path}: this {noun} cannot be read: {problem.strerror}.") from None
    except UnicodeDecodeError:
        raise error(f"{path}: this {noun} cannot be read: not UTF-8 text.") from None


def require_short(content: bytes, origin: str, error: type[Exception]) -> None:
    """Raise ``error`` if a recipe's or pipeline's text is larger than 250 kB."""
    if len(content) > MAX_TEXT_BYTES:
        raise error(f"{origin}: larger than {MAX_TEXT_BYTES // 1000} kB; a recipe or pipeline is a few kilobytes.")


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(text: str) -> int:
    """Read a size such as ``5GB`` (10^9), ``500MiB`` (2^20) or ``100000`` in bytes.

    Raises:
        InputError: If it is no positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise InputError(f"max_shard_size: {text!r} is no size; write for example 5GB, 500MB or 2GiB.")
    return int(float(match[1]) * unit)
