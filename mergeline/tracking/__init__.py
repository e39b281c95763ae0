"""Everything MLflow: one run per merge plan, found again by the plan's digest."""

from __future__ import annotations

from mergeline.tracking.runs import TrackedRun, fail_run, open_run, record_merge
from mergeline.tracking.store import TrackingSettings

__all__ = ["TrackedRun", "TrackingSettings", "fail_run", "open_run", "record_merge"]
