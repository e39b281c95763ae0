"""Records on their way to MLflow: files in the state directory, removed once MLflow has all of their content."""

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
    """First line of a record's file: where the record goes, without the server's user name and password."""

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
    """Outcome of sending a waiting record."""

    record: WaitingRecord
    run: TrackedRun | None
    problem: str | None
    """Why it was not sent; None: it was."""


def outbox_directory() -> Path:
    """Return the folder of waiting records; it may not exist yet."""
    return state_folder("tracking")


def keep_record(settings: TrackingSettings, record: MergeRecord) -> Path:
    """Write a record to disk, in place of an earlier record of the same merge, and return its path."""
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
        settings: The store to send to; None: the address in the file, with the password of ``$MLFLOW_TRACKING_URI`` if
            that is the same server.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: MLflow does not answer or refused a record, or another process has just sent this one.
    """
    # The lock keeps two processes from sending the same record.
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
    records: list[WaitingRecord] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                destination = _destination(file.readline(), path)
        except (OutputError, FileNotFoundError):
            # Not a record, or sent a moment ago: send_record says which.
            destination = _Destination(address="", experiment="", name=path.name)
        records.append(WaitingRecord(path, destination.name, destination.address, destination.experiment))
    return records


def replay() -> list[Replayed]:
    """Send every waiting record; go on with the next where one cannot be sent."""
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
    """Return the settings with the address in the environment, which has the password, if it is the same server."""
    here = TrackingSettings(os.environ.get("MLFLOW_TRACKING_URI") or settings.uri, settings.experiment)
    return here if here.address.rstrip("/") == settings.address.rstrip("/") else settings
