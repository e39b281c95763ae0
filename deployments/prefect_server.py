"""Prefect's server, which refuses other sites' pages: ``python -m deployments.prefect_server``.

``prefect server start`` answers every page that a person's browser has open, under any host name: such a page could
create a deployment with a shell command in it, and run it. Here, requests with a foreign ``Host`` or from a foreign
page are refused before Prefect sees them; see :mod:`deployments.foreign_pages`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeAlias

from deployments.foreign_pages import HOST_NAME, HOSTS, reason_to_refuse

ORIGINS = "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"
"""Prefect's setting: origins, separated by commas, whose pages may call it. ``*`` names none."""

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class OwnPagesOnly:
    """ASGI middleware that refuses requests and WebSockets of other sites' pages."""

    def __init__(self, app: App, hosts: Collection[str], pages: Collection[str]) -> None:
        """Wrap ``app``; for ``hosts`` and ``pages`` see :func:`deployments.foreign_pages.reason_to_refuse`."""
        self._app, self._hosts, self._pages = app, hosts, pages

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif reason := reason_to_refuse(scope.get("method", "GET"), Headers(scope=scope), self._hosts, self._pages):
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, _unframed(send))


def _unframed(send: Send) -> Send:
    """Forbid frames of other sites, where a person could be made to click on what they do not see."""

    async def send_unframed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-frame-options", b"SAMEORIGIN")]
        await send(message)

    return send_unframed


def create_app() -> App:
    """Return the server as ``uvicorn --factory`` starts it, by the environment's settings."""
    os.environ.setdefault(ORIGINS, "")
    from prefect.server.api.server import create_app

    return OwnPagesOnly(create_app(final=True), listed(HOSTS), listed(ORIGINS))


def listed(variable: str) -> list[str]:
    """Return what an environment variable lists, in lower case."""
    return [item.strip().lower() for item in os.environ.get(variable, "").split(",") if item.strip()]


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m deployments.prefect_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=4200, help="default: %(default)s")
    options = parser.parse_args()
    if wrong := [name for name in listed(HOSTS) if not HOST_NAME.fullmatch(name)]:
        parser.error(f"{HOSTS}: expected host names without port or path, separated by commas, found {wrong[0]!r}.")
    host = f"[{options.host}]" if ":" in options.host else options.host
    names = [*listed(HOSTS), host.lower()]
    os.environ[HOSTS] = ",".join(names)
    # A page may be opened under one of the server's names and call the API under another.
    own = [f"http://{name}:{options.port}" for name in ("127.0.0.1", "localhost", *names)]
    os.environ[ORIGINS] = ",".join([*listed(ORIGINS), *own])
    _serve(options.host, options.port)


def _serve(host: str, port: int) -> None:
    import uvicorn

    app = create_app()
    from prefect.settings import get_current_settings

    server = get_current_settings().server
    uvicorn.run(
        app,
        host=host,
        port=port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=server.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
