"""How long merges of very large models take on many machines: a simulation of the placement that the engines use.

    python -m benchmarks.placement_simulation

The plans are real: made from the headers of sparse checkpoints of the models' true shapes. Nothing is merged; shards
are handed out as ``execute.engine: ray`` (one by one, largest first) and ``workers`` (placed in batches beforehand) do.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import SHAPES, write_checkpoint
from benchmarks.report import today
from mergeline.hub import Hub
from mergeline.merging import plan_recipe
from mergeline.placement import largest_first, place
from mergeline.shard_layout import parse_size
from mergeline.text import size, table

RECIPE = """\
merge_method: slerp
base_model: {first}
models:
  - model: {first}
  - model: {second}
parameters:
  t: 0.5
dtype: bfloat16
"""


@dataclass(frozen=True)
class Machines:
    """What the simulation assumes of the workers and of the folder they share."""

    write_rate: float
    """Bytes of the result that a worker alone makes in a second, reading its parents on the way."""
    folder_rate: float
    """Bytes of results per second that the shared folder carries, reading of the parents included in its load."""
    start_seconds: float
    """From handing a batch to a worker until it merges: interpreters and imports."""
    notice_seconds: float
    """From a worker's death until its shards are given to others."""


@dataclass
class Worker:
    """One worker at some moment of the simulation."""

    queue: deque[int]
    left_nbytes: float = 0.0
    starting_until: float = 0.0
    is_dead: bool = False

    @property
    def is_merging(self) -> bool:
        return self.left_nbytes > 0 and not self.is_dead


def merge_seconds(
    nbytes: Sequence[int], batches: Sequence[Sequence[int]], worker_count: int, machines: Machines, *,
    is_one_lost: bool = False,
) -> float:  # fmt: skip
    """Return when the last shard is finished.

    Every worker takes the next batch when it is free. Workers that merge at the same time share the folder evenly.

    Args:
        nbytes: Size of each shard.
        batches: Positions of shards, in the order they are handed out.
        worker_count: Workers of equal speed.
        machines: What is assumed of them.
        is_one_lost: Whether the first worker dies for good at the last moment of its first shard, and what it had
            is placed again.
    """
    waiting = deque(deque(batch) for batch in batches)
    returning: list[tuple[float, deque[int]]] = []
    workers = [Worker(deque()) for _ in range(worker_count)]
    doomed = workers[0] if is_one_lost else None
    now, left_count = 0.0, len(nbytes)
    while left_count:
        while returning and returning[0][0] <= now:
            waiting.append(heapq.heappop(returning)[1])
        for worker in workers:
            if worker.is_dead or worker.left_nbytes > 0:
                continue
            if not worker.queue and waiting:
                worker.queue = waiting.popleft()
                worker.starting_until = now + machines.start_seconds
            if worker.queue and worker.starting_until <= now:
                worker.left_nbytes = float(nbytes[worker.queue[0]])
        merging = [worker for worker in workers if worker.is_merging]
        rate = min(machines.write_rate, machines.folder_rate / len(merging)) if merging else 0.0
        events = [now + worker.left_nbytes / rate for worker in merging]
        events += [worker.starting_until for worker in workers if worker.queue and worker.starting_until > now]
        events += [moment for moment, _ in returning]
        step = min(events) - now
        now += step
        for worker in merging:
            worker.left_nbytes -= step * rate
            if worker.left_nbytes > 1.0:
                continue
            worker.left_nbytes = 0.0
            if worker is doomed:
                worker.is_dead = True
                lost = list(worker.queue)
                for batch in place([nbytes[index] for index in lost], worker_count - 1):
                    again = deque(lost[position] for position in batch)
                    heapq.heappush(returning, (now + machines.notice_seconds, again))
                continue
            worker.queue.popleft()
            left_count -= 1
    return now


def shard_sizes(shape: str, max_shard_size: str) -> list[int]:
    """Plan a merge of two models of a shape, from headers alone, and return its shards' sizes."""
    with tempfile.TemporaryDirectory() as folder:
        parents = {name: Path(folder) / name for name in ("first", "second")}
        for path in parents.values():
            write_checkpoint(path, SHAPES[shape])
        planned = plan_recipe(RECIPE.format(**parents), "recipe", Hub(), parse_size(max_shard_size))
    return [shard.data_nbytes for shard in planned.plan.shards]


def in_turn(shard_count: int, worker_count: int) -> list[list[int]]:
    """Deal shards out in the plan's order without a look at their size, to compare with."""
    return [list(range(worker, shard_count, worker_count)) for worker in range(min(worker_count, shard_count))]


def row(shape: str, nbytes: Sequence[int], count: int, ray: Machines, workers: Machines) -> tuple[str, ...]:
    """Simulate one model on so many workers."""
    single = [[index] for index in largest_first(nbytes)]
    placed = place(nbytes, count)
    alone = merge_seconds(nbytes, single, 1, ray)
    on_ray = merge_seconds(nbytes, single, count, ray)
    on_workers = merge_seconds(nbytes, placed, count, workers)
    cells = [
        alone / on_ray,
        max(sum(nbytes) / count, max(nbytes)) / workers.write_rate,
        on_ray,
        on_workers,
        merge_seconds(nbytes, in_turn(len(nbytes), count), count, workers),
        merge_seconds(nbytes, single, count, ray, is_one_lost=True) - on_ray,
        merge_seconds(nbytes, placed, count, workers, is_one_lost=True) - on_workers,
    ]
    speedup, *seconds = cells
    return (shape, size(sum(nbytes)), str(len(nbytes)), str(count), f"{speedup:.1f}", *(f"{s:.0f}" for s in seconds))


HEADER = (
    "model", "written", "shards", "workers", "speed-up", "no engine is faster than, s", "ray, s", "workers, s",
    "dealt in turn, s", "one lost: ray, + s", "one lost: workers, + s",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["70B", "405B"])
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--max-shard-size", default="5GB")
    parser.add_argument("--write-rate", type=float, default=0.29, help="GB/s of result per worker (%(default)s)")
    parser.add_argument("--folder-rate", type=float, default=5.0, help="GB/s of results, all workers (%(default)s)")
    options = parser.parse_args()
    # Ray keeps its processes, and a shard costs it a sixth of a second; a run of a deployment takes 20 s to begin.
    # A machine that is gone: Ray's health check takes 25 s, and a shared folder frees its locks after up to 90.
    ray = Machines(options.write_rate * 1e9, options.folder_rate * 1e9, 0.16, 25.0)
    workers = Machines(options.write_rate * 1e9, options.folder_rate * 1e9, 20.0, 100.0)
    rows: list[tuple[str, ...]] = []
    for shape in options.shapes:
        nbytes = shard_sizes(shape, options.max_shard_size)
        rows += [row(shape, nbytes, count, ray, workers) for count in options.workers]
    print(f"{today()}: {options.max_shard_size} shards; {ray}; {workers}\n")
    print("\n".join(table(HEADER, rows)))


if __name__ == "__main__":
    main()
