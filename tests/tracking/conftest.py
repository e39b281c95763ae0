"""MLflow stores on SQLite."""

import shutil
from pathlib import Path

import pytest

from mergeline.tracking.store import TrackingSettings, opened_store
from tests.builders.tracking_records import EXPERIMENT


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
