"""Which failures are worth another try: only those that may pass by themselves."""

from __future__ import annotations

from typing import Any

from mergeline.errors import TransientHubError


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Tell Prefect whether to retry a failed Prefect task."""
    del task, task_run
    return isinstance(state.result(raise_on_failure=False), TransientHubError)


HUB_RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [2, 10, 30],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
"""Arguments of ``@task`` for what talks to the Hub."""
