"""The k-th largest of many magnitudes, found exactly by counting bits: three looks, constant memory, nothing sorted.

A float32 magnitude has 31 bits, which read as an integer are in the magnitudes' order. The first look counts elements
by the upper 16 bits, which shows where the k-th largest lies; the second counts those elements by the lower 15, which
shows its very value. Among equal magnitudes the first in the tensor are taken, so where some equal ones are wanted and
others not, a third look finds the place of the last one wanted. The result is a :class:`Cut`, three numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeline.methods._kernels.formula import Value, single, where

LOW_BITS = 15
EVERYWHERE = 2**62
"""A place beyond the end of any tensor."""


@dataclass(frozen=True)
class Cut:
    """Tells a tensor's largest magnitudes from the rest, exactly so many of them."""

    least: Any
    """Smallest magnitude taken, up to ``place``."""
    above: Any
    """Smallest magnitude taken after that: the next larger float32."""
    place: Any
    """Index after the last element of magnitude ``least`` that is taken."""

    def keeps(self, magnitude: Value) -> Value:
        """Whether an element of this magnitude is among the largest; for use in a formula."""
        position = magnitude.recording.leaf("position")
        return single(magnitude) >= where(position < self.place, self.least, self.above)


NOTHING = Cut(math.nan, math.nan, 0)
"""Takes none."""
ALL = Cut(0.0, 0.0, 0)
"""Takes every element, whatever its magnitude."""


def last_bin(counts: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """Return the bin that holds the ``wanted``-th largest key, and how many of its elements are wanted."""
    from_top = np.cumsum(counts[::-1])
    index = int(np.searchsorted(from_top, wanted))
    above = int(from_top[index - 1]) if index else 0
    return len(counts) - 1 - index, wanted - above


def cut_at(bits: int, place: int) -> Cut:
    """Return the cut at the magnitude with these bits."""
    least, above = np.array([bits, bits + 1], np.uint32).view(np.float32)
    return Cut(float(least), float(above), place)
