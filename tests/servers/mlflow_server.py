"""A real MLflow server on a free port of this machine, which a test may kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

START_SECONDS = 180.0


class MlflowServer:
    """One server on one database; its files and its log lie in a folder of its own."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        """Choose a port; nothing is started yet.

        Args:
            folder: Made if need be.
            database: SQLAlchemy address; None: SQLite in ``folder``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.database = folder, database or f"sqlite:///{folder / 'server.db'}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        files = ["--artifacts-destination", str(self.folder / "files")]
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", "1", "--backend-store-uri", self.database, *files],
                cwd=self.folder,
                env=os.environ | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the MLflow server did not start"
            time.sleep(0.2)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server and all that it started."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, number)
            process.wait(timeout=60)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server and all that it started, e.g. SIGSTOP: it takes requests and answers none."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/health", timeout=5):
                return True
        except (URLError, OSError):
            return False
