from __future__ import annotations

from typing import Any

import pytest

from mergeline.methods._kernels.formula import Keep, record, where
from mergeline.methods._kernels.source import write_source
from tests.methods.formulas import chord, scaled


def test_numbers_are_arguments_and_options_are_not() -> None:
    def formula(x: Any, weights: Any, is_doubled: bool, kept: Any, place: Any) -> Any:
        total = sum(w * v for w, v in zip(weights, x, strict=True))
        position = total.recording.leaf("position")
        return where(kept & (position < place), total * 2.0 if is_doubled else total, 0.0)

    keep = Keep((1, 2), 0.5)
    program, arguments = record(formula, 2, weights=(0.25, 0.75), is_doubled=True, kept=keep, place=7)
    assert (arguments.numbers, arguments.counts, arguments.masks) == ((0.25, 0.75), (7,), (keep,))
    again, _ = record(formula, 2, weights=(0.1, 0.2), is_doubled=True, kept=keep, place=9)
    other, _ = record(formula, 2, weights=(0.1, 0.2), is_doubled=False, kept=keep, place=9)
    assert program == again
    assert program != other


def test_the_same_operation_is_done_once() -> None:
    program, _ = record(lambda x: [(x[0] - x[1]) * (x[0] - x[1]), x[0] - x[1]], 2)
    assert [operation.kind for operation in program.operations] == ["input", "input", "sub", "mul"]


def test_positive_and_negative_zero_are_different_constants() -> None:
    program, _ = record(lambda x: [x[0] * 0.0, x[0] * -0.0], 1)
    constants = [operation.operands[0] for operation in program.operations if operation.kind == "constant"]
    assert [str(constant) for constant in constants] == ["0.0", "-0.0"]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda x: x[0] if x[0] > 0 else x[1], r"where\(condition, a, b\) instead of `if`"),
        (lambda x: x[0] > 0, "must return values to be written"),
        (lambda x: [1.0], "must return values to be written"),
        (lambda x: x[0] + "1", "combine with each other and with numbers only"),
    ],
)
def test_what_a_formula_cannot_do_is_said_when_it_is_recorded(formula: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        record(formula, 2)


def test_an_argument_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="a formula cannot take"):
        record(scaled, 1, scale=object())


def test_source_is_one_line_per_operation() -> None:
    program, _ = record(chord, 2, t=0.5)
    source = write_source(program, ("BF16", "F16"), "BF16")
    assert "v0 = float32(from_bf16(a0[k]))" in source.text
    assert "v1 = float32(from_f16(a1[k]))" in source.text
    assert source.signature[:3] == ("u2[::1]", "u2[::1]", "f4[:,::1]")
