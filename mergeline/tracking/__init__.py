"""Everything MLflow: one run per merge plan, found again by the plan's digest."""

from __future__ import annotations

from mergeline.tracking.outbox import keep_record, replay, send_record, waiting_records
from mergeline.tracking.record import MergeRecord
from mergeline.tracking.runs import TrackedRun, fail_run, open_run, record_merge
from mergeline.tracking.store import TrackingSettings

__all__ = [
    "MergeRecord",
    "TrackedRun",
    "TrackingSettings",
    "fail_run",
    "keep_record",
    "open_run",
    "record_merge",
    "replay",
    "send_record",
    "waiting_records",
]
