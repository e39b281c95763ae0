"""What the compiled arithmetic costs in a whole process: merge two checkpoints of equal files, nothing else.

    python -m benchmarks.numeric_core make DIRECTORY --shape 1.1B       three checkpoints: base, near (2 %), far (25 %)
    python -m benchmarks.numeric_core turns DIRECTORY --repeat 5        every method in turns with the floor
    python -m benchmarks.numeric_core merge slerp OUTPUT PARENT...      one of those processes

No plan, no journal, no checks: the engine's own figures are :mod:`benchmarks.merge_speed`'s. The floor reads the two
parents and writes one of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ELEMENT_BYTES = 2
HELD_ELEMENTS = 16 * 2**20
BLOCK_ELEMENTS = 2**17

Method = Callable[[Any], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("directory", type=Path)
    make.add_argument("--shape", default="1.1B")
    turns = commands.add_parser("turns")
    turns.add_argument("directory", type=Path)
    turns.add_argument("--repeat", type=int, default=5)
    turns.add_argument("--methods", nargs="+", default=["slerp", "linear", "ties", "dare_ties"])
    merge = commands.add_parser("merge")
    merge.add_argument("method")
    merge.add_argument("output", type=Path)
    merge.add_argument("parents", nargs="+", type=Path)
    options = parser.parse_args()
    if options.command == "make":
        make_checkpoints(options.directory, options.shape)
    elif options.command == "turns":
        compare(options.directory, options.methods, options.repeat)
    else:
        merge_directories(options.method, options.output, options.parents)


def make_checkpoints(directory: Path, shape: str) -> None:
    from benchmarks.checkpoints import SHAPES, RandomWeights, write_checkpoint

    for name, change in (("base", 0.0), ("near", 0.02), ("far", 0.25)):
        weights = RandomWeights(0, change=change, change_seed=1)
        write_checkpoint(directory / name, SHAPES[shape], weights=weights)


def compare(directory: Path, methods: Sequence[str], repeat: int) -> None:
    """Run everything in turns; print medians of CPU seconds, ratios to the floor of the same turn, peak memory."""
    base, near, far = (directory / name for name in ("base", "near", "far"))
    runs = {"floor": ("floor", base, far)}
    for method in methods:
        parents = (base, near, far) if method in ("ties", "dare_ties") else (base, far)
        runs[f"{method}, 25 %" if len(parents) == 2 else method] = (method, *parents)
    if "slerp" in methods:
        runs["slerp, 2 %"] = ("slerp", base, near)
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, (method, *parents) in runs.items():
            seen[name].append(run_apart(method, directory / "output", parents))
    floors = [cpu for cpu, _, _ in seen["floor"]]
    print("| merge | CPU s | CPU / floor | wall s | peak resident MB |\n|---|---|---|---|---|")
    for name, turns in seen.items():
        cpu, wall, peak = (statistics.median(turn[i] for turn in turns) for i in range(3))
        ratio = statistics.median(turn[0] / floor for turn, floor in zip(turns, floors, strict=True))
        least, most = min(turn[0] for turn in turns), max(turn[0] for turn in turns)
        print(f"| {name} | {cpu:.2f} ({least:.2f} to {most:.2f}) | {ratio:.2f} | {wall:.2f} | {peak:.0f} |")


def run_apart(method: str, output: Path, parents: Sequence[Path]) -> tuple[float, float, float]:
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.numeric_core", "merge", method, str(output), *map(str, parents)]
    started = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    shutil.rmtree(output, ignore_errors=True)
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def merge_directories(method: str, output: Path, parents: Sequence[Path]) -> None:
    output.mkdir(parents=True)
    names = sorted(path.name for path in parents[0].glob("*.safetensors"))
    for name in names:
        files = [os.open(parent / name, os.O_RDONLY) for parent in parents]
        target = os.open(output / name, os.O_RDWR | os.O_CREAT)
        os.ftruncate(target, os.fstat(files[0]).st_size)
        if method == "floor":
            copy_one(files, target)
        else:
            merge_files(METHODS[method], files, target)


def copy_one(files: Sequence[int], target: int) -> None:
    buffer = memoryview(bytearray(1 << 20))
    size = os.fstat(files[0]).st_size
    for start in range(0, size, len(buffer)):
        for file in files:
            count = os.preadv(file, [buffer], start)
        os.pwrite(target, buffer[:count], start)


def merge_files(method: Method, files: Sequence[int], target: int) -> None:
    from blake3 import blake3

    (length,) = (int.from_bytes(os.pread(files[0], 8, 0), "little"),)
    header = json.loads(os.pread(files[0], length, 8))
    header.pop("__metadata__", None)
    os.pwrite(target, os.pread(files[0], 8 + length, 0), 0)
    digest = blake3()
    stream = Stream(files, target, digest)
    for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
        start, stop = entry["data_offsets"]
        stream.merge(method, 8 + length + start, (stop - start) // ELEMENT_BYTES)


class Stream:
    """Buffers and files of one worker."""

    def __init__(self, files: Sequence[int], target: int, digest: Any) -> None:
        import numpy as np

        from mergeline.methods._kernels.cpu import CpuArithmetic

        self.arithmetic = CpuArithmetic()
        self.files, self.target, self.digest = files, target, digest
        self.held = [np.empty(HELD_ELEMENTS, np.uint16) for _ in files]
        self.out = np.empty(BLOCK_ELEMENTS, np.uint16)

    def merge(self, method: Method, offset: int, count: int) -> None:
        from mergeline.methods._kernels.arithmetic import Block
        from mergeline.methods._kernels.tensor_inputs import TensorInputs

        is_held = count <= HELD_ELEMENTS
        has_read = False

        def blocks() -> Iterator[Block[Any]]:
            nonlocal has_read
            for start in range(0, count, BLOCK_ELEMENTS):
                stop = min(start + BLOCK_ELEMENTS, count)
                at = start if is_held else 0
                arrays = tuple(buffer[at : at + stop - start] for buffer in self.held)
                if not (is_held and has_read):
                    for file, array in zip(self.files, arrays, strict=True):
                        os.preadv(file, [array.data.cast("B")], offset + start * ELEMENT_BYTES)
                yield Block(arrays, ("BF16",) * len(arrays), start, stop - start)
            has_read = True

        position = offset

        def written(output: Any) -> None:
            nonlocal position
            data = output.data.cast("B")
            position += os.pwrite(self.target, data, position)
            self.digest.update(data)

        inputs = TensorInputs(
            self.arithmetic, ("BF16",) * len(self.files), "BF16", count, blocks, lambda block: self.out[: block.count],
            written,
        )  # fmt: skip
        method(inputs)


def slerp(inputs: Any) -> None:
    first, second, _, product = inputs.sums(distances)
    cosine = product / math.sqrt(first * second)
    if abs(cosine) > 0.9995:
        inputs.write(chord, t=0.5)
        return
    omega = math.acos(cosine)
    inputs.write(weighted_sum, weights=(math.sin(0.5 * omega) / math.sin(omega),) * 2)


def linear(inputs: Any) -> None:
    inputs.write(weighted_sum, weights=(0.5, 0.5), summed=distances)


def ties(inputs: Any) -> None:
    wanted = inputs.element_count // 2
    cuts = [each[0] for each in inputs.largest(magnitudes, [(wanted,), (wanted,)])]
    inputs.write(vote, weights=(0.5, 0.5), cuts=cuts, scale=1.0, summed=distances)


def dare_ties(inputs: Any) -> None:
    from mergeline.methods._kernels.formula import Keep

    cuts = (Keep((1, 2), 0.5), Keep((3, 4), 0.5))
    first, second, first_kept, second_kept = inputs.sums(kept_magnitudes, cuts=cuts)
    weights = (0.5 * first / first_kept, 0.5 * second / second_kept)
    inputs.write(vote, weights=weights, cuts=cuts, scale=1.0, summed=distances)


def distances(x: Sequence[Any]) -> list[Any]:
    x = x[:2] if len(x) == 3 else x
    pairs = [(a, b) for i, a in enumerate(x) for b in x[:i]]
    products = [x[0] * x[1]] if len(x) == 2 else []
    return [v * v for v in x] + [(a - b) * (a - b) for a, b in pairs] + products


def chord(x: Sequence[Any], t: Any) -> Any:
    return x[0] + t * (x[1] - x[0])


def weighted_sum(x: Sequence[Any], weights: Sequence[Any]) -> Any:
    return sum(w * v for w, v in zip(weights, x, strict=True))


def magnitudes(x: Sequence[Any]) -> list[Any]:
    return [abs(v - x[0]) for v in x[1:]]


def kept_magnitudes(x: Sequence[Any], cuts: Sequence[Any]) -> list[Any]:
    from mergeline.methods._kernels.formula import where

    whole = magnitudes(x)
    return whole + [where(cut, v, 0.0) for cut, v in zip(cuts, whole, strict=True)]


def vote(x: Sequence[Any], weights: Sequence[Any], cuts: Sequence[Any], scale: Any) -> Any:
    from mergeline.methods._kernels.formula import maximum, where

    terms: list[Any] = []
    for v, weight, cut in zip(x[1:], weights, cuts, strict=True):
        difference = v - x[0]
        kept = cut.keeps(abs(difference)) if hasattr(cut, "keeps") else cut
        terms.append(where(kept, weight * difference, 0.0))
    sign = where(sum(terms) >= 0.0, 1.0, -1.0)
    agreeing = [maximum(term * sign, 0.0) for term in terms]
    divisor = sum(where(term > 0.0, weight, 0.0) for term, weight in zip(agreeing, weights, strict=True))
    return x[0] + scale * (sum(agreeing) * sign) / where(divisor == 0.0, 1.0, divisor)


METHODS: dict[str, Method] = {"slerp": slerp, "linear": linear, "ties": ties, "dare_ties": dare_ties}


if __name__ == "__main__":
    main()
