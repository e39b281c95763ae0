"""Settings that libraries read when they are imported, made before any test module imports them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.embedded import prepare_environment
from tests.mlflow_server import MlflowServer
from tests.postgres import PostgresCluster, programs, running_cluster

_HF_HOME, _STATE = (tempfile.TemporaryDirectory(prefix="mergeline-tests-") for _ in range(2))

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
# Neither a developer's Prefect server nor ~/.prefect is to be touched.
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
prepare_environment(Path(_STATE.name))


_SERVER_ROOMS = {"browser", "orchestration"}


# First: pytest-xdist reads the groups when its own turn comes.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Part the tests into two halves for two processes: servers that look for a free port must not look at once."""
    for item in items:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group("servers" if room in _SERVER_ROOMS else "engine"))


def pytest_unconfigure(config: pytest.Config) -> None:
    _HF_HOME.cleanup()
    _STATE.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL server without databases; each test makes its own."""
    if programs() is None:
        pytest.skip("needs PostgreSQL's server (Debian: apt-get install postgresql)")
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server on SQLite; a test that ends it starts it again."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server
