"""Numbers and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def size(nbytes: int) -> str:
    """Render bytes as a reader thinks of them: ``14.48 GB``, ``359.3 kB``."""
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
    """Lay out a Markdown table whose columns also line up as plain text; numbers align right."""
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
    return bool(text) and (text[0].isdigit() or text == "-")
