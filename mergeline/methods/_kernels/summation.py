"""The one order in which everything is summed, whatever computes it.

Every sum over a tensor (or over each of its rows, where a method asks for sums by row) is taken like this:

1. The elements are cut into runs of :data:`RUN`, counted from the first; the last may be shorter.
2. Within a run, element ``k`` is added to lane ``k mod LANES``, in order, in the dtype of the arithmetic (float32;
   float64 where a tensor is stored as that or the result is written as float32). No multiplication is contracted with
   an addition.
3. The lanes of a run are added up in float64 by halves: lane ``j`` and lane ``j + 16``, then ``j + 8``, down to one.
4. The runs are added up in order in float64.

So a sum depends on the tensor alone: not on how it was cut into blocks (which hold whole runs), on workers, on the
device, or on how many lanes the processor's registers have: 32 float32 are four registers with AVX2, two with AVX-512.
A float32 lane adds 128 numbers, so its error stays near one unit in the last place.
"""

from __future__ import annotations

LANES = 32
RUN = 4096
