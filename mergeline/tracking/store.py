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
"""How long a server may hold up whoever writes to it; what is not written by then is written later."""

_WRONG_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "NOT_FOUND")
_WRONG_REASONS = re.compile(
    r"file is not a database|unable to open database file|readonly database|out-of-date database schema"
    r"|failed with error code 4(0[134])|not in a valid JSON format|Invalid URL|No connection adapters"
)
"""What trying again cannot mend."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow's own 120 s and 7 retries keep a run waiting for minutes on a server that is not there.
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
        """The folder beside the database that holds the runs' files, or None when the store is a server.

        MLflow keeps its absolute path in the database, and nothing else that is particular to the machine.
        """
        return None if self.database is None else self.database.with_name(f"{self.database.stem}-artifacts")

    @property
    def address(self) -> str:
        """The store as a message may name it: without user name and password."""
        parts = urlsplit(self.uri)
        # A SQLite file's address has no such part, and urlunsplit would drop its empty one.
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else self.uri

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))


def require_usable(settings: TrackingSettings) -> None:
    """Raise :class:`TrackingInputError` unless the address is of a kind that can be written to."""
    if settings.database is None and not settings.is_server:
        raise TrackingInputError(
            f"MLflow store {settings.address!r}: expected sqlite:///<file> or http(s)://<server>; another database "
            "is reached through an MLflow server."
        )


@contextmanager
def opened_store(settings: TrackingSettings) -> Generator[MlflowClient, None, None]:
    """Connect to the store, alone on it if it is a SQLite file.

    Args:
        settings: Which store.

    Yields:
        A client that writes to it, for at most :data:`PATIENCE_SECONDS` and one request more if it is a server.
        Whatever MLflow raises while it is in use becomes one line.

    Raises:
        TrackingInputError: The store named cannot be used.
        TrackingError: The store does not answer, is taken, or refuses a record.
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
            yield cast("MlflowClient", _Hurried(MlflowClient(settings.uri.rstrip("/")), settings))
        else:
            with _alone_on(database):
                _initialise(database, settings)
                yield MlflowClient(f"{_SQLITE_PREFIX}{database}")
    except (MlflowException, OSError, sqlite3.Error) as error:
        raise _explained(settings, error) from error


class _Hurried:
    """A client whose methods are there until its time is up: a slow server is given up between two requests."""

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
def _alone_on(database: Path) -> Generator[None, None, None]:
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
    # SQLAlchemy retries for minutes on a file that SQLite itself refuses at once.
    with sqlite3.connect(database) as connection:
        is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.close()
    if is_empty:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # Built by hand because MlflowClient would point the default experiment at ./mlruns.
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
