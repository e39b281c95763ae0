"""Sections, tables and rows of charts as markup, and names as a page may show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from mergeline.evaluation.results import EvaluationReport


def section(title: str, body: str) -> str:
    """Return a titled part of the page; ``body`` is markup."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, is_merge: Sequence[bool] = (), texts: int = 1
) -> str:
    """Return a table of cells that are markup already; the first ``texts`` columns hold text, the others numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if 0 < number < texts else ''}>{cell}</{tag}>" for number, cell in enumerate(cells)
        )

    lines = [
        f"<tr{' class=merge' if number < len(is_merge) and is_merge[number] else ''}>{line('td', row)}</tr>"
        for number, row in enumerate(rows)
    ]
    head = line("th", [escape(text) for text in header])
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def figures(charts: Sequence[tuple[str, str]]) -> str:
    """Return a row of (caption, chart)."""
    shown = "".join(f"<figure>{chart}<figcaption>{escape(label)}</figcaption></figure>" for label, chart in charts)
    return f'<div class="charts">{shown}</div>'


def task_name(report: EvaluationReport) -> str:
    """Return the lm-eval task's name, also where it was given as a file."""
    return Path(report.merge.settings.task).stem


def portable(location: str) -> str:
    """Return a place as it may be shown to anybody."""
    # An absolute path says where one machine keeps a file, and often whose machine it is.
    return Path(location).name if Path(location).is_absolute() else location
