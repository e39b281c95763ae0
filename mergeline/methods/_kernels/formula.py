"""A merge method's formula, written once as a Python function and recorded as a list of operations.

A formula is called with stand-ins for the values of one element. Every operation on a stand-in is noted; the list is
then compiled into a loop for the CPU (:mod:`.cpu`) or carried out on whole tensors by torch (:mod:`.gpu`). Both do the
same IEEE operations in the same order, so both give the same bits. What a formula can use:

    +  -  *  /  abs()  unary -      arithmetic in float32 (float64 for float32 results, or where a tensor is float64)
    <  <=  >  >=  ==  !=  &  |  ~   truth values
    where(condition, a, b), sqrt(a), maximum(a, b), minimum(a, b), single(a)

Python's own ``if``, ``for``, ``sum`` and ``zip`` work on what is known when the formula is recorded (how many models,
which options), not on values of elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    # A plan knows every method and needs no numpy.
    import numpy as np

_TRUTHS = {"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "mask"}

Operand: TypeAlias = int | float
"""An operation's argument: the index of an earlier operation, or the constant of a ``constant``."""


@dataclass(frozen=True)
class Operation:
    """One step of a program."""

    kind: str
    """``input``, ``mask``, ``number``, ``count``, ``position`` or ``constant``, else the operation's name."""
    operands: tuple[Operand, ...] = ()
    """Indices of earlier operations; of an input, mask, number or count its own index; a constant's value."""

    @property
    def is_truth(self) -> bool:
        return self.kind in _TRUTHS

    @property
    def is_leaf(self) -> bool:
        return self.kind in ("input", "mask", "number", "count", "position", "constant")


@dataclass(frozen=True)
class Program:
    """A recorded formula."""

    operations: tuple[Operation, ...]
    results: tuple[int, ...]
    """Which operations' values the formula returned."""
    input_count: int
    mask_count: int
    number_count: int
    count_count: int

    def then(self, other: Program) -> Program:
        """Return one program with the results of both, over the same inputs and arguments."""
        shift = len(self.operations)

        def shifted(operation: Operation) -> Operation:
            if operation.is_leaf:
                return operation
            return Operation(operation.kind, tuple(int(operand) + shift for operand in operation.operands))

        return dataclasses.replace(
            self,
            operations=self.operations + tuple(map(shifted, other.operations)),
            results=self.results + tuple(result + shift for result in other.results),
        )


class Value:
    """Stands for one quantity while a formula is recorded."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, recording: Recording, index: int) -> None:
        self.recording, self.index = recording, index

    def __add__(self, other: Term) -> Value:
        return self.recording.note("add", self, other)

    def __radd__(self, other: Term) -> Value:
        # sum() begins with the integer 0; adding it would turn a negative zero into a positive one.
        return self if isinstance(other, int) and other == 0 else self.recording.note("add", other, self)

    def __sub__(self, other: Term) -> Value:
        return self.recording.note("sub", self, other)

    def __rsub__(self, other: Term) -> Value:
        return self.recording.note("sub", other, self)

    def __mul__(self, other: Term) -> Value:
        return self.recording.note("mul", self, other)

    def __rmul__(self, other: Term) -> Value:
        return self.recording.note("mul", other, self)

    def __truediv__(self, other: Term) -> Value:
        return self.recording.note("div", self, other)

    def __rtruediv__(self, other: Term) -> Value:
        return self.recording.note("div", other, self)

    def __neg__(self) -> Value:
        return self.recording.note("neg", self)

    def __abs__(self) -> Value:
        return self.recording.note("abs", self)

    def __lt__(self, other: Term) -> Value:
        return self.recording.note("lt", self, other)

    def __le__(self, other: Term) -> Value:
        return self.recording.note("le", self, other)

    def __gt__(self, other: Term) -> Value:
        return self.recording.note("gt", self, other)

    def __ge__(self, other: Term) -> Value:
        return self.recording.note("ge", self, other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self.recording.note("eq", self, other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return self.recording.note("ne", self, other)

    def __and__(self, other: Value) -> Value:
        return self.recording.note("and", self, other)

    def __or__(self, other: Value) -> Value:
        return self.recording.note("or", self, other)

    def __invert__(self) -> Value:
        return self.recording.note("not", self)

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula asked whether a tensor's value is true; elements differ, so write "
            "where(condition, a, b) instead of `if`, and & | ~ instead of `and`, `or`, `not`."
        )


Term: TypeAlias = Value | float


def where(condition: Value, a: Term, b: Term) -> Value:
    """Return ``a`` where the condition holds and ``b`` elsewhere."""
    return condition.recording.note("where", condition, a, b)


def sqrt(a: Value) -> Value:
    """Return the square root."""
    return a.recording.note("sqrt", a)


def single(a: Value) -> Value:
    """Round to float32, which changes nothing unless the arithmetic is in float64."""
    return a.recording.note("single", a)


def maximum(a: Term, b: Term) -> Value:
    """Return the larger of two; ``b`` where they cannot be compared."""
    return where(_value(a, b) > b if isinstance(a, Value) else _value(a, b) < a, a, b)


def minimum(a: Term, b: Term) -> Value:
    """Return the smaller of two; ``b`` where they cannot be compared."""
    return where(_value(a, b) < b if isinstance(a, Value) else _value(a, b) > a, a, b)


def _value(a: Term, b: Term) -> Value:
    found = a if isinstance(a, Value) else b
    if not isinstance(found, Value):
        raise TypeError(f"one of {a!r} and {b!r} must be a value of the tensor; use Python's max and min on numbers.")
    return found


@dataclass(frozen=True)
class Keep:
    """Each element with the same probability: True in a formula where an element is kept."""

    key: tuple[int, int]
    """Names the random stream: two words of 64 bits."""
    probability: float


@dataclass(frozen=True)
class Arguments:
    """What a recorded formula is run with, in the order in which the recording met it."""

    numbers: tuple[float | np.ndarray[Any, np.dtype[np.float64]], ...]
    """One value each, or one per row."""
    counts: tuple[int, ...]
    """Positions in the tensor."""
    masks: tuple[Keep, ...]


class Recording:
    """The list of operations a formula makes while it is called once."""

    def __init__(self) -> None:
        """Begin with nothing noted."""
        self.operations: list[Operation] = []
        self._known: dict[Operation, int] = {}
        self.numbers: list[Any] = []
        self.counts: list[int] = []
        self.masks: list[Keep] = []

    def note(self, kind: str, *terms: object) -> Value:
        """Note an operation on values and constants, once however often it is asked for."""
        return self.leaf(kind, *(self._operand(term) for term in terms))

    def leaf(self, kind: str, *operands: Operand) -> Value:
        """Note an operation by its operands' indices, or an input, argument or constant."""
        # A negative zero equals a positive one, so constants are told apart by their text.
        operation = Operation(kind, operands)
        key = Operation(kind, (repr(operands),)) if kind == "constant" else operation  # type: ignore[arg-type]
        if key not in self._known:
            self._known[key] = len(self.operations)
            self.operations.append(operation)
        return Value(self, self._known[key])

    def _operand(self, term: object) -> int:
        if isinstance(term, Value):
            if term.recording is not self:
                raise TypeError("a formula used a value of another formula; pass it in as an argument.")
            return term.index
        if isinstance(term, (int, float)):
            return self.leaf("constant", float(term)).index
        raise TypeError(f"a formula used {term!r}; values of the tensor combine with each other and with numbers only.")

    def argument(self, value: Any) -> Any:
        """Replace the numbers in an argument by stand-ins; options (bool, str, None) stay as they are."""
        if isinstance(value, Keep):
            self.masks.append(value)
            return self.leaf("mask", len(self.masks) - 1)
        if isinstance(value, (bool, str)) or value is None:
            return value
        if isinstance(value, int):
            self.counts.append(value)
            return self.leaf("count", len(self.counts) - 1)
        if isinstance(value, float) or hasattr(value, "dtype"):
            self.numbers.append(value)
            return self.leaf("number", len(self.numbers) - 1)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return dataclasses.replace(value, **{name: self.argument(field) for name, field in fields.items()})
        if isinstance(value, (tuple, list)):
            return tuple(self.argument(element) for element in value)
        raise TypeError(f"a formula cannot take {value!r}; pass floats, positions (int), options, or tuples of them.")


Formula: TypeAlias = Callable[..., Any]
"""Called with the tuple of input values and the arguments by name; returns a value or a sequence of values."""


def record(formula: Formula, input_count: int, **arguments: object) -> tuple[Program, Arguments]:
    """Call a formula once with stand-ins and return what it does.

    Args:
        formula: The function.
        input_count: How many tensors are merged, the base model included.
        arguments: By name. Floats become numbers of the program (so that one compiled loop serves all of them),
            arrays numbers per row, integers positions, a :class:`Keep` a truth value; bool, str and None are options
            fixed in the program. Tuples and dataclasses of these are taken apart.

    Raises:
        TypeError: If the formula branches on an element's value, or returns something else than values.
    """
    recording = Recording()
    inputs = tuple(recording.leaf("input", index) for index in range(input_count))
    returned = formula(inputs, **{name: recording.argument(value) for name, value in arguments.items()})
    values: Sequence[Any] = [returned] if isinstance(returned, Value) else list(returned)
    for value in values:
        if not isinstance(value, Value) or recording.operations[value.index].is_truth:
            raise TypeError(f"a formula must return values to be written or added up, not {value!r}.")
    program = Program(
        tuple(recording.operations), tuple(value.index for value in values), input_count, len(recording.masks),
        len(recording.numbers), len(recording.counts),
    )  # fmt: skip
    return program, Arguments(tuple(recording.numbers), tuple(recording.counts), tuple(recording.masks))
