"""A Prefect server for the flow tests, and MLflow stores."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergeline.tracking.store import TrackingSettings, opened_store
from tests.tracking_records import EXPERIMENT


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own; every flow called while it runs is recorded there."""
    from prefect.testing.utilities import prefect_test_harness

    # Its own limit of 30 s is about what a slow machine needs.
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised store: MLflow's migrations take seconds, so they run once and the file is copied."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with opened_store(TrackingSettings(f"sqlite:///{database}", EXPERIMENT)):
        pass
    return database


@pytest.fixture
def settings(migrated_database: Path, tmp_path: Path) -> TrackingSettings:
    database = tmp_path / "state of play" / "mlflow.db"
    database.parent.mkdir()
    shutil.copy(migrated_database, database)
    return TrackingSettings(f"sqlite:///{database}", EXPERIMENT)
