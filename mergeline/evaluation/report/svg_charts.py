"""The charts of the HTML report as inline SVG; colours come from the page's style and follow its theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from markupsafe import Markup

from mergeline.evaluation.compare.model_summary import letter
from mergeline.evaluation.results import CalibrationBin

if TYPE_CHECKING:
    from mergeline.merge.geometry import TensorGeometry

_AXIS = 26
_LETTER = 7.8
"""Width of a letter in the widest of the browsers' fallback fonts, in pixels."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: one row of an interval chart."""

    label: str
    value: float
    low: float
    high: float
    is_accented: bool = False
    is_signed: bool = False
    """Whether positive numbers get a plus sign."""

    @property
    def note(self) -> str:
        """Shown at the end of the row."""
        spec = "+.3f" if self.is_signed else ".3f"
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


@dataclass(frozen=True)
class Mark:
    """A vertical line across a chart."""

    value: float
    label: str


@dataclass(frozen=True)
class _Layout:
    """Positions and sizes of the parts of an interval chart, in pixels."""

    left: float
    plot: float
    right: float
    row: float
    longest_label: int
    """In letters; the beginning of a longer label is cut."""
    is_stacked: bool
    """Whether label and note stand above and below their line instead of beside it."""


def interval_chart(estimates: Sequence[Estimate], marks: Sequence[Mark], low: float, high: float, title: str) -> Markup:
    """Draw estimates with intervals, one per row, and labelled vertical lines, on an axis from ``low`` to ``high``.

    The chart is drawn twice, for a wide and for a narrow page; the page's style shows one of them.
    """
    longest = min(46, max(len(estimate.label) for estimate in estimates))
    wide = _Layout(left=24 + _LETTER * longest, plot=470, right=195, row=34, longest_label=46, is_stacked=False)
    narrow = _Layout(left=12, plot=310, right=22, row=66, longest_label=38, is_stacked=True)
    return Markup("").join(
        Markup('<div class="{}">{}</div>').format(name, _interval_chart(layout, estimates, marks, (low, high), title))
        for name, layout in (("wide", wide), ("narrow", narrow))
    )


def _interval_chart(
    layout: _Layout, estimates: Sequence[Estimate], marks: Sequence[Mark], span: tuple[float, float], title: str
) -> Markup:
    low, high = span
    top = 18.0 * len(marks) + 8
    bottom = top + layout.row * len(estimates)

    def x(value: float) -> float:
        return layout.left + layout.plot * (min(max(value, low), high) - low) / (high - low)

    parts = [_axis(low, high, top, bottom, x)]
    for number, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        y = 14 + 18 * number
        anchor, shift = ("end", -5) if x(mark.value) > layout.left + layout.plot * 0.5 else ("start", 5)
        parts.append(
            f'<line class="mark" x1="{x(mark.value):.1f}" x2="{x(mark.value):.1f}" y1="{y - 10}" y2="{bottom:.1f}"/>'
            f'<text class="mark-label" x="{x(mark.value) + shift:.1f}" y="{y}" text-anchor="{anchor}">'
            f"{escape(mark.label)}</text>"
        )
    for number, estimate in enumerate(estimates):
        parts.append(_estimate(layout, estimate, top + layout.row * number, x))
    return _svg(layout.left + layout.plot + layout.right, bottom + _AXIS, title, parts)


def _estimate(layout: _Layout, estimate: Estimate, top: float, x: Callable[[float], float]) -> str:
    end = layout.left + layout.plot
    line = top + (34 if layout.is_stacked else layout.row / 2)
    label, note = ((layout.left, line - 15, "start"), (end - 8, line + 22, "end")) if layout.is_stacked else (
        (layout.left - 14, line + 4.5, "end"), (end + 14, line + 4.5, "start"))  # fmt: skip
    kind = "estimate accented" if estimate.is_accented else "estimate"
    low, high, value = x(estimate.low), x(estimate.high), x(estimate.value)
    return (
        f'<text x="{label[0]:.1f}" y="{label[1]:.1f}" text-anchor="{label[2]}">'
        f"{escape(_shortened(estimate.label, layout.longest_label))}</text>"
        f'<g class="{kind}"><line x1="{low:.1f}" x2="{high:.1f}" y1="{line:.1f}" y2="{line:.1f}"/>'
        f'<circle cx="{value:.1f}" cy="{line:.1f}" r="5.5"/></g>'
        f'<text class="note" x="{note[0]:.1f}" y="{note[1]:.1f}" text-anchor="{note[2]}">{escape(estimate.note)}</text>'
    )


def histogram_chart(counts: Sequence[int], tallest: int, title: str) -> Markup:
    """Draw the number of times each letter was given; a bar of ``tallest`` fills the height."""
    height, width = 84, 34
    parts: list[str] = []
    for choice, count in enumerate(counts):
        tall = height * count / tallest
        left = 8 + choice * (width + 8)
        middle = left + width / 2
        parts.append(
            f'<rect class="bar" x="{left}" y="{height + 18 - tall:.1f}" width="{width}" height="{tall:.1f}"/>'
            f'<text class="note" x="{middle}" y="{height + 13 - tall:.1f}" text-anchor="middle">{count}</text>'
            f'<text x="{middle}" y="{height + 34}" text-anchor="middle">{letter(choice)}</text>'
        )
    return _svg(16 + len(counts) * (width + 8), height + 40, title, parts)


def calibration_chart(bins: Sequence[CalibrationBin], title: str) -> Markup:
    """Draw accuracy over confidence; a calibrated model follows the diagonal.

    A point's area grows with the share of questions in its bin.
    """
    size, left, top = 150, 30, 18
    total = sum(bin.count for bin in bins) or 1
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
    for bin in bins:
        if bin.count:
            x, y = left + size * bin.confidence, bottom - size * bin.accuracy
            radius = 3 + 11 * (bin.count / total) ** 0.5
            parts.append(
                f'<circle class="bubble" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{bin.count} questions: '
                f"sure to {bin.confidence:.2f}, right in {bin.accuracy:.2f}</title></circle>"
            )
    return _svg(left + size + 20, bottom + 22, title, parts)


def heat_map(geometry: Sequence[TensorGeometry], title: str) -> Markup:
    """Draw a cell per layer and kind of tensor, darker for a smaller cosine between the sources.

    Returns:
        Empty if no cosine was measured.
    """
    cells = [(tensor.layer, tensor.kind, tensor.cosine) for tensor in geometry if tensor.cosine is not None]
    if not cells:
        return Markup("")
    kinds = list(dict.fromkeys(kind for _, kind, _ in cells))
    layers = sorted({layer for layer, _, _ in cells}, key=lambda layer: (layer is None, layer or 0))
    low, high = min(cosine for _, _, cosine in cells), max(cosine for _, _, cosine in cells)
    width = max(6.0, min(46.0, 760 / len(layers)))
    left = 20 + _LETTER * max(min(len(kind), 32) for kind in kinds)
    parts: list[str] = []
    for row, kind in enumerate(kinds):
        parts.append(
            f'<text x="{left - 10:.1f}" y="{row * 22 + 24}" text-anchor="end">{escape(_shortened(kind, 32))}</text>'
        )
    every = max(1, round(30 / width))
    for column, layer in enumerate(layers):
        if layer is None or column % every == 0:
            name = "other" if layer is None else str(layer)
            # "other" is wider than its column, the last one.
            x = left + width * (column + 0.5) + (0 if layer is not None else 12)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{len(kinds) * 22 + 24}" text-anchor="middle">{name}</text>'
            )
    for layer, kind, cosine in cells:
        share = (high - cosine) / (high - low) if high > low else 0.0
        where = "outside the layers" if layer is None else f"layer {layer}"
        x, y = left + width * layers.index(layer), kinds.index(kind) * 22 + 9
        parts.append(
            f'<rect class="cell" style="--share:{100 * share:.0f}%" x="{x:.1f}" y="{y}" '
            f'width="{max(1.0, width - 1):.1f}" height="21">'
            f"<title>{escape(kind)}, {where}: {cosine:.4f}</title></rect>"
        )
    foot = len(kinds) * 22 + 48
    legend = f"cosine, by layer: faint {high:.4f}, strong {low:.4f}"
    parts.append(f'<text class="note" x="{left:.1f}" y="{foot}">{legend}</text>')
    return _svg(left + max(width * len(layers) + 30, _LETTER * len(legend)), foot + 10, title, parts)


def _axis(low: float, high: float, top: float, bottom: float, x: Callable[[float], float]) -> str:
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if (high - low) / step <= 8), 0.5)
    first, last = round(low / step), round(high / step)
    ticks = [number * step for number in range(first, last + 1) if low - 1e-9 <= number * step <= high + 1e-9]
    return "".join(
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{tick:.2g}</text>'
        for tick in ticks
    )


def _shortened(label: str, most: int) -> str:
    # The tables show the whole label.
    return label if len(label) <= most else f"…{label[1 - most :]}"


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
