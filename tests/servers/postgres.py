"""A PostgreSQL server of Debian's package, for as long as tests need it: on a free port, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "postgres"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, or None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


@dataclass(frozen=True)
class PostgresCluster:
    """A running server; databases are made as they are asked for."""

    port: int
    folder: Path

    def url(self, database: str, driver: str = "psycopg2") -> str:
        """Return a SQLAlchemy address; MLflow's driver is psycopg2, Prefect's asyncpg."""
        return f"postgresql+{driver}://{USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> None:
        """Make an empty database."""
        self._run("createdb", name)

    def dump(self, database: str) -> bytes:
        """Return all that a database holds, as text."""
        return self._run("pg_dump", database)

    def _run(self, program: str, database: str) -> bytes:
        folder = programs()
        assert folder is not None
        command = [str(folder / program), "--host=127.0.0.1", f"--port={self.port}", f"--username={USER}", database]
        return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """Make a cluster, start it, and remove it afterwards; the caller has looked that :func:`programs` are there."""
    bin_folder = programs()
    assert bin_folder is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not under pytest's folder: that is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="mergeline-postgres-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        account = pwd.getpwnam(USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = ["runuser", "-u", USER, "--"]
    data, log = folder / "data", folder / "postgres.log"
    # Nothing here has to survive a power cut.
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off -c max_connections=200"
    try:
        _call([*as_user, str(bin_folder / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "-N"])
        start = [str(bin_folder / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-t", "120", "-o", options, "start"]
        _call([*as_user, *start])
        try:
            yield PostgresCluster(port, folder)
        finally:
            _call([*as_user, str(bin_folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _call(command: list[str]) -> None:
    # The server started by pg_ctl keeps whatever it inherits open: a pipe would be waited for until it ends.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, cwd="/tmp", stdout=output, stderr=output, stdin=subprocess.DEVNULL, timeout=180)
        output.seek(0)
        assert done.returncode == 0, output.read().decode("utf-8", "replace")
