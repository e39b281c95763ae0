"""The MLflow store that runs are written to: a SQLite file of our own, or a server."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from mergeline.errors import InputError, TrackingError, TrackingInputError
from mergeline.support.durable import in_turn
from mergeline.support.secrets import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE_PREFIX = "sqlite:///"
_LOCK_SECONDS = 120

PATIENCE_SECONDS = 60.0
"""How long a client waits for a server in all; what is not written by then is written later."""

_WRONG_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "NOT_FOUND")
_WRONG_REASONS = re.compile(
    r"file is not a database|unable to open database file|readonly database|out-of-date database schema"
    r"|failed with error code 4(0[134])|not in a valid JSON format|Invalid URL|No connection adapters"
)
"""Errors that are the same on every attempt."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # With MLflow's defaults, 120 s and 7 retries, a run waits for minutes for a server that is down.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # MLflow would print the run's link, with any password in the address, to standard output.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


@dataclass(frozen=True)
class TrackingSettings:
    """Where merges are recorded."""

    uri: str
    """``sqlite:///<file>``, or the ``http(s)://`` address of an MLflow server."""
    experiment: str
    """MLflow experiment, made on first use, e.g. ``mergeline/marcoro``."""

    @property
    def database(self) -> Path | None:
        """The SQLite file, absolute, or None when the store is a server."""
        if not self.uri.startswith(_SQLITE_PREFIX):
            return None
        return Path(self.uri.removeprefix(_SQLITE_PREFIX).partition("?")[0]).absolute()

    @property
    def artifacts(self) -> Path | None:
        """The folder beside the database for the runs' files, or None when the store is a server.

        Its absolute path is in MLflow's database; nothing else there depends on the machine.
        """
        return None if self.database is None else self.database.with_name(f"{self.database.stem}-artifacts")

    @property
    def address(self) -> str:
        """The store's address without user name and password, fit for messages."""
        parts = urlsplit(self.uri)
        # Of sqlite:///file, which has no such part, urlunsplit would drop two slashes.
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else self.uri

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))


def require_usable(settings: TrackingSettings) -> None:
    """Raise :class:`TrackingInputError` unless the store is a SQLite file or an MLflow server."""
    if settings.database is None and not settings.is_server:
        raise TrackingInputError(
            f"MLflow store {settings.address!r}: expected sqlite:///<file> or http(s)://<server>; another database "
            "is reached through an MLflow server."
        )


@contextmanager
def opened_store(settings: TrackingSettings) -> Generator[MlflowClient, None, None]:
    """Connect to the store; a SQLite file is locked against other processes meanwhile.

    Args:
        settings: Which store.

    Yields:
        A client; of a server, it starts no request after :data:`PATIENCE_SECONDS`. What MLflow raises in the block is
        raised as an error of ours, in one line.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: The store does not answer, is locked by another process, or refuses a request.
        InputError: MLflow is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError("Tracking needs MLflow, which is not installed: pip install 'mergeline[tracking]'.") from error
    require_usable(settings)
    database = settings.database
    try:
        if database is None:
            yield cast("MlflowClient", _TimeLimited(MlflowClient(settings.uri.rstrip("/")), settings))
        else:
            with _locked(database):
                _initialise(database, settings)
                yield MlflowClient(f"{_SQLITE_PREFIX}{database}")
    except (MlflowException, OSError, sqlite3.Error) as error:
        raise _explained(settings, error) from error


class _TimeLimited:
    """Client proxy that raises TrackingError for every call after PATIENCE_SECONDS."""

    def __init__(self, client: MlflowClient, settings: TrackingSettings) -> None:
        self._client, self._settings = client, settings
        self._deadline = time.monotonic() + PATIENCE_SECONDS

    def __getattr__(self, name: str) -> Any:
        if time.monotonic() > self._deadline:
            raise TrackingError(
                f"MLflow server {self._settings.address} has not taken everything within {PATIENCE_SECONDS:.0f} s."
            )
        return getattr(self._client, name)


def artifact_location(settings: TrackingSettings) -> str | None:
    """Return the URI that a new experiment keeps its files under; None leaves it to the server."""
    if settings.artifacts is None:
        return None
    settings.artifacts.mkdir(parents=True, exist_ok=True)
    return settings.artifacts.as_uri()


@contextmanager
def _locked(database: Path) -> Generator[None, None, None]:
    # MLflow migrates an empty database without any lock: of four processes that start at once, three crash.
    database.parent.mkdir(parents=True, exist_ok=True)
    path = database.with_name(f"{database.name}.lock")
    problem = TrackingError(
        f"MLflow database {database.name}: another process has held {path.name} for {_LOCK_SECONDS} s; end it, then "
        "run again."
    )
    with in_turn(path, _LOCK_SECONDS, problem):
        yield


def _initialise(database: Path, settings: TrackingSettings) -> None:
    # Opened with SQLite first, which refuses a wrong file at once: SQLAlchemy retries for minutes.
    with sqlite3.connect(database) as connection:
        is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.close()
    if is_empty:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # MlflowClient would create the database with ./mlruns as the default experiment's folder.
        SqlAlchemyStore(f"{_SQLITE_PREFIX}{database}", artifact_location(settings))


def _explained(settings: TrackingSettings, error: Exception) -> TrackingError | TrackingInputError:
    reason = one_line(str(error) or type(error).__name__)
    if settings.is_server and ("Max retries exceeded" in reason or "timed out" in reason.lower()):
        return TrackingError(
            f"MLflow server {settings.address} does not answer; start it or change the tracking address ({reason})."
        )
    is_wrong = isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError)
    is_wrong = is_wrong or getattr(error, "error_code", "") in _WRONG_CODES or _WRONG_REASONS.search(reason)
    return (TrackingInputError if is_wrong else TrackingError)(f"MLflow store {settings.address}: {reason}")
