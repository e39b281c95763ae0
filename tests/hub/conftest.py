"""A Hub for each test, with nothing in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.local.hub import LOCAL_TOKEN, LocalHub


def pytest_configure(config: pytest.Config) -> None:
    # huggingface_hub 2.4 hands the bodies of LFS uploads to httpx2 in a way that httpx2 is about to drop.
    config.addinivalue_line("filterwarnings", "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """An empty Hub without Xet; its one user is ``mergeline``, whose token is ``LOCAL_TOKEN``."""
    # A client that is refused falls back on its cache, which may hold an earlier test's repository of the same name.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with LocalHub(tmp_path / "local-hub") as hub:
        yield hub


@pytest.fixture
def hub_api(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """The real client, signed in to ``local_hub`` and told to upload through LFS."""
    # Clients no longer ask whether the Hub has Xet: without this every upload of a large file fails.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=local_hub.endpoint, token=LOCAL_TOKEN)
