"""Settings that libraries read when they are imported, made before any test module imports them."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.postgres import PostgresCluster, programs, running_cluster

_HF_HOME = tempfile.TemporaryDirectory(prefix="mergeline-tests-")

# What the developer's shell says about the Hub must not reach the tests.
for _name in ("HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_XET_CACHE"):
    os.environ.pop(_name, None)
os.environ |= {
    "HF_HOME": _HF_HOME.name,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


def pytest_unconfigure(config: pytest.Config) -> None:
    _HF_HOME.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL server without databases; each test makes its own."""
    if programs() is None:
        pytest.skip("needs PostgreSQL's server (Debian: apt-get install postgresql)")
    with running_cluster() as cluster:
        yield cluster
