"""Wait, at the end of a flow, until the embedded Prefect server has recorded its task runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events import Event

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
"""How long the end of a flow waits for the server."""

_PAGE = 200
"""Task runs in one response of Prefect's API, at most."""

TaskRunKey = tuple[str, str, str]
"""Flow run, task key and dynamic key, which identify a task run on the server."""


@contextmanager
def recorded_task_runs(api_url: str) -> Generator[None, None, None]:
    """Leave the block when the server has recorded every task run made in it, in its final state.

    Task runs reach the server as events in a queue; a server that ends with the flow loses those that are still in it.
    After :data:`DRAIN_SECONDS` a warning says how many are missing.

    Args:
        api_url: The server's API.
    """
    from prefect.events.clients import AssertingPassthroughEventsClient
    from prefect.events.worker import EventsWorker

    # Prefect has no count of its task runs; this client, one of its own, keeps the events that it sends.
    AssertingPassthroughEventsClient.reset()
    EventsWorker.set_client_override(AssertingPassthroughEventsClient, api_url=api_url)
    try:
        yield
    finally:
        EventsWorker.drain_all(timeout=DRAIN_SECONDS)
        EventsWorker.set_client_override(None)
        clients = AssertingPassthroughEventsClient.all
        AssertingPassthroughEventsClient.reset()
        events = [event for client in clients for event in getattr(client, "events", [])]
        _wait_until_recorded(_last_states(events))


def _last_states(events: Sequence[Event]) -> dict[TaskRunKey, bool]:
    """Return every task run that reported a state, and whether its last one is final."""
    from prefect.client.schemas.objects import TERMINAL_STATES, StateType

    states: dict[TaskRunKey, bool] = {}
    for event in events:
        flow_run = event.resource_in_role.get("flow-run")
        if not event.event.startswith("prefect.task-run.") or flow_run is None:
            continue
        task_run = event.payload["task_run"]
        flow_run_id = flow_run.id.removeprefix("prefect.flow-run.")
        state = StateType(event.payload["validated_state"]["type"])
        states[flow_run_id, task_run["task_key"], task_run["dynamic_key"]] = state in TERMINAL_STATES
    return states


def _wait_until_recorded(expected: Mapping[TaskRunKey, bool]) -> None:
    """Wait until the server has every task run, in a final state if one was reported."""
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + DRAIN_SECONDS
    with get_client(sync_client=True) as client:
        while missing := _missing(client, expected):
            if time.monotonic() > deadline:
                logger.warning(
                    "Prefect's embedded server has not recorded %d of %d task runs after %.0f s; its history of this "
                    "run stays incomplete, the results do not.",
                    missing,
                    len(expected),
                    DRAIN_SECONDS,
                )
                return
            time.sleep(0.2)


def _missing(client: SyncPrefectClient, expected: Mapping[TaskRunKey, bool]) -> int:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import TaskRunSort

    if not expected:
        return 0
    flow_run_ids = [UUID(text) for text in {flow_run_id for flow_run_id, _, _ in expected}]
    flow_runs = FlowRunFilter(id=FlowRunFilterId(any_=flow_run_ids))
    recorded: dict[TaskRunKey, bool] = {}
    for offset in count(0, _PAGE):
        page = client.read_task_runs(flow_run_filter=flow_runs, sort=TaskRunSort.ID_DESC, limit=_PAGE, offset=offset)
        for run in page:
            is_final = run.state is not None and run.state.is_final()
            recorded[str(run.flow_run_id), run.task_key, run.dynamic_key] = is_final
        if len(page) < _PAGE:
            break
    return sum(key not in recorded or (is_final and not recorded[key]) for key, is_final in expected.items())
