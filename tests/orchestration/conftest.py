"""A Prefect server for the flows' tests."""

from collections.abc import Iterator

import pytest

import tests.fixtures.prefect_settings  # noqa: F401


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own; every flow called while it runs is recorded there."""
    from prefect.testing.utilities import prefect_test_harness

    # Its own limit of 30 s is about what a slow machine needs.
    with prefect_test_harness(server_startup_timeout=180):
        yield
