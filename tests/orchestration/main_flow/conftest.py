"""What the flows of this folder share: a state directory, a Hub, and one run of the main flow that many tests read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.client.schemas.objects import State

from deployments.local.demo import fill
from deployments.loopback_hub import LocalHub
from mergeline.pipeline.run import PipelineResult
from tests.builders.flow_runs import Workplace, run_pipeline


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Workplace]:
    """A state directory, and a Hub with the demonstration models and questions."""
    folder = tmp_path_factory.mktemp("flows")
    with LocalHub(folder / "hub") as hub:
        workplace = Workplace(hub, folder)
        with workplace.in_force():
            fill(hub.endpoint)
        yield workplace


@pytest.fixture(scope="session")
def published(workplace: Workplace) -> State[PipelineResult]:
    """The demonstration's merge, evaluated beside its parents and published because it is better than both."""
    with workplace.in_force():
        return run_pipeline(publish="better_than_parents", repo_id="flow-slerp")


@pytest.fixture(autouse=True)
def at_the_workplace(workplace: Workplace) -> Iterator[None]:
    with workplace.in_force():
        yield
