"""Records on their way to MLflow: each lies whole in the state directory until MLflow has all of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mergeline.errors import MergelineError, OutputError, TrackingError
from mergeline.support.digests import digest
from mergeline.support.durable import in_turn, sync_directory, write_whole
from mergeline.support.state import state_folder
from mergeline.tracking.record import MergeRecord, parse_record, record_json
from mergeline.tracking.runs import TrackedRun, record_merge
from mergeline.tracking.store import PATIENCE_SECONDS, TrackingSettings


class _Destination(BaseModel):
    """Where a record goes: the first line of its file. A server's user name and password are not in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    address: str
    experiment: str
    name: str


@dataclass(frozen=True)
class WaitingRecord:
    """A record that MLflow does not have yet."""

    path: Path
    name: str
    address: str
    experiment: str


@dataclass(frozen=True)
class Replayed:
    """What became of one waiting record."""

    record: WaitingRecord
    run: TrackedRun | None
    problem: str | None
    """Why it still waits; None: it was sent."""


def outbox_directory() -> Path:
    """Return where records wait; it may not exist yet."""
    return state_folder("tracking")


def keep_record(settings: TrackingSettings, record: MergeRecord) -> Path:
    """Write a record to disk, over an earlier one of the same merge, and return where it waits."""
    directory = outbox_directory()
    directory.mkdir(parents=True, exist_ok=True)
    identity = digest([settings.address, settings.experiment, record.manifest.plan_digest])[:12]
    path = directory / f"{re.sub(r'[^A-Za-z0-9._=-]+', '-', record.name)[:60]}-{identity}.json"
    destination = _Destination(address=settings.address, experiment=settings.experiment, name=record.name)
    write_whole(path, f"{destination.model_dump_json()}\n{record_json(record)}\n")
    return path


def send_record(path: Path, settings: TrackingSettings | None = None) -> TrackedRun:
    """Send a waiting record, and remove it once MLflow has all of it.

    Args:
        path: From :func:`keep_record`.
        settings: The store it was kept for; None: by the address in it, which holds no password.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: MLflow does not answer or refused a record, or another process has just sent this one.
    """
    # One record at a time, so that none is sent twice.
    problem = TrackingError(f"{path.parent}: another process is still sending records; {path.name} waits.")
    with in_turn(path.parent / ".lock", 2 * PATIENCE_SECONDS, problem):
        if not path.exists():
            raise TrackingError(f"{path.name}: another process has sent this record.")
        line, _, text = path.read_bytes().partition(b"\n")
        if settings is None:
            destination = _destination(line, path)
            settings = _with_password(TrackingSettings(destination.address, destination.experiment))
        run = record_merge(settings, parse_record(text, str(path)))
        path.unlink()
        sync_directory(path.parent)
    return run


def waiting_records() -> list[WaitingRecord]:
    """Return the records that MLflow does not have yet, oldest first."""
    paths = sorted(outbox_directory().glob("[!.]*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    found: list[WaitingRecord] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                destination = _destination(file.readline(), path)
        except (OutputError, FileNotFoundError):
            # Not one of ours, or sent a moment ago: whoever tries to send it is told.
            destination = _Destination(address="", experiment="", name=path.name)
        found.append(WaitingRecord(path, destination.name, destination.address, destination.experiment))
    return found


def replay() -> list[Replayed]:
    """Send every waiting record; one that cannot be sent keeps no other back."""
    results: list[Replayed] = []
    for record in waiting_records():
        try:
            results.append(Replayed(record, send_record(record.path), None))
        except MergelineError as error:
            results.append(Replayed(record, None, str(error)))
    return results


def _destination(line: bytes, path: Path) -> _Destination:
    try:
        return _Destination.model_validate_json(line)
    except ValidationError:
        raise OutputError(f"{path}: is not a record to be sent to MLflow; move it elsewhere.") from None


def _with_password(settings: TrackingSettings) -> TrackingSettings:
    """Take the address with its password from the environment, where it is of the same server."""
    here = TrackingSettings(os.environ.get("MLFLOW_TRACKING_URI") or settings.uri, settings.experiment)
    return here if here.address.rstrip("/") == settings.address.rstrip("/") else settings
