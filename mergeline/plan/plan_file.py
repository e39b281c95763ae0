"""A plan as JSON: in the model's directory, between processes, and on the Hub."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from mergeline.plan.merge_plan import MergePlan

PLAN_NAME = "mergeline_plan.json"


_PLAN = TypeAdapter(MergePlan)


def plan_json(plan: MergePlan) -> str:
    """Render a plan as JSON."""
    return _PLAN.dump_json(plan, indent=1).decode()


def read_plan(path: Path) -> MergePlan:
    """Read a plan back from a file."""
    return parse_plan(path.read_bytes())


def parse_plan(content: bytes) -> MergePlan:
    """Read a plan back from JSON."""
    return _PLAN.validate_json(content)
