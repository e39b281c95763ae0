"""Prefect automations: queue lost runs again, and notify of runs that failed or wait too long."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.types import SecretDict

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SILENCE = timedelta(minutes=3)
"""Six heartbeats of the 30 s that workers are started with: with fewer, a run that cannot send them during a long
call would be taken for dead."""

LATENESS = timedelta(minutes=30)
"""A run that waits longer for a device is reported."""

FAILED = ("Failed", "Crashed", "TimedOut")
LOST = "Lost"
ENDED = (*FAILED, LOST, "Completed", "Cancelled", "Cancelling")
WITHOUT_PROCESS = ("Suspended", "Paused", "AwaitingRetry")
"""States of runs that send no heartbeats and are not lost: they wait for approval, or to be queued again."""

NOTIFY = "mergeline-notify"
"""Name of the block that holds the address to notify."""

BODY = """\
{{ flow_run.name }} ({{ flow.name }}) is {{ flow_run.state.name }}: {{ flow_run.state.message }}
{{ flow_run|ui_url }}"""


def automations(notify: UUID | None) -> list[AutomationCore]:
    """Describe the automations.

    Args:
        notify: Block that sends notifications; None: the automations that notify are created switched off.
    """

    def notification(subject: str) -> list[ActionTypes]:
        if notify is None:
            return [DoNothing()]
        return [SendNotification(block_document_id=notify, subject=subject, body=BODY)]

    # In two steps: a heartbeat may arrive after a short run has ended. Prefect refuses to mark an ended run as crashed,
    # but would queue it again.
    noticed = AutomationCore(
        name="mergeline: notice lost runs",
        description="A run whose worker is gone sends no heartbeats.",
        trigger=_missing("heartbeat", (*ENDED, *WITHOUT_PROCESS, "heartbeat"), SILENCE),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name=LOST, message="No heartbeat for three minutes: its worker is gone."
            )
        ],
    )
    continued = AutomationCore(
        name="mergeline: continue lost runs",
        description="A lost run is queued again, and goes on with what it finds finished.",
        trigger=EventTrigger(expect=_states([LOST]), posture=Posture.Reactive, threshold=1, **_OUR_RUNS),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message="Lost its worker; queued again."
            )
        ],
    )
    failed = AutomationCore(
        name="mergeline: tell of failed runs",
        description="Notifies of runs that failed, crashed or took too long.",
        enabled=notify is not None,
        trigger=EventTrigger(expect=_states(FAILED), posture=Posture.Reactive, threshold=1, **_OUR_RUNS),
        actions=notification("A run failed"),
    )
    late = AutomationCore(
        name="mergeline: tell of late runs",
        description="Notifies of runs that have waited for a worker for too long.",
        enabled=notify is not None,
        trigger=_missing("Late", (*ENDED, "Pending", "Running"), LATENESS),
        actions=notification("A run waits for a worker"),
    )
    return [noticed, continued, failed, late]


_OUR_RUNS: dict[str, Any] = {
    "match": {"prefect.resource.id": "prefect.flow-run.*"},
    "match_related": {"prefect.resource.id": "prefect.tag.mergeline", "prefect.resource.role": "tag"},
    "for_each": {"prefect.resource.id"},
}


def _states(names: Iterable[str]) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _missing(after: str, expected: Iterable[str], within: timedelta) -> EventTrigger:
    """Return a trigger that fires for every run of ours in which no ``expected`` event follows ``after`` in time."""
    return EventTrigger(
        after=_states([after]),
        expect=_states(expected),
        posture=Posture.Proactive,
        threshold=1,
        within=within,
        **_OUR_RUNS,
    )


def install_automations(client: SyncPrefectClient) -> None:
    """Create the automations, or update those that exist."""
    for automation in automations(notification_block()):
        existing = client.read_automations_by_name(automation.name)
        if existing:
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)


def notification_block() -> UUID | None:
    """Save ``$MERGELINE_NOTIFY_URL`` on the server as a secret, and return its block; None where it is not set.

    It receives a POST of JSON with ``subject`` and ``text``, which is also what Slack's and Mattermost's incoming
    webhooks read.
    """
    address = os.environ.get("MERGELINE_NOTIFY_URL")
    if not address:
        return None
    block = CustomWebhookNotificationBlock(
        name="Mergeline",
        # Encrypted: whoever knows the address can post there.
        url="{{address}}",
        json_data={"subject": "{{subject}}", "text": "{{subject}}: {{body}}"},
        secrets=SecretDict({"address": address}),
    )
    return block.save(NOTIFY, overwrite=True, _sync=True)  # pyright: ignore[reportReturnType, reportCallIssue]
