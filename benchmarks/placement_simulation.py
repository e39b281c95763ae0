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
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.checkpoints import HALFWAY_RECIPE, SHAPES, write_checkpoint
from benchmarks.report import today
from mergeline.merge.placement import largest_first, place
from mergeline.plan.planning import plan_recipe
from mergeline.sources.hub import Hub
from mergeline.support.text import parse_size, size, table


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

    queue: deque[int] = field(default_factory=deque)
    """Shards of its batch that are not finished, the one it merges first."""
    left_nbytes: float = 0.0
    """Of that one."""
    starting_until: float = 0.0
    is_dead: bool = False


class Simulation:
    """A merge on workers of equal speed, each of which takes the next batch when it is free."""

    def __init__(
        self, nbytes: Sequence[int], batches: Sequence[Sequence[int]], worker_count: int, machines: Machines, *,
        is_one_lost: bool = False,
    ) -> None:  # fmt: skip
        """Make everything ready.

        Args:
            nbytes: Size of each shard.
            batches: Positions of shards, in the order they are handed out.
            worker_count: Workers that are there at the start.
            machines: What is assumed of them.
            is_one_lost: Whether the first worker's machine is lost for good at the last moment of its first shard;
                what it had is placed again on the others.
        """
        self._nbytes, self._machines = nbytes, machines
        self._waiting = deque(deque(batch) for batch in batches)
        self._returning: list[tuple[float, deque[int]]] = []
        self._workers = [Worker() for _ in range(worker_count)]
        self._doomed = self._workers[0] if is_one_lost else None
        self._now, self._left_count = 0.0, len(nbytes)

    def run(self) -> float:
        """Return when the last shard is finished, in seconds."""
        while self._left_count:
            self._hand_out()
            self._advance()
        return self._now

    def _hand_out(self) -> None:
        while self._returning and self._returning[0][0] <= self._now:
            self._waiting.append(heapq.heappop(self._returning)[1])
        for worker in self._workers:
            if worker.is_dead or worker.left_nbytes > 0:
                continue
            if not worker.queue and self._waiting:
                worker.queue = self._waiting.popleft()
                worker.starting_until = self._now + self._machines.start_seconds
            if worker.queue and worker.starting_until <= self._now:
                worker.left_nbytes = float(self._nbytes[worker.queue[0]])

    def _advance(self) -> None:
        """Let time pass until something happens; those who merge share the folder evenly."""
        merging = [worker for worker in self._workers if worker.left_nbytes > 0]
        rate = min(self._machines.write_rate, self._machines.folder_rate / max(1, len(merging)))
        moments = [self._now + worker.left_nbytes / rate for worker in merging]
        moments += [worker.starting_until for worker in self._workers if worker.starting_until > self._now]
        moments += [moment for moment, _ in self._returning]
        step = min(moments) - self._now
        self._now += step
        for worker in merging:
            worker.left_nbytes -= step * rate
            if worker.left_nbytes <= 1.0:
                self._end_shard(worker)

    def _end_shard(self, worker: Worker) -> None:
        worker.left_nbytes = 0.0
        if worker is not self._doomed:
            worker.queue.popleft()
            self._left_count -= 1
            return
        worker.is_dead = True
        lost = list(worker.queue)
        for batch in place([self._nbytes[index] for index in lost], len(self._workers) - 1):
            again = deque(lost[position] for position in batch)
            heapq.heappush(self._returning, (self._now + self._machines.notice_seconds, again))


def shard_sizes(shape: str, max_shard_size: str) -> list[int]:
    """Plan a merge of two models of a shape, from headers alone, and return its shards' sizes."""
    with tempfile.TemporaryDirectory() as folder:
        parents = {name: Path(folder) / name for name in ("first", "second")}
        for path in parents.values():
            write_checkpoint(path, SHAPES[shape])
        planned = plan_recipe(HALFWAY_RECIPE.format(**parents), "recipe", Hub(), parse_size(max_shard_size))
    return [shard.data_nbytes for shard in planned.plan.shards]


def in_turn(shard_count: int, worker_count: int) -> list[list[int]]:
    """Deal shards out in the plan's order without a look at their size, to compare with."""
    return [list(range(worker, shard_count, worker_count)) for worker in range(min(worker_count, shard_count))]


def row(shape: str, nbytes: Sequence[int], count: int, ray: Machines, workers: Machines) -> tuple[str, ...]:
    """Simulate one model on so many workers."""

    def seconds_of(batches: list[list[int]], machines: Machines, *, is_one_lost: bool = False) -> float:
        return Simulation(nbytes, batches, count, machines, is_one_lost=is_one_lost).run()

    single = [[index] for index in largest_first(nbytes)]
    placed = place(nbytes, count)
    total, write_rate = sum(nbytes), ray.write_rate
    on_ray, on_workers = seconds_of(single, ray), seconds_of(placed, workers)
    cells = [
        Simulation(nbytes, single, 1, ray).run() / on_ray,
        max(total / count / write_rate, max(nbytes) / write_rate, total / ray.folder_rate),
        on_ray,
        on_workers,
        seconds_of(in_turn(len(nbytes), count), workers),
        seconds_of(single, ray, is_one_lost=True) - on_ray,
        seconds_of(placed, workers, is_one_lost=True) - on_workers,
    ]
    speedup, *seconds = cells
    return (shape, size(sum(nbytes)), str(len(nbytes)), str(count), f"{speedup:.1f}", *(f"{s:.0f}" for s in seconds))


HEADER = (
    "model", "written", "shards", "workers", "speed-up", "no engine is faster than, s", "ray, s", "workers, s",
    "dealt in turn, s", "one machine lost: ray, + s", "workers, + s",
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
