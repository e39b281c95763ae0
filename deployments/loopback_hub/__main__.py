"""Run a Hub on this machine: ``python -m deployments.loopback_hub ROOT [--port N] [--xet]``."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub


def main() -> None:
    """Serve until interrupted; prints one line, the settings with which clients find this Hub."""
    parser = argparse.ArgumentParser(prog="python -m deployments.loopback_hub", description="A Hub on this machine.")
    parser.add_argument("root", type=Path, help="folder for all content; created if need be")
    parser.add_argument("--port", type=int, default=0, help="port of the endpoint (default: a free one)")
    parser.add_argument("--xet", action="store_true", help="accept uploads through Xet as well as LFS")
    options = parser.parse_args()
    # The Hub reads its own Xet store when a file arrives, and no proxy stands between it and itself.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    os.environ.setdefault("HF_XET_CACHE", str(options.root / "xet" / "cache"))
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    hub = LocalHub(options.root, options.port, xet=options.xet)
    try:
        hub.start()
    except OSError as error:
        parser.exit(2, f"The local Hub cannot start: {error}\n")
    # Without a Xet store on the other side, clients must be told not to use theirs.
    without_xet = "" if options.xet else " HF_HUB_DISABLE_XET=1"
    print(f"HF_ENDPOINT={hub.endpoint} HF_TOKEN={LOCAL_TOKEN}{without_xet}", flush=True)
    stopping.wait()
    hub.stop()


if __name__ == "__main__":
    main()
