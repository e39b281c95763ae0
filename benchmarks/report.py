"""Measurements as a Markdown table, with the machine and the versions they belong to."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.contenders import FLOOR, MERGEKIT
from benchmarks.processes import Measurement

Turns = Mapping[str, Sequence[Measurement]]
"""Contender -> its measurement in each turn."""

COLUMNS = (
    "parameters",
    "merge by",
    "CPU s",
    "wall s",
    "peak resident MB",
    "without mapped files MB",
    "CPU: mergekit / this",
    "wall: mergekit / this",
    "resident: mergekit / this",
    "CPU: this / floor",
)

QUANTITIES: tuple[Callable[[Measurement], float], ...] = (
    lambda run: run.cpu_seconds,
    lambda run: run.wall_seconds,
    lambda run: run.peak_resident_bytes / 1e6,
    lambda run: run.peak_own_bytes / 1e6,
)


def table(turns_by_size: Mapping[str, Turns]) -> str:
    """Return one row per size and contender: median (least to most) over the turns."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for size, turns in turns_by_size.items():
        for name, runs in turns.items():
            cells = [size, name, *(spread([quantity(run) for run in runs]) for quantity in QUANTITIES)]
            cells += [ratio(turns.get(MERGEKIT), runs, quantity) for quantity in QUANTITIES[:3]]
            cells.append(ratio(runs, turns.get(FLOOR), QUANTITIES[0]))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(
    above: Sequence[Measurement] | None, below: Sequence[Measurement] | None, quantity: Callable[[Measurement], float]
) -> str:
    """Return the quotient turn by turn, so that what slows a whole turn cancels out."""
    if above is None or below is None or above is below:
        return ""
    return spread([quantity(a) / quantity(b) for a, b in zip(above, below, strict=True)])


def spread(values: Sequence[float]) -> str:
    """Return ``median (least to most)``, to three digits."""

    def rounded(value: float) -> str:
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

    middle = rounded(median(values))
    return middle if len(values) == 1 else f"{middle} ({rounded(min(values))} to {rounded(max(values))})"


def machine() -> str:
    """Describe the processor, its cores and the memory."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory_kib = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    cores = len(os.sched_getaffinity(0))
    model = models[0] if models else platform.machine()
    return f"{model}, {cores} cores, {memory_kib * 1024 / 1e9:.0f} GB, {platform.system()}"


def today() -> str:
    """Return the date in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def file_system_type(directory: Path) -> str:
    """Return the type of the file system a directory lies on, as the kernel names it, e.g. ``tmpfs``."""
    path = directory.resolve()
    mounts = [line.split()[1:3] for line in _lines("/proc/self/mounts")]
    holding = [(point, kind) for point, kind in mounts if path.is_relative_to(point.replace("\\040", " "))]
    # Of two mounts on one point, the later hides the earlier.
    return max(enumerate(holding), key=lambda item: (len(item[1][0]), item[0]))[1][1]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
