"""Endpoint of the Hub's webhook: ``python -m deployments.webhook``.

Point a webhook of the Hub at it (through whatever makes this machine reachable from outside) with the secret in
``$MERGELINE_WEBHOOK_SECRET``. For every new commit, the deployment ``watch-sources`` of the Prefect server at
``$PREFECT_API_URL`` runs once.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

DEPLOYMENT = "watch-sources/watch-sources"
LARGEST_BODY = 2**20
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before another attempt: on SQLite, Prefect answers 503 during another write."""


class Refusal(Exception):
    """A request that does not come from the Hub's webhook."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def new_commit(body: bytes) -> tuple[str, str] | None:
    """Return repository and commit of an event; None if it changes no files.

    Raises:
        Refusal: The body is not an event.
    """
    try:
        event: dict[str, Any] = json.loads(body)
        scope, repo = event["event"]["scope"], event["repo"]
        if not scope.startswith("repo.content") or event["event"]["action"] != "update":
            return None
        return str(repo["name"]), str(repo["headSha"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refusal(HTTPStatus.BAD_REQUEST, "expected an event of the Hub, in JSON") from None


def run_watch(api_url: str, repo_id: str, commit: str) -> str:
    """Run ``watch-sources`` and return the flow run's id; a repeated call for a commit returns the first run."""
    deployment = _ask(f"{api_url}/deployments/name/{DEPLOYMENT}")
    run = {"idempotency_key": f"hub {repo_id}@{commit}", "state": {"type": "SCHEDULED"}, "tags": ["webhook"]}
    return str(_ask(f"{api_url}/deployments/{deployment['id']}/create_flow_run", run)["id"])


def _ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    request = Request(url, content, {"Content-Type": "application/json"})
    for seconds in (*PAUSES, None):
        try:
            with urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or seconds is None:
                raise
            time.sleep(seconds)
    raise AssertionError("the last attempt returns or raises")


class Endpoint(BaseHTTPRequestHandler):
    """Answers a request."""

    secret: bytes
    api_url: str
    timeout = 30

    def do_GET(self) -> None:
        self._answer(HTTPStatus.OK, {"listens": True})

    def do_POST(self) -> None:
        try:
            commit = new_commit(self._body())
            run = None if commit is None else run_watch(self.api_url, *commit)
        except Refusal as refusal:
            self._answer(refusal.status, {"error": str(refusal)})
        except (OSError, ValueError, KeyError) as error:
            # The Hub shows the status, and sends the event again when a person asks for it.
            print(f"{self.api_url}: {error!r}", file=sys.stderr, flush=True)
            self._answer(HTTPStatus.BAD_GATEWAY, {"error": "Prefect did not answer"})
        else:
            self._answer(HTTPStatus.ACCEPTED if run else HTTPStatus.OK, {"flow_run": run})

    def _body(self) -> bytes:
        """Return the body of a request that has the secret."""
        sent = self.headers.get("X-Webhook-Secret", "").encode()
        if not hmac.compare_digest(sent, self.secret):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "X-Webhook-Secret is not this webhook's secret")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"expected a body of at most {LARGEST_BODY} bytes")
        return self.rfile.read(int(length))

    def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m deployments.webhook", description=__doc__)
    parser.add_argument("--port", type=int, default=7861, help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    options = parser.parse_args()
    secret, api_url = os.environ.get("MERGELINE_WEBHOOK_SECRET"), os.environ.get("PREFECT_API_URL")
    if not secret or not api_url:
        parser.exit(2, "webhook: set MERGELINE_WEBHOOK_SECRET and PREFECT_API_URL.\n")
    Endpoint.secret, Endpoint.api_url = secret.encode(), api_url.rstrip("/")
    with ThreadingHTTPServer((options.host, options.port), Endpoint) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
