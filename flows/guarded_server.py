"""Prefect's embedded server, which refuses other sites' pages in a person's browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

ROOT = Path(__file__).parents[1]


class GuardedServer(SubprocessASGIServer):
    """Prefect's server in a subprocess, with our application in place of Prefect's.

    The class is a singleton per process: once this one exists, Prefect uses it too.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT)]
        application = ["--factory", "deployments.prefect_server:create_app", "--lifespan", "on"]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error"]
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(
            [*command, *application, *address],
            # Without the pages: Prefect would copy their files first.
            env=os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"} | settings,
        )
