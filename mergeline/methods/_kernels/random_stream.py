"""Random numbers that depend on nothing but what they are for, so that workers, devices and restarts change no byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class RandomStream:
    """A counter-based stream for one tensor of one model; element k has the same number wherever it is asked for.

    References:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox-4x64, numpy's).
    """

    def __init__(self, seed: int, model: int, tensor: str) -> None:
        """Name the stream.

        Args:
            seed: The recipe's.
            model: Index of the input among the tensor's inputs.
            tensor: Name of the output tensor.
        """
        name = hashlib.sha256(f"{seed}/{model}/{tensor}".encode()).digest()
        self._key = (int.from_bytes(name[:8], "little"), int.from_bytes(name[8:16], "little"))

    def keep(self, probability: float, start: int, like: Tensor) -> Tensor:
        """Draw which elements to keep, each with ``probability`` in [0, 1], independently.

        Args:
            probability: Resolved to 2^-32.
            start: Index of the first element within its tensor.
            like: Gives count, shape and device.
        """
        import numpy as np
        import torch

        count = like.numel()
        # Philox makes four 64-bit words per counter: eight elements of 32 bits.
        block, skipped = divmod(start, 8)
        generator = np.random.Philox(key=np.array(self._key, dtype=np.uint64), counter=block)
        words = generator.random_raw((skipped + count + 1) // 2).view(np.uint32)[skipped : skipped + count]
        # A bound of 32 bits is compared five times faster. For a probability of 1, never asked for, it is 1 too low.
        kept = torch.from_numpy(words < np.uint32(min(round(probability * 2**32), 2**32 - 1)))
        return kept.to(like.device).reshape(like.shape)
