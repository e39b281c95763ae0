"""The charts of the HTML report as inline SVG; colours come from the page's style, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from mergeline.evaluation.report_records import CalibrationBin, GeometryCell

_LABELS = 250
_PLOT = 470
_ROW = 34
_AXIS = 26


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, as a row of a chart."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    """Shown at the end of the row."""
    is_accented: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line across a chart."""

    value: float
    label: str


def interval_chart(estimates: Sequence[Estimate], marks: Sequence[Mark], low: float, high: float, title: str) -> str:
    """Draw estimates with their intervals, one a row, on an axis from ``low`` to ``high``, above labelled lines."""
    top = 18 * len(marks) + 8
    bottom = top + _ROW * len(estimates)

    def x(value: float) -> float:
        return _LABELS + _PLOT * (min(max(value, low), high) - low) / (high - low)

    parts = [_axis(low, high, top, bottom, x)]
    for number, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        y = 14 + 18 * number
        is_right = x(mark.value) > _LABELS + _PLOT * 0.6
        anchor, shift = ("end", -5) if is_right else ("start", 5)
        parts.append(
            f'<line class="mark" x1="{x(mark.value):.1f}" x2="{x(mark.value):.1f}" y1="{y - 10}" y2="{bottom}"/>'
            f'<text class="mark-label" x="{x(mark.value) + shift:.1f}" y="{y}" text-anchor="{anchor}">'
            f"{escape(mark.label)}</text>"
        )
    for number, one in enumerate(estimates):
        y = top + _ROW * number + _ROW / 2
        kind = "estimate accented" if one.is_accented else "estimate"
        parts.append(
            f'<text x="{_LABELS - 14}" y="{y + 4.5:.1f}" text-anchor="end">{escape(_shortened(one.label))}</text>'
            f'<g class="{kind}"><line x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(one.value):.1f}" cy="{y}" r="5.5"/></g>'
            f'<text class="note" x="{_LABELS + _PLOT + 14}" y="{y + 4.5:.1f}">{escape(one.note)}</text>'
        )
    return _svg(_LABELS + _PLOT + 190, bottom + _AXIS, title, parts)


def histogram_chart(counts: Sequence[int], total: int, title: str) -> str:
    """Draw how often each letter was given as bars, the tallest possible being all ``total`` questions."""
    height, width = 84, 34
    parts: list[str] = []
    for choice, count in enumerate(counts):
        tall = height * count / total
        left = 8 + choice * (width + 8)
        middle = left + width / 2
        parts.append(
            f'<rect class="bar" x="{left}" y="{height + 18 - tall:.1f}" width="{width}" height="{tall:.1f}"/>'
            f'<text class="note" x="{middle}" y="{height + 13 - tall:.1f}" text-anchor="middle">{count}</text>'
            f'<text x="{middle}" y="{height + 34}" text-anchor="middle">{chr(ord("A") + choice)}</text>'
        )
    return _svg(16 + len(counts) * (width + 8), height + 40, title, parts)


def calibration_chart(bins: Sequence[CalibrationBin], title: str) -> str:
    """Draw the share of right answers over confidence; a calibrated model follows the diagonal.

    The area of a point is the share of questions in its bin.
    """
    size, left, top = 150, 30, 18
    total = sum(one.count for one in bins) or 1
    bottom = top + size
    parts = [
        f'<rect class="frame" x="{left}" y="{top}" width="{size}" height="{size}"/>',
        f'<line class="mark" x1="{left}" y1="{bottom}" x2="{left + size}" y2="{top}"/>',
    ]
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<text class="tick" x="{left + size * value:.1f}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>'
            f'<text class="tick" x="{left - 5}" y="{bottom - size * value + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for one in bins:
        if one.count:
            x, y = left + size * one.confidence, bottom - size * one.accuracy
            radius = 3 + 11 * (one.count / total) ** 0.5
            parts.append(
                f'<circle class="bubble" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{one.count} questions: '
                f"sure to {one.confidence:.2f}, right in {one.accuracy:.2f}</title></circle>"
            )
    return _svg(left + size + 20, bottom + 22, title, parts)


def heat_map(cells: Sequence[GeometryCell], title: str) -> str:
    """Draw one cell per layer and tensor kind, the darker the further the cosine is below the largest."""
    kinds = list(dict.fromkeys(cell.kind for cell in cells))
    layers = sorted({cell.layer for cell in cells}, key=lambda layer: (layer is None, layer or 0))
    low, high = min(cell.value for cell in cells), max(cell.value for cell in cells)
    width = max(6.0, min(46.0, 760 / len(layers)))
    parts: list[str] = []
    for row, kind in enumerate(kinds):
        parts.append(
            f'<text x="{_LABELS - 10}" y="{row * 22 + 24}" text-anchor="end">{escape(_shortened(kind))}</text>'
        )
    every = max(1, round(30 / width))
    for column, layer in enumerate(layers):
        if layer is None or column % every == 0:
            name = "other" if layer is None else str(layer)
            # "other" is wider than its column, which is the last.
            x = _LABELS + width * (column + 0.5) + (0 if layer is not None else 12)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{len(kinds) * 22 + 24}" text-anchor="middle">{name}</text>'
            )
    for cell in cells:
        share = (high - cell.value) / (high - low) if high > low else 0.0
        where = "outside the layers" if cell.layer is None else f"layer {cell.layer}"
        x, y = _LABELS + width * layers.index(cell.layer), kinds.index(cell.kind) * 22 + 9
        parts.append(
            f'<rect class="cell" style="--share:{100 * share:.0f}%" x="{x:.1f}" y="{y}" '
            f'width="{max(1.0, width - 1):.1f}" height="21">'
            f"<title>{escape(cell.kind)}, {where}: {cell.value:.4f}</title></rect>"
        )
    foot = len(kinds) * 22 + 48
    parts.append(
        f'<text class="note" x="{_LABELS}" y="{foot}">cosine, by layer: faint {high:.4f}, strong {low:.4f}</text>'
    )
    return _svg(round(_LABELS + width * len(layers)) + 30, foot + 10, title, parts)


def _axis(low: float, high: float, top: int, bottom: int, x: Callable[[float], float]) -> str:
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if (high - low) / step <= 8), 0.5)
    first, last = round(low / step), round(high / step)
    ticks = [number * step for number in range(first, last + 1) if low - 1e-9 <= number * step <= high + 1e-9]
    return "".join(
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.2g}</text>'
        for tick in ticks
    )


def _shortened(label: str) -> str:
    # About what fits left of a plot; the tables hold the whole label.
    return label if len(label) <= 32 else f"…{label[-31:]}"


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
