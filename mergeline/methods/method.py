"""What every merge method says of itself, and the arithmetic it gives for one tensor.

A method never holds a tensor: for each output tensor it makes a :class:`Kernel`, and the engine shows that kernel the
inputs in pieces, as often as it asks, before it asks for the result in pieces (:mod:`mergeline.merge.shard`). So memory
depends on the piece for every method, and a new method needs no change to the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from mergeline.methods._kernels.distances import Distances

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


class Kernel(ABC):
    """The arithmetic of one output tensor, shown its inputs piece by piece and always in order.

    Pieces are float32 (float64 where an input is), one per input, on one device, and belong to the kernel once given:
    it may overwrite them. They are flat, or hold whole rows where ``by_rows`` says so.
    """

    passes: int = 0
    """How often all pieces must be seen (:meth:`observe`) before the first can be merged."""
    by_rows: ClassVar[bool] = False
    """Whether pieces are two-dimensional and hold whole rows (the last axis) of the tensor."""

    def observe(self, number: int, pieces: Sequence[Tensor]) -> None:
        """See one piece of every input in pass ``number``, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} announces {self.passes} passes and observes none")

    def end_pass(self, number: int) -> None:
        """Draw the conclusions of pass ``number``; the only place that may wait for a GPU."""
        del number

    def anticipates(self, pieces: Sequence[Tensor]) -> bool:
        """Whether, going by the first piece of every input, the result can be written in the last pass already.

        All pieces are then shown to :meth:`anticipate` instead of :meth:`observe`; they are merged after that pass only
        if it turns out otherwise. The bytes must not depend on the answer.
        """
        del pieces
        return False

    def anticipate(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        """See one piece of every input in the last pass, and write the result expected into ``output``."""
        raise NotImplementedError(f"{type(self).__name__} says that it anticipates and does not")

    @property
    def is_as_anticipated(self) -> bool:
        """Whether what was written in the last pass is the result, once that pass is over."""
        return False

    @abstractmethod
    def merge(self, pieces: Sequence[Tensor], output: Tensor) -> None:
        """Write the merged piece into ``output``, of the pieces' shape and dtype."""

    @property
    def coefficients(self) -> tuple[float, ...] | None:
        """The inputs' weights where the result is a weighted sum of them, once the passes are over."""
        return None

    @property
    def branch(self) -> str:
        """Which case of the formula was taken, for the record of the merge."""
        return ""

    @property
    def distances(self) -> Distances | None:
        """What was measured between the inputs during the passes."""
        return None


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
            branches: :attr:`Kernel.branch` of every tensor merged.
        """
        del branches
        return None

    def branch_metrics(self, branches: Sequence[str]) -> dict[str, float]:
        """Return what to chart of the cases taken: name -> number."""
        del branches
        return {}

    @abstractmethod
    def kernel(self, settings: TensorSettings) -> Kernel:
        """Return the arithmetic for one output tensor."""
