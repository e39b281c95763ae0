"""Parse ``evaluate.dataset``: a file, a Hub dataset or the built-in generator, with a selection of its questions.

    questions.jsonl
    my-hf-username/spartqa-train-1k
    tasksource/spartqa-mchoice@main?shuffle=9163&take=1000
    directions?seed=7&take=500

``shuffle`` and ``take`` select questions as ``datasets.Dataset.shuffle(seed).select(range(n))`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.directions import DEMONSTRATION_SEED, make_questions
from mergeline.evaluation.questions.four_choice import Row

GENERATED = "directions"
"""The name of :mod:`mergeline.evaluation.questions.directions` as a dataset."""

_DEFAULT_COUNT = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetReference:
    """A dataset's name with a selection of its questions."""

    name: str
    """A path, a Hub dataset id, or ``directions``."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    shuffle: int | None = None
    """Seed of the permutation that is applied first; None: the data's own order."""
    take: int | None = None
    """Number of questions, from the first; None: all."""
    seed: int | None = None
    """Seed of the generator; None: ``DEMONSTRATION_SEED``."""

    @property
    def is_generated(self) -> bool:
        return self.name == GENERATED

    def select(self, rows: Sequence[T]) -> list[T]:
        """Return the selected rows, in order.

        Raises:
            EvaluationInputError: fewer rows than ``take``.
        """
        import numpy

        selected = list(rows)
        if self.shuffle is not None:
            selected = [selected[index] for index in numpy.random.default_rng(self.shuffle).permutation(len(selected))]
        if self.take is not None and self.take > len(selected):
            raise EvaluationInputError(
                f"Dataset {self.name}: take={self.take}, but it holds {len(selected)} questions; take fewer."
            )
        return selected[: self.take]

    def generate(self) -> list[Row]:
        """Generate the questions of the built-in generator."""
        seed = DEMONSTRATION_SEED if self.seed is None else self.seed
        return make_questions(_DEFAULT_COUNT if self.take is None else self.take, seed)


def parse_dataset(dataset: str) -> DatasetReference:
    """Parse a dataset's name and the selection of its questions.

    Raises:
        EvaluationInputError: an option is unknown or not a whole number.
    """
    if Path(dataset).expanduser().exists():
        return DatasetReference(dataset)
    name, _, query = dataset.partition("?")
    name, _, revision = name.partition("@")
    options: dict[str, int] = {}
    allowed = ("seed", "take") if name == GENERATED else ("shuffle", "take")
    for option in filter(None, query.split("&")):
        key, _, value = option.partition("=")
        if key not in allowed or not value.isdecimal() or (key == "take" and int(value) == 0):
            expected = " or ".join(f"{name}=NUMBER" for name in allowed)
            raise EvaluationInputError(
                f"Dataset {dataset!r}: cannot read {option!r}; expected {expected}, joined by `&`, after a `?`."
            )
        options[key] = int(value)
    return DatasetReference(name, revision or None, options.get("shuffle"), options.get("take"), options.get("seed"))
