"""The commands of docs/deploying.md, run as they are written there, with this machine's addresses put in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deployments.local.demo import TOKEN
from deployments.loopback_hub import LocalHub
from deployments.programs import answers
from mergeline.cli.command_line import _parser
from tests.servers.postgres import PostgresCluster, programs
from tests.servers.stack import ROOT, unused_port, wait_until

DOCUMENT = (ROOT / "docs" / "deploying.md").read_text()
LASTING = ("deployments.prefect_server", "mlflow server", "prefect worker start")
"""Commands that run until they are ended."""


def blocks(section: str) -> list[str]:
    """Return the commands shown in a section."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


class Machine:
    """Where the document's commands are run."""

    def __init__(self, folder: Path, environment: dict[str, str], replacements: dict[str, str]) -> None:
        self.folder, self.environment, self.replacements = folder, environment, replacements
        self.lasting: list[tuple[subprocess.Popen[bytes], Path]] = []

    def run(self, block: str) -> str:
        """Run a block line by line, as a person would, each lasting command in a terminal of its own."""
        for written, here in self.replacements.items():
            block = block.replace(written, here)
        exports = [line for line in block.splitlines() if line.startswith("export ")]
        said = ""
        for line in block.splitlines():
            if line in exports:
                continue
            script = "\n".join(["set -e", *exports, line])
            if any(command in line for command in LASTING):
                self._start(script)
            else:
                said += self._finish(script)
        return said

    def _finish(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _start(self, script: str) -> None:
        log = self.folder / f"lasting-{len(self.lasting)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.lasting.append((process, log))

    def answers(self, address: str) -> bool:
        """Return whether a server answers; what lasts must not have ended meanwhile."""
        for process, log in self.lasting:
            assert process.poll() is None, log.read_text()
        return answers(address)

    def stop(self) -> None:
        """End what lasts, workers first."""
        for process, _ in reversed(self.lasting):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            # How well they end is not this document's; that nothing is left is.
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def machine(folder: Path, postgres: PostgresCluster, hub: LocalHub, ports: tuple[int, int]) -> Iterator[Machine]:
    """A machine on which the document's names mean something."""
    prefect, mlflow = ports
    replacements = {
        "servers.example:4200": f"127.0.0.1:{prefect}",
        "127.0.0.1:4200": f"127.0.0.1:{prefect}",
        "servers.example:5000": f"127.0.0.1:{mlflow}",
        "--port 4200": f"--port {prefect}",
        "--port 5000": f"--port {mlflow}",
        "USER@database.example": f"postgres@127.0.0.1:{postgres.port}",
        "servers.example": "127.0.0.1",
        "/shared": str(folder / "shared"),
        "HF_TOKEN=...": f"HF_TOKEN={TOKEN}",
    }
    own = ("PREFECT_", "MLFLOW_", "MERGELINE_", "HF_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    bin_folder = programs()
    environment = inherited | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(bin_folder), os.environ["PATH"]]),
        **{"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "postgres"},
        **{"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
        # What prefect keeps for its user stays here too.
        **{"PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
    }
    here = Machine(folder, environment, replacements)
    try:
        yield here
    finally:
        here.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_several_machines_on_postgresql_merge_as_described(tmp_path: Path, postgres: PostgresCluster) -> None:
    databases, prefect, mlflow, register, workers = blocks("Several machines")
    _, ask = blocks("One machine")
    ports = unused_port(), unused_port()
    with LocalHub(tmp_path / "hub") as hub, machine(tmp_path, postgres, hub, ports) as here:
        here.run(databases)
        for block in (prefect, mlflow):
            here.run(block)
        here.run(f"python -m deployments.local.demo --fill {hub.endpoint}")
        wait_until(lambda: here.answers(f"http://127.0.0.1:{ports[0]}/api/health"), "Prefect")
        wait_until(lambda: here.answers(f"http://127.0.0.1:{ports[1]}/health"), "MLflow")
        assert here.run(register).split() == [
            "evaluate-model/evaluate-model",
            "merge-and-evaluate/merge-and-evaluate",
            "merge-model/merge-model",
            "merge-shards/merge-shards",
            "watch-sources/watch-sources",
        ]
        here.run(workers)
        assert "Flow run finished successfully" in here.run(ask)
        (model,) = (tmp_path / "shared" / "mergeline" / "merges").glob("first-*")
        assert (model / "mergeline_manifest.json").exists()
        # MLflow keeps the files: no worker's folder holds any.
        assert list((tmp_path / "mlflow-artifacts").rglob("report.html"))
        assert not (tmp_path / "shared" / "mergeline" / "mlflow").exists()
    assert b"first" in postgres.dump("prefect")
    assert b"spartqa_train/acc" in postgres.dump("mlflow")


def test_the_command_for_one_machine_is_the_one_that_other_tests_start() -> None:
    start, _ = blocks("One machine")
    assert _parser().parse_args(start.split()[1:]).with_hub
    (webhook,) = blocks("New commits of sources")
    assert _parser().parse_args(webhook.split()[2:]).with_webhook


def test_what_is_not_run_is_marked() -> None:
    sections = re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)
    run = {"One machine", "Several machines", "New commits of sources"}
    assert {section for section in sections if blocks(section)} - run == {"Containers"}
    assert "not run by our tests" in DOCUMENT.partition("## Containers")[2]
