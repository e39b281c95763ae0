"""Run a Hub on this machine: ``python -m deployments.loopback_hub ROOT [--port N]``."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub


def main() -> None:
    """Serve until interrupted; prints one line with the settings of clients."""
    parser = argparse.ArgumentParser(prog="python -m deployments.loopback_hub", description="A Hub on this machine.")
    parser.add_argument("root", type=Path, help="folder for all content; created if need be")
    parser.add_argument("--port", type=int, default=0, help="port of the endpoint (default: a free one)")
    options = parser.parse_args()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    hub = LocalHub(options.root, options.port)
    try:
        hub.start()
    except OSError as error:
        parser.exit(2, f"The local Hub cannot start: {error}\n")
    # Clients take Xet for granted.
    print(f"HF_ENDPOINT={hub.endpoint} HF_TOKEN={LOCAL_TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
    stopping.wait()
    hub.stop()


if __name__ == "__main__":
    main()
