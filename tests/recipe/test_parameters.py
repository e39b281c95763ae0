from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeline.methods import METHODS, Parameter
from mergeline.plan.numbers import resolve
from mergeline.recipe.parameters import flat_parameters, gradient_position, interpolate
from mergeline.recipe.recipe import Parameters, read_recipe

numbers = st.floats(-1e6, 1e6)


def settings(text: str) -> Parameters:
    return read_recipe(f"merge_method: slerp\nmodels: [{{model: a}}]\nparameters:\n  {text}\n").parameters


@given(st.lists(numbers, min_size=1, max_size=9), st.floats(0, 1))
def test_gradient_is_piecewise_linear_as_numpy_interpolates(values: list[float], position: float) -> None:
    expected = np.interp(position * (len(values) - 1), range(len(values)), values)
    assert interpolate(values, position) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_missions_gradient_in_layer_k_stands_at_4k_of_31() -> None:
    # Layer 31 of 32 is the end; layer 8 stands at 4 * 8 / 31 = 1.032 of the five values' four intervals.
    values = (0, 0.5, 0.3, 0.7, 1)
    assert interpolate(values, gradient_position(31, 32)) == 1
    assert interpolate(values, gradient_position(8, 32)) == pytest.approx(0.5 + (32 / 31 - 1) * (0.3 - 0.5))


def test_the_only_layer_of_a_slice_takes_the_last_value() -> None:
    assert interpolate((0, 1), gradient_position(0, 1)) == 1


def test_flags_switch_instead_of_being_interpolated() -> None:
    assert [interpolate((True, False), position) for position in (0.0, 0.9, 1.0)] == [True, True, False]


def test_first_matching_filter_wins_and_a_scope_without_one_passes_on() -> None:
    t = METHODS["slerp"].parameters[0]
    particular = settings("t: [{filter: mlp, value: 0.1}]")
    general = settings("t: [{filter: self_attn, value: 0.2}, {filter: self, value: 0.3}, {value: 0.4}]")
    found = [resolve(t, (particular, general), name, 0.0) for name in ("x.mlp.w", "x.self_attn.w", "x.self.w", "norm")]
    assert found == [0.1, 0.2, 0.3, 0.4]


def test_star_matches_everything() -> None:
    assert resolve(Parameter("t"), (settings("t: [{filter: '*', value: 0.7}]"),), "norm", 0.0) == 0.7


def test_number_written_without_a_dot_is_a_number() -> None:
    # YAML 1.1 reads 1e-5 as text.
    assert resolve(Parameter("t"), (settings("t: 1e-5"),), "norm", 0.0) == 1e-5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("t: half", "`t` must be a number, found 'half'"),
        ("t: true", "`t` must be a finite number, found True"),
        ("t: .nan", "`t` must be a finite number, found nan"),
        ("t: 1.5", r"`t` must lie in \[0, 1\], found 1.5"),
        ("t: [0, 2]", r"`t` must lie in \[0, 1\], found 2"),
        ("x: 1", "`t` is required and nothing sets it for 'norm'"),
    ],
)
def test_what_is_no_number_in_range_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        resolve(METHODS["slerp"].parameters[0], (settings(text),), "norm", 0.0)


def test_flat_parameters_keep_numbers_as_numbers() -> None:
    recipe = read_recipe(
        "merge_method: linear\nmodels:\n"
        "  - {model: a, parameters: {weight: 0.25}}\n"
        "  - {model: b, parameters: {weight: [{filter: mlp, value: [0, 1]}, {value: 2}]}}\n"
        "parameters: {normalize: false}\n"
    )
    assert flat_parameters(recipe) == {
        "normalize": False, "weight.0": 0.25, "weight.1.mlp": "0, 1", "weight.1.others": 2,
    }  # fmt: skip
