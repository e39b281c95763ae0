"""Merge one shard: the unit of parallelism, retry and resume.

Tensors are streamed in blocks. Peak memory depends on :class:`StreamSizes`, the number of inputs and the number of
workers, and neither on the shard nor on the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mergeline.merge.shard_file import ShardFile, Span, TensorOutcome
from mergeline.merge.source_files import SourceFiles
from mergeline.plan.memory import CPU_SIZES, GPU_SIZES, StreamSizes
from mergeline.plan.merge_plan import MergePlan, ShardPlan, TensorPlan
from mergeline.support.digests import digest
from mergeline.support.durable import exclusive, shared, write_whole

Progress = Callable[[int], object]
"""Called with the number of bytes just written; negative where a tensor is begun anew."""


@dataclass(frozen=True)
class Resources:
    """What a merge may use of this machine; changes no byte of the result."""

    devices: tuple[str, ...] = ("cpu",)
    """Where the arithmetic runs, ``cpu`` or ``cuda:n`` each; workers are spread over them."""
    workers: int = 1
    """Threads, each merging one tensor at a time."""
    sizes: StreamSizes | None = None
    """How much of a tensor is in memory at once; None: what suits the device."""

    def sizes_on(self, device: str) -> StreamSizes:
        return self.sizes or (CPU_SIZES if device == "cpu" else GPU_SIZES)


ONE_WORKER = Resources()
"""One thread on the CPU."""


@dataclass(frozen=True)
class ShardResult:
    """One finished shard; its record on disk says the same, and is what a later run trusts."""

    key: str
    """Digest of plan and shard."""
    filename: str
    nbytes: int
    sha256: str
    elapsed_seconds: float
    outcomes: tuple[TensorOutcome, ...]
    is_reused: bool = False
    """Whether it was found finished rather than merged by this call."""


_RESULT = TypeAdapter(ShardResult)


def record_path(directory: Path, filename: str) -> Path:
    """Return where the record of a finished shard lies."""
    return directory / f".{filename}.done.json"


def writers_path(directory: Path) -> Path:
    """Return the file that all who write shards hold locked together, and whoever completes the directory alone."""
    return directory / ".writers.lock"


def finished_shard(plan: MergePlan, shard: ShardPlan, directory: Path) -> ShardResult | None:
    """Return the result of a shard that lies finished in ``directory``, or None."""
    record = record_path(directory, shard.filename)
    file = directory / shard.filename
    if not record.exists() or not file.exists() or file.stat().st_size != plan.shard_nbytes(shard):
        return None
    try:
        result = _RESULT.validate_json(record.read_bytes())
    except ValidationError:
        return None
    return result if result.key == _key(plan, shard) else None


def merge_shard(
    plan: MergePlan,
    shard: ShardPlan,
    sources: Sequence[Path],
    directory: Path,
    resources: Resources = ONE_WORKER,
    on_progress: Progress = lambda nbytes: None,
) -> ShardResult:
    """Merge the tensors of one shard and write it, continuing where an earlier call stopped.

    Only one process at a time writes a shard; another waits until it has ended, and takes over what it left.

    Args:
        plan: The whole merge.
        shard: Which of its shards.
        sources: Directory of each source, in the order of ``plan.sources``.
        directory: Where the shard is written.
        resources: Devices, workers and memory.
        on_progress: Called as bytes are written.

    Raises:
        MergeError: If a source cannot be read as planned, or the result is not finite.
        OutputError: If the directory is gone, or keeps no locks.
    """
    # The retry of a worker that was given up waits here for one that lives after all.
    lock = exclusive(directory / f".{shard.filename}.lock", f"writing {shard.filename}", is_waiting=True)
    with shared(writers_path(directory)), lock:
        done = finished_shard(plan, shard, directory)
        if done is not None:
            on_progress(shard.data_nbytes)
            return replace(done, is_reused=True)
        return _write_shard(plan, shard, sources, directory, resources, on_progress)


def _write_shard(
    plan: MergePlan, shard: ShardPlan, sources: Sequence[Path], directory: Path, resources: Resources,
    on_progress: Progress,
) -> ShardResult:  # fmt: skip
    started = time.monotonic()
    header = plan.shard_header(shard)
    spans = [Span(tensor.name, len(header) + tensor.offset, tensor.nbytes) for tensor in shard.tensors]
    # A file without its record may be of another plan.
    (directory / shard.filename).unlink(missing_ok=True)
    with ShardFile(directory / shard.filename, _key(plan, shard), header, spans) as file, SourceFiles(sources) as files:
        waiting = [tensor for tensor in shard.tensors if tensor.name not in file.outcomes]
        on_progress(shard.data_nbytes - sum(tensor.nbytes for tensor in waiting))
        if waiting:
            _merge_waiting(plan, waiting, files, file, resources, on_progress)
        sha256 = file.seal()
        outcomes = tuple(file.outcomes[tensor.name] for tensor in shard.tensors)
        elapsed = time.monotonic() - started
        result = ShardResult(_key(plan, shard), shard.filename, file.nbytes, sha256, elapsed, outcomes)
        write_whole(record_path(directory, shard.filename), _RESULT.dump_json(result))
        file.forget_journal()
    return result


def _merge_waiting(
    plan: MergePlan, waiting: Sequence[TensorPlan], sources: SourceFiles, file: ShardFile, resources: Resources,
    on_progress: Progress,
) -> None:  # fmt: skip
    """Let workers, spread over the devices, take tensors in file order; the first failure stops all.

    Several workers begin with the tensors too large to be held.
    """
    from mergeline.merge.tensor_merger import TensorMerger

    devices = resources.devices
    workers = min(max(resources.workers, len(devices)), len(waiting))
    held_elements = resources.sizes_on(devices[0]).held_elements
    if workers > 1:
        # Embedding and head take longest, and the head comes last: begun there, it would leave all others waiting.
        waiting = sorted(waiting, key=lambda tensor: tensor.element_count <= held_elements)
    lock = threading.Lock()
    stop = threading.Event()
    indices = iter(range(len(waiting)))

    def work(device: str) -> None:
        merger = TensorMerger(plan, sources, file, device, resources.sizes_on(device), on_progress)
        with merger.in_use():
            while not stop.is_set():
                with lock:
                    index = next(indices, None)
                if index is None:
                    return
                for following in waiting[index + workers : index + workers + 1]:
                    sources.expect(following.inputs, held_elements)
                try:
                    merger.merge(waiting[index])
                except BaseException:
                    stop.set()
                    raise

    if workers == 1:
        work(devices[0])
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="merge") as pool:
        for future in [pool.submit(work, devices[index % len(devices)]) for index in range(workers)]:
            future.result()


def _key(plan: MergePlan, shard: ShardPlan) -> str:
    return digest([plan.digest, shard.filename])
