"""The k largest of many magnitudes, found exactly in two looks at them and constant memory; nothing is sorted."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LOW_BITS = 15
"""A float32 magnitude has 31 bits: the upper 16 are counted in the first pass, the lower 15 in the second."""

PASSES = 2


class Largest:
    """Tells the ``count`` elements of largest magnitude from the rest; among equal ones the first are taken.

    Magnitudes are compared as float32, whose bits, read as an integer, are in the same order. The first pass counts
    elements by their upper bits, which shows in which bin the last one wanted lies; the second counts that bin's
    elements by their lower bits, which shows its very value.
    """

    def __init__(self, count: int) -> None:
        """Look for the ``count`` largest, at least 0."""
        self._wanted = count
        self._counts: Tensor | None = None
        self._bin = 0
        self._last = 0.0
        """Smallest magnitude taken."""
        self._equal_wanted = 0
        """How many elements of exactly that magnitude are taken."""
        self._equal_seen = 0

    def observe(self, number: int, values: Tensor) -> None:
        """Count one piece, in pass 0 or 1."""
        import torch

        bits = _magnitudes(values).view(torch.int32)
        keys = bits >> _LOW_BITS if number == 0 else _of_bin(bits, self._bin) & ((1 << _LOW_BITS) - 1)
        counts = torch.bincount(keys, minlength=1 << (31 - _LOW_BITS if number == 0 else _LOW_BITS))
        self._counts = counts if self._counts is None else self._counts.add_(counts)

    def end_pass(self, number: int) -> None:
        """Find the bin (pass 0) or the value (pass 1) of the last element wanted."""
        counts = self._counts
        self._counts = None
        if number == 0:
            self._bin, self._equal_wanted = _last_bin(counts, self._wanted)
        else:
            low, self._equal_wanted = _last_bin(counts, self._equal_wanted)
            (self._last,) = struct.unpack("f", struct.pack("I", (self._bin << _LOW_BITS) + low))

    def mask(self, values: Tensor) -> Tensor:
        """Return 1 for the elements of a piece that are among the largest and 0 for the others, as float32.

        Pieces come in order, once per round.
        """
        import torch

        magnitudes = _magnitudes(values)
        if self._wanted == 0:
            return magnitudes.zero_()
        left = self._equal_wanted - self._equal_seen
        # Comparisons in place, with floating-point results, are several times faster than those that give booleans.
        if left <= 0:
            return magnitudes.gt_(self._last)
        taken = magnitudes.clone().ge_(self._last)
        equal = magnitudes.eq_(self._last)
        count = int(torch.count_nonzero(equal))
        self._equal_seen += count
        if count > left:
            taken[equal.nonzero().flatten()[left:]] = 0.0
        return taken

    def restart(self) -> None:
        """Begin another round over the pieces."""
        self._equal_seen = 0


def _magnitudes(values: Tensor) -> Tensor:
    return values.float().flatten().abs()


def _of_bin(bits: Tensor, number: int) -> Tensor:
    """Return the magnitudes of one bin, as bits."""
    import torch

    if bits.device.type != "cpu":
        return bits[bits >> _LOW_BITS == number]
    # On a CPU numpy picks them out several times faster.
    array = bits.numpy()
    return torch.from_numpy(array[array >> _LOW_BITS == number])


def _last_bin(counts: Tensor | None, wanted: int) -> tuple[int, int]:
    """Return the bin that holds the ``wanted``-th largest key, and how many of its elements are wanted."""
    if counts is None or wanted <= 0:
        return 0, 0
    from_top = counts.flip(0).cumsum(0)
    index = int((from_top < wanted).sum())
    above = int(from_top[index - 1]) if index else 0
    return counts.numel() - 1 - index, wanted - above
