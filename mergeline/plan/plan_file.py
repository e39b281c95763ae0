"""A plan as JSON: in the model's directory, between processes, and on the Hub."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mergeline.errors import OutputError
from mergeline.plan.merge_plan import MergePlan

PLAN_NAME = "mergeline_plan.json"


_PLAN = TypeAdapter(MergePlan)


def plan_json(plan: MergePlan) -> str:
    """Render a plan as JSON."""
    return _PLAN.dump_json(plan, indent=1).decode()


def read_plan(path: Path) -> MergePlan:
    """Read a plan back from a file; see :func:`parse_plan`."""
    return parse_plan(path.read_bytes(), str(path))


def parse_plan(content: bytes, place: str) -> MergePlan:
    """Read a plan back from JSON; :class:`OutputError` names ``place`` where that is impossible."""
    try:
        return _PLAN.validate_json(content)
    except ValidationError:
        raise OutputError(f"{place}: is not a plan this version can read; merge again into a new place.") from None
