"""The k largest of many magnitudes, found exactly in two looks at them and constant memory; nothing is sorted."""

from __future__ import annotations

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
        self._last = 0
        """Bits of the smallest magnitude taken."""
        self._equal_wanted = 0
        """How many elements of exactly that magnitude are taken."""
        self._equal_seen = 0

    def observe(self, number: int, values: Tensor) -> None:
        """Count one piece, in pass 0 or 1."""
        import torch

        bits = _magnitude_bits(values)
        if number == 0:
            keys = bits >> _LOW_BITS
        else:
            inside = bits[(bits >> _LOW_BITS) == self._bin]
            keys = inside & ((1 << _LOW_BITS) - 1)
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
            self._last = (self._bin << _LOW_BITS) + low

    def mask(self, values: Tensor) -> Tensor:
        """Say which elements of a piece are among the largest; pieces come in order, once per round."""
        import torch

        if self._wanted == 0:
            return torch.zeros_like(values, dtype=torch.bool)
        bits = _magnitude_bits(values)
        taken = bits >= self._last
        equal = bits == self._last
        left = self._equal_wanted - self._equal_seen
        count = int(torch.count_nonzero(equal))
        self._equal_seen += count
        if count > left:
            positions = equal.nonzero().flatten()
            taken[positions[max(left, 0) :]] = False
        return taken

    def restart(self) -> None:
        """Begin another round over the pieces."""
        self._equal_seen = 0


def _magnitude_bits(values: Tensor) -> Tensor:
    import torch

    return values.float().flatten().view(torch.int32) & 0x7FFFFFFF


def _last_bin(counts: Tensor | None, wanted: int) -> tuple[int, int]:
    """Return the bin that holds the ``wanted``-th largest key, and how many of its elements are wanted."""
    if counts is None or wanted <= 0:
        return 0, 0
    from_top = counts.flip(0).cumsum(0)
    index = int((from_top < wanted).sum())
    above = int(from_top[index - 1]) if index else 0
    return counts.numel() - 1 - index, wanted - above
