"""From a recorded formula to the source of a loop over a tensor, ready to be compiled by numba.

The text is plain: one assignment per operation of the program, in the order in which they were recorded, inside loops
whose shape depends on what is wanted of the results: written, summed, or counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mergeline.methods._kernels.formula import Operation, Program
from mergeline.methods._kernels.summation import LANES, RUN

STORED = {"BF16": "u2", "F16": "u2", "F32": "f4", "F64": "f8"}
"""safetensors' name of a dtype -> numpy's name of what holds its bits."""

LOW_BITS = 15
"""Of a float32 magnitude's 31 bits, those counted in the second look; the 16 above are counted in the first."""

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==",
    "ne": "!=", "and": "&", "or": "|",
}  # fmt: skip


@dataclass(frozen=True)
class LoopSource:
    """A loop and the types of its arguments."""

    text: str
    """A module that defines ``loop``."""
    signature: tuple[str, ...]
    """numba's names of the arguments' types."""


def is_double(inputs: Sequence[str], output: str) -> bool:
    """Whether the arithmetic is in float64: where a tensor is stored as that, or the result is written as float32.

    A float32 result is then the exact value rounded once; in float32 arithmetic every step would leave its error in it.
    """
    return "F64" in inputs or output in ("F32", "F64")


def write_source(program: Program, inputs: Sequence[str], output: str) -> LoopSource:
    """Write the first result, rounded to ``output``, and add up the others."""
    real = "float64" if is_double(inputs, output) else "float32"
    return _streaming_source(program, inputs, real, output)


def sums_source(program: Program, inputs: Sequence[str], *, double: bool) -> LoopSource:
    """Add up all results."""
    return _streaming_source(program, inputs, "float64" if double else "float32", None)


def _streaming_source(program: Program, inputs: Sequence[str], real: str, output: str | None) -> LoopSource:
    summed = program.results[1:] if output else program.results
    lines = ["for row in range(rows):", *_indented(_numbers(program))]
    if not summed:
        lines += _indented(_slices(program, "row * length", "(row + 1) * length", output))
        lines += _indented(["for k in range(a0.size):", *_indented(_element(program, inputs, real, output, ()))])
    else:
        lines += _indented(["for start in range(row * length, (row + 1) * length, RUN):"])
        run = _slices(program, "start", "min(start + RUN, (row + 1) * length)", output)
        run += ["lanes[:] = 0", "steps = a0.size // LANES"]
        run += ["for step in range(steps):", "    for lane in range(LANES):", "        k = step * LANES + lane"]
        run += _indented(_element(program, inputs, real, output, summed), 2)
        run += ["for lane in range(a0.size - steps * LANES):", "    k = steps * LANES + lane"]
        run += _indented(_element(program, inputs, real, output, summed))
        run += [f"totals[row, {i}] += add_lanes(lanes[{i}], halves)" for i in range(len(summed))]
        lines += _indented(run, 2)
    head = ["rows = numbers.shape[0]", "length = x0.size // rows"]
    foot: list[str] = []
    if output:
        head.append("bad = uint32(0)")
        foot.append("not_finite[0] += bad")
    letter = "f8" if real == "float64" else "f4"
    arguments = _inputs(program, inputs, letter)
    if output:
        arguments |= {"out": f"{STORED[output]}[::1]", "not_finite": "i8[::1]"}
    arguments |= {"lanes": f"{letter}[:,::1]", "halves": "f8[::1]", "totals": "f8[:,::1]"}
    return _module(arguments, [*head, *lines, *foot])


def count_source(program: Program, inputs: Sequence[str], *, double: bool) -> LoopSource:
    """Count the results' magnitudes by their bits, or find the place of one; see :mod:`.selection`."""
    real = "float64" if double else "float32"
    n = len(program.results)
    element = _element(program, inputs, real, None, ())
    element += [
        f"bits[{i}, k] = bits_of(float32(v{result})) & uint32(0x7FFFFFFF)" for i, result in enumerate(program.results)
    ]
    lines = [
        "row = 0",
        *_numbers(program),
        "for start in range(0, x0.size, RUN):",
        *_indented(_slices(program, "start", "min(start + RUN, x0.size)", None)),
        "    for k in range(a0.size):",
        *_indented(element, 2),
        f"    for i in range({n}):",
        "        magnitudes = bits[i, : a0.size]",
        "        tallies = counts[i]",
        "        if look == 0:",
        "            count_high(magnitudes, tallies)",
        "        elif look == 1:",
        "            count_low(magnitudes, uint32(keys[i]), tallies)",
        "        elif places[i] < 0:",
        "            at = find_equal(magnitudes, uint32(keys[i]), tallies)",
        "            if at >= 0:",
        "                places[i] = offset + start + at",
    ]
    arguments = _inputs(program, inputs, "f8" if double else "f4")
    arguments |= {"look": "i8", "offset": "i8", "keys": "i8[::1]", "bits": "u4[:,::1]", "counts": "i8[:,::1]",
                  "places": "i8[::1]"}  # fmt: skip
    return _module(arguments, lines)


def keep_source() -> LoopSource:
    """Draw which elements are kept, see :func:`.loops.keep`."""
    arguments = {"key0": "u8", "key1": "u8", "start": "i8", "bound": "u4", "kept": "u1[::1]"}
    return _module(arguments, ["keep(key0, key1, start, bound, kept)"])


def _inputs(program: Program, inputs: Sequence[str], letter: str) -> dict[str, str]:
    arguments = {f"x{i}": f"{STORED[dtype]}[::1]" for i, dtype in enumerate(inputs)}
    arguments |= {f"m{i}": "u1[::1]" for i in range(program.mask_count)}
    return arguments | {"numbers": f"{letter}[:,::1]", "positions": "i8[::1]"}


def _numbers(program: Program) -> list[str]:
    lines = [f"n{i} = numbers[row, {i}]" for i in range(program.number_count)]
    return lines + [f"p{i} = int32(positions[{i}])" for i in range(program.count_count)]


def _slices(program: Program, start: str, stop: str, output: str | None) -> list[str]:
    # A loop from 0 over a slice is vectorized; one that begins elsewhere is guarded against negative indices.
    names = [(f"a{i}", f"x{i}") for i in range(program.input_count)]
    names += [(f"b{i}", f"m{i}") for i in range(program.mask_count)]
    names += [("o", "out")] if output else []
    lines = [f"begin = {start}", f"end = {stop}"]
    return lines + [f"{part} = {whole}[begin:end]" for part, whole in names]


def _element(
    program: Program, inputs: Sequence[str], real: str, output: str | None, summed: Sequence[int]
) -> list[str]:
    lines = [f"v{i} = {_expression(op, inputs, real)}" for i, op in enumerate(program.operations)]
    if output:
        value = f"v{program.results[0]}"
        if real == "float64" and output in ("BF16", "F16"):
            value = f"odd_f32({value})"
        lines += [f"w = to_{output.lower()}({value})", "o[k] = w", f"bad = uint32(bad + is_bad_{output.lower()}(w))"]
    return lines + [f"lanes[{i}, lane] += v{result}" for i, result in enumerate(summed)]


def _expression(operation: Operation, inputs: Sequence[str], real: str) -> str:
    kind, operands = operation.kind, operation.operands
    match kind:
        case "input":
            return f"{real}(from_{inputs[int(operands[0])].lower()}(a{operands[0]}[k]))"
        case "mask":
            return f"b{operands[0]}[k] != 0"
        case "number":
            return f"n{operands[0]}"
        case "count":
            return f"p{operands[0]}"
        case "position":
            return "int32(begin + k)"
        case "constant":
            return f"{real}({operands[0]!r})"
        case "neg":
            return f"-v{operands[0]}"
        case "abs":
            return f"abs(v{operands[0]})"
        case "not":
            return f"not v{operands[0]}"
        case "sqrt":
            return f"{real}(sqrt(v{operands[0]}))"
        case "single":
            return f"{real}(float32(v{operands[0]}))"
        case "where":
            return "v{1} if v{0} else v{2}".format(*operands)
        case _:
            return f"v{operands[0]} {_INFIX[kind]} v{operands[1]}"


def _indented(lines: Sequence[str], levels: int = 1) -> list[str]:
    return ["    " * levels + line for line in lines]


def _module(arguments: dict[str, str], body: Sequence[str]) -> LoopSource:
    text = (
        "from math import inf, nan, sqrt\n"
        "from numpy import float32, float64, int32, uint32\n"
        "from mergeline.methods._kernels.rounding import *\n"
        "from mergeline.methods._kernels.loops import *\n"
        f"LANES = {LANES}\nRUN = {RUN}\n\n\n"
        f"def loop({', '.join(arguments)}):\n" + "\n".join(_indented(body)) + "\n"
    )
    return LoopSource(text, tuple(arguments.values()))
