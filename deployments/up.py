"""Everything on this machine in one command: servers, workers, deployments and automations, until interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass

from deployments import stack
from deployments.programs import Program, Running
from flows.embedded import prepare_environment
from mergeline.errors import InputError
from mergeline.support.durable import exclusive
from mergeline.support.state import state_directory


@dataclass(frozen=True)
class Ports:
    """The first port that each server tries."""

    prefect: int
    mlflow: int
    hub: int | None
    """None: no Hub is started."""
    webhook: int | None
    """None: no webhook is started."""


def up(ports: Ports, as_json: bool) -> None:
    """Start everything, print the addresses, and run until interrupted or until one of the programs ends.

    Raises:
        InputError: A port is taken, or the webhook has no secret.
        RunError: A program did not start, or has ended.
    """
    if ports.webhook is not None and not os.environ.get("MERGELINE_WEBHOOK_SECRET"):
        raise InputError("--with-webhook: set $MERGELINE_WEBHOOK_SECRET to the secret that the Hub's webhook sends.")
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stopping.set())
    # Another server's address: the flows use the server that is started here.
    os.environ.pop("PREFECT_API_URL", None)
    prepare_environment(state_directory())
    running = Running(stopping)
    try:
        pages = _start(ports, running, stopping)
        if as_json and not stopping.is_set():
            print(json.dumps({program.name.lower(): program.page for program in pages}), flush=True)
        for program in pages if not as_json and not stopping.is_set() else ():
            print(f"{program.name:<8} {program.page}", flush=True)
        while not stopping.wait(0.5):
            running.require_alive()
    finally:
        running.stop()


def _start(ports: Ports, running: Running, stopping: threading.Event) -> list[Program]:
    """Start servers, then the programs that need them; return those that have a page."""
    prefect, mlflow = stack.prefect(ports.prefect), stack.mlflow(ports.mlflow)
    hub = None if ports.hub is None else stack.hub(ports.hub)
    api_url = f"{prefect.page}/api"
    webhook = None if ports.webhook is None else stack.webhook(ports.webhook, api_url)
    settings = stack.used_by_flows(api_url, mlflow.health.removesuffix("/health"), hub)
    servers = [program for program in (hub, prefect, mlflow) if program is not None]
    print("Starting Prefect, MLflow and the workers (20 to 90 s) ...", file=sys.stderr, flush=True)
    with ExitStack() as locks:
        for program in servers:
            assert program.start_lock is not None
            program.start_lock.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(exclusive(program.start_lock, f"starting {program.name}"))
            running.start(program)
        running.wait_until_answered([program for program in servers if program is not mlflow])
        # MLflow, the slowest of them, goes on starting meanwhile.
        for program in (None if hub is None else stack.demonstration(hub), stack.registration(settings)):
            if program is not None:
                running.finish(program)
        for program in stack.workers(settings):
            running.start(program)
        running.wait_until_answered([mlflow])
    if webhook is not None:
        running.start(webhook)
        running.wait_until_answered([webhook])
    return [program for program in (hub, prefect, mlflow, webhook) if program is not None]
