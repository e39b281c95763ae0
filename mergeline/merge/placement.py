"""Which shards a worker merges: by bytes, largest first, each given to the worker that has least to do."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def largest_first(nbytes: Sequence[int]) -> list[int]:
    """Return the positions of shards in the order they are handed out; equal ones in the plan's order.

    Whoever is free takes the next: what is still running at the end is then small.
    """
    return sorted(range(len(nbytes)), key=lambda index: -nbytes[index])


def place(nbytes: Sequence[int], worker_count: int) -> list[list[int]]:
    """Share shards out among workers of equal speed before any of them starts.

    The last worker ends at most a third later than with the best placement there is (Graham, "Bounds on
    multiprocessing timing anomalies", SIAM J. Appl. Math. 1969).

    Args:
        nbytes: Size of each shard, in bytes.
        worker_count: 1 or more; workers beyond the number of shards are left out.

    Returns:
        One list of positions in ``nbytes`` per worker, largest shard first.
    """
    count = min(worker_count, len(nbytes))
    batches: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, worker) for worker in range(count)]
    for index in largest_first(nbytes):
        load, worker = loads[0]
        batches[worker].append(index)
        heapq.heapreplace(loads, (load + nbytes[index], worker))
    return batches
