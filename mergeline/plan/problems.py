"""What stands in the way of a plan, and what was decided on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ProblemKind = Literal["shape", "missing", "other"]


@dataclass
class Problems:
    """What stands in the way of a plan, and what was decided on the way; collected so that all is told at once."""

    found: list[tuple[ProblemKind, str]] = field(default_factory=list[tuple[ProblemKind, str]])
    notes: list[str] = field(default_factory=list[str])

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, line: str, kind: ProblemKind = "other") -> None:
        if (kind, line) not in self.found:
            self.found.append((kind, line))

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)
