"""The state directory: what Mergeline keeps between runs, by folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Folder = Literal[
    "merges",  # finished and unfinished model directories of pipelines
    "evaluations",  # one JSON file per model and lm-eval task
    "reports",  # HTML pages by merge
    "tracking",  # records that wait for MLflow
    "watched",  # the commits a pipeline's sources were last seen at
    "mlflow",  # MLflow's SQLite database and artifacts
    "prefect",  # Prefect's home
    "logs",  # what the programs of `mergeline up` print
    "demo-hub",  # the repositories of the demonstration's Hub
    "demo-hf",  # the Hugging Face cache of the demonstration
]
"""Every folder of the state directory."""


def state_directory() -> Path:
    """Return ``$MERGELINE_HOME``, or ``.mergeline`` in the working directory; it may not exist yet."""
    return Path(os.environ.get("MERGELINE_HOME") or ".mergeline").absolute()


def state_folder(folder: Folder) -> Path:
    """Return one folder of the state directory; it may not exist yet."""
    return state_directory() / folder


def default_tracking_uri() -> str:
    """Return the address of the MLflow database that is used where nothing names another."""
    return f"sqlite:///{state_folder('mlflow') / 'mlflow.db'}"
