"""What every merge method says of itself, and how it merges one tensor.

A method never holds a tensor: it asks a tensor's inputs for sums and cuts and has the result written by a formula of
the values of one element (``_kernels/README.md``). So memory depends on the block for every method, it runs on CPU and
GPU alike, and a new method needs no change to the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mergeline.methods._kernels.tensor_inputs import TensorInputs

Number = float | bool


class BaseModelRule(Enum):
    """What a method does with ``base_model``."""

    FIRST_INPUT = "first input"
    """Required, and the first of the models merged: what the interpolation starts from."""
    ORIGIN = "origin"
    """Required, and not one of the models merged: their differences from it are."""
    OPTIONAL_ORIGIN = "optional origin"
    """As ``ORIGIN`` where it is given; without it the models themselves are merged."""
    DONOR = "donor"
    """Not part of the arithmetic; gives config, tokenizer and vocabulary."""


@dataclass(frozen=True)
class Parameter:
    """One number that a method reads from the recipe."""

    name: str
    per_model: bool = False
    """True: each model has its own; False: one for the output tensor."""
    default: Number | None = None
    """Used where the recipe is silent; None: the recipe must give it."""
    low: float | None = None
    """Smallest value allowed; None: unbounded."""
    high: float | None = None
    """Largest value allowed; None: unbounded."""


@dataclass(frozen=True)
class TensorSettings:
    """The resolved numbers for one output tensor."""

    name: str
    """Of the output tensor."""
    shape: tuple[int, ...]
    shared: Mapping[str, Number]
    per_model: tuple[Mapping[str, Number], ...]
    """One per input. An origin comes first and has none."""
    has_origin: bool = False
    """Whether the first input is what the others' differences are taken from."""

    def numbers(self, parameter: str) -> list[float]:
        """Return a per-model parameter of the models merged, in their order."""
        return [float(numbers[parameter]) for numbers in self.per_model[1 if self.has_origin else 0 :]]


class MergeMethod(ABC):
    """One way to merge; stateless."""

    name: ClassVar[str]
    """As written after ``merge_method:``."""
    parameters: ClassVar[tuple[Parameter, ...]]
    base_model: ClassVar[BaseModelRule]
    min_models: ClassVar[int]
    """Models merged at the least; an origin does not count."""
    max_models: ClassVar[int | None] = None
    """None: any number."""

    def problem(self, settings: TensorSettings) -> str | None:
        """Say, at plan time, why these numbers cannot be merged; None if they can."""
        del settings
        return None

    def describe_branches(self, branches: Sequence[str]) -> str | None:
        """Say in a sentence which cases of the formula were taken; None where there is nothing to say.

        Args:
            branches: What :meth:`merge` returned for every tensor.
        """
        del branches
        return None

    def branch_metrics(self, branches: Sequence[str]) -> dict[str, float]:
        """Return what to chart of the cases taken: name -> number."""
        del branches
        return {}

    @abstractmethod
    def merge(self, inputs: TensorInputs[Any], settings: TensorSettings) -> str:
        """Merge one output tensor: take what sums it needs of the inputs, then :meth:`.TensorInputs.merge` once.

        Returns:
            Which case of the formula was taken, for the record of the merge; empty where there is only one.
        """
