"""Settings that libraries read when they are imported, made before any test module imports them."""

import os
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.builders", "tests.servers")
pytest_plugins = ["tests.fixtures.hub", "tests.fixtures.servers"]

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
# Loops are compiled once for all tests, and again only where one of them, or what compiles it, has changed.
os.environ.setdefault("MERGELINE_CACHE", str(Path(tempfile.gettempdir()) / f"mergeline-tests-{os.getuid()}"))
# Neither a developer's Prefect server nor ~/.prefect is to be touched.
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ["PREFECT_HOME"] = str(Path(_STATE.name) / "prefect")


_SERVER_FOLDERS = {"browser", "deployments", "orchestration", "tracking"}


# First: pytest-xdist reads the groups when its own turn comes.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Part the tests into two halves for two processes: servers that look for a free port must not look at once."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group("servers" if folder in _SERVER_FOLDERS else "engine"))


def pytest_unconfigure(config: pytest.Config) -> None:
    _HF_HOME.cleanup()
    _STATE.cleanup()
