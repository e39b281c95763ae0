"""Why a recipe and its checkpoints cannot be planned, and what was decided where the recipe is silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ProblemKind = Literal["shape", "missing", "other"]


@dataclass
class Problems:
    """Problems and notes, collected during planning so that all are reported together; true if there is a problem."""

    kinds: dict[str, ProblemKind] = field(default_factory=dict[str, ProblemKind])
    """Line that the user reads -> kind, in the order of discovery."""
    notes: dict[str, None] = field(default_factory=dict[str, None])
    """Sentences for the plan, in the order of discovery."""

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def add(self, line: str, kind: ProblemKind = "other") -> None:
        self.kinds.setdefault(line, kind)

    def note(self, sentence: str) -> None:
        self.notes[sentence] = None
