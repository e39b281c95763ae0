"""Merge one shard: the unit of parallelism, retry and resume.

Tensors are streamed past in pieces. Peak memory depends on :data:`HELD_ELEMENTS`, the number of inputs and the
number of workers, and neither on the shard nor on the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from mergeline.checkpoint import BITS
from mergeline.durable import exclusive, shared, write_whole
from mergeline.lineage import digest
from mergeline.plan import MergePlan, ShardPlan, TensorPlan
from mergeline.shard_file import ShardFile, Span, TensorOutcome
from mergeline.source_files import SourceFiles

if TYPE_CHECKING:
    from mergeline.tensor_stream import TensorMerger

HELD_ELEMENTS = 16 * 2**20
"""Elements of each input held in memory at once, per worker: a tensor up to this size is read once, however often a
method looks at it."""

BLOCK_ELEMENTS = 2**20
"""Elements of larger tensors that are read at once: small enough to stay in the cache until they are used."""

PIECE_ELEMENTS = 256 * 2**10
"""Elements per arithmetic step: float32 scratch of this size stays in the cache, and a float32 inner product over it
is accurate to 0.004 % of bfloat16 roundings once pieces are added up in float64."""

_TORCH_BASE_BYTES = 300 * 2**20
"""Resident memory of a process that has imported torch."""

Progress = Callable[[int], None]
"""Called with the number of bytes just written; negative where a tensor is begun anew."""


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


def working_set_nbytes(plan: MergePlan, workers: int) -> int:
    """Estimate the peak memory of a merge, in bytes, without the page cache."""

    def need(tensor: TensorPlan) -> int:
        count = tensor.element_count if tensor.element_count <= HELD_ELEMENTS else BLOCK_ELEMENTS
        width = sum(BITS[item.spec.dtype] for item in tensor.inputs)
        scratch = (len(tensor.inputs) + 3) * 4 * PIECE_ELEMENTS
        return count * width // 8 + scratch

    return _TORCH_BASE_BYTES + workers * max(need(tensor) for shard in plan.shards for tensor in shard.tensors)


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
    result = _RESULT.validate_json(record.read_bytes())
    return result if result.key == _key(plan, shard) else None


def merge_shard(
    plan: MergePlan,
    shard: ShardPlan,
    sources: Sequence[Path],
    directory: Path,
    *,
    devices: Sequence[str] = ("cpu",),
    workers: int = 1,
    on_progress: Progress = lambda nbytes: None,
) -> ShardResult:
    """Merge the tensors of one shard and write it, continuing where an earlier call stopped.

    Only one process at a time writes a shard; another waits until it has ended, and takes over what it left.

    Args:
        plan: The whole merge.
        shard: Which of its shards.
        sources: Directory of each source, in the order of ``plan.sources``.
        directory: Where the shard is written.
        devices: Where the arithmetic runs, ``cpu`` or ``cuda:n`` each; workers are spread over them.
        workers: Threads, each merging one tensor at a time.
        on_progress: Told as bytes are written.

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
        return _write_shard(plan, shard, sources, directory, devices, workers, on_progress)


def _write_shard(
    plan: MergePlan, shard: ShardPlan, sources: Sequence[Path], directory: Path, devices: Sequence[str], workers: int,
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
            _merge_waiting(plan, waiting, files, file, devices, workers, on_progress)
        sha256 = file.seal()
        outcomes = tuple(file.outcomes[tensor.name] for tensor in shard.tensors)
        elapsed = time.monotonic() - started
        result = ShardResult(_key(plan, shard), shard.filename, file.nbytes, sha256, elapsed, outcomes)
        write_whole(record_path(directory, shard.filename), _RESULT.dump_json(result))
        file.forget_journal()
    return result


def _merge_waiting(
    plan: MergePlan, waiting: Sequence[TensorPlan], sources: SourceFiles, file: ShardFile, devices: Sequence[str],
    workers: int, on_progress: Progress,
) -> None:  # fmt: skip
    from mergeline.tensor_stream import StreamSizes, TensorMerger

    def make_merger(device: str) -> TensorMerger:
        # A GPU wants large pieces; the CPU's cache small ones.
        on_gpu = StreamSizes(HELD_ELEMENTS, HELD_ELEMENTS, HELD_ELEMENTS)
        sizes = StreamSizes(HELD_ELEMENTS, BLOCK_ELEMENTS, PIECE_ELEMENTS) if device == "cpu" else on_gpu
        return TensorMerger(plan, sources, file, device, sizes, on_progress)

    _merge_all(waiting, devices, max(workers, len(devices)), sources, make_merger)


def choose_devices(wanted: str) -> tuple[list[str], str | None]:
    """Turn ``auto``, ``cuda`` or a missing GPU into devices that exist.

    Returns:
        One device per GPU to use (``cuda`` and ``auto`` take all there are) or the CPU alone, and a sentence to show
        when it is not what was wanted.
    """
    if wanted == "cpu":
        return ["cpu"], None
    import torch

    visible = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    chosen = visible if wanted in ("auto", "cuda") else [device for device in visible if device == wanted]
    if chosen:
        return chosen, None
    remark = f"{wanted}: no such GPU is visible to torch {torch.__version__}; merging on the CPU instead."
    return ["cpu"], None if wanted == "auto" else remark


def _key(plan: MergePlan, shard: ShardPlan) -> str:
    return digest([plan.digest, shard.filename])


def _merge_all(
    tensors: Sequence[TensorPlan], devices: Sequence[str], workers: int, sources: SourceFiles,
    make_merger: Callable[[str], TensorMerger],
) -> None:  # fmt: skip
    """Let ``workers`` threads, spread over the devices, take tensors in file order; the first failure stops all.

    Several workers begin with the tensors too large to be held.
    """
    import torch

    # Pieces are too small to share between threads: torch's own would only wait for each other.
    torch.set_num_threads(1)
    if workers > 1:
        # Embedding and head take longest, and the head comes last: begun there, it would leave all others waiting.
        tensors = sorted(tensors, key=lambda tensor: tensor.element_count <= HELD_ELEMENTS)
    lock = threading.Lock()
    stop = threading.Event()
    waiting = iter(range(len(tensors)))

    def work(device: str) -> None:
        merger = make_merger(device)
        stream = torch.cuda.stream(torch.cuda.Stream(device)) if device != "cpu" else nullcontext()
        with stream:
            while not stop.is_set():
                with lock:
                    index = next(waiting, None)
                if index is None:
                    return
                for following in tensors[index + workers : index + workers + 1]:
                    sources.expect(following.inputs, HELD_ELEMENTS)
                try:
                    merger.merge(tensors[index])
                except BaseException:
                    stop.set()
                    raise

    if workers == 1:
        work(devices[0])
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="merge") as pool:
        for future in [pool.submit(work, devices[index % len(devices)]) for index in range(workers)]:
            future.result()
