"""An evaluation as it may be published: without paths of one machine, equal whenever the scores are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from mergeline.evaluation.results import EvaluationReport
from mergeline.support.digests import canonical_json


def public_json(report: EvaluationReport) -> str:
    """Render a report as JSON, absolute paths shortened to their names and times left out.

    A second evaluation of the same models gives the same text, so that publishing it again changes nothing.
    """
    return canonical_json(_public(asdict(report)))


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {str(_public(key)): _public(item) for key, item in entries.items() if key != "elapsed_seconds"}
    if isinstance(value, list | tuple):
        return [_public(item) for item in cast("list[Any]", value)]
    if isinstance(value, str) and value.startswith(("/", "~/")) and "\n" not in value:
        return Path(value).name
    return value
