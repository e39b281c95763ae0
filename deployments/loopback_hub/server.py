"""The running Hub: two listeners on loopback, a log of all requests, and failures that a test orders."""

from __future__ import annotations

import fcntl
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, cast
from uuid import uuid4

from deployments.foreign_pages import reason_to_refuse
from deployments.loopback_hub.contents import Contents
from deployments.loopback_hub.faults import Fault, changed, fault_for
from deployments.loopback_hub.messages import Answer, Refusal, Request
from deployments.loopback_hub.repositories import Repositories
from deployments.loopback_hub.routes import answer_api, answer_cdn
from deployments.loopback_hub.site import Site
from deployments.loopback_hub.xet import XetStore

logger = logging.getLogger(__name__)

LOCAL_TOKEN = "hf_local"
"""The default token, of the user ``mergeline``; it opens nothing but a Hub on loopback."""

Origin = Literal["api", "cdn"]


@dataclass
class LoggedRequest:
    """A request, logged when it arrives and completed as it is answered."""

    origin: Origin
    """Which listener it came to."""
    method: str
    """HTTP method."""
    path: str
    """Path and query as sent."""
    range: str | None
    """The ``Range`` header."""
    authorized: bool
    """Whether it carried an ``Authorization`` header."""
    status: int | None = None
    """HTTP status of the response; None until there is one."""
    sent_bytes: int = 0
    """How much of the response's body was sent, in bytes."""


class LocalHub:
    """A Hub that keeps its content under ``root``, where a later Hub finds it again.

    Args:
        root: Folder for all content; created if need be.
        port: Port of the API; 0: a free one, which a stop and start keeps. That of the cdn origin is always a free one.
        tokens: Access token -> user name.
        xet: Whether large files may come through Xet as well as LFS.

    Raises:
        OSError: On start, if the port is taken or another Hub serves ``root``.
    """

    def __init__(
        self,
        root: str | Path,
        port: int = 0,
        tokens: Mapping[str, str] | None = None,
        xet: bool = False,
    ) -> None:
        self.root, self.xet = Path(root), xet
        self.tokens = dict(tokens) if tokens is not None else {LOCAL_TOKEN: "mergeline"}
        self.requests: list[LoggedRequest] = []
        self.faults: list[Fault] = []
        self._ports: dict[Origin, int] = {"api": port, "cdn": 0}
        self._listeners: dict[Origin, _Listener] = {}
        self._lock_file: BinaryIO | None = None

    @property
    def endpoint(self) -> str:
        """Address of the API, for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def cdn_endpoint(self) -> str:
        """Address of large files."""
        return f"http://127.0.0.1:{self._ports['cdn']}"

    def start(self) -> Self:
        """Listen; returns when requests are answered."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock_root()
        try:
            self._listen("api", answer_api)
            self._listen("cdn", answer_cdn)
            site = self._site()
        except BaseException:
            self.stop()
            raise
        for listener in self._listeners.values():
            listener.serve(site)
        return self

    def stop(self) -> None:
        """Stop listening and drop open connections, like a server that is killed."""
        for listener in self._listeners.values():
            listener.stop()
        self._listeners.clear()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock_root(self) -> None:
        lock_file = (self.root / ".lock").open("wb")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock_file.close()
            raise OSError(f"{self.root} is served by another local Hub; stop it or choose another folder") from None
        self._lock_file = lock_file

    def _listen(self, origin: Origin, answer: Callable[[Site, Request], Answer]) -> None:
        listener = _Listener(self, origin, self._ports[origin], answer)
        self._listeners[origin], self._ports[origin] = listener, listener.server_port

    def _site(self) -> Site:
        contents = Contents(self.root)
        xet = XetStore(self.root / "xet") if self.xet else None
        if xet is not None:
            xet.address = f"{self.endpoint}/cas"
        repositories = Repositories(self.root, contents)
        return Site(self.endpoint, self.cdn_endpoint, contents, repositories, self.tokens, xet)


class _Listener(ThreadingHTTPServer):
    """An origin: a port, and a thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: LocalHub, origin: Origin, port: int, answer: Callable[[Site, Request], Answer]) -> None:
        self.hub, self.answer = hub, answer
        self.origin: Origin = origin
        self.site: Site | None = None
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True, name=f"hub-{origin}")
        super().__init__(("127.0.0.1", port), _Connection)

    def server_bind(self) -> None:
        # HTTPServer looks its own name up here, which takes seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def serve(self, site: Site) -> None:
        self.site = site
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._connections:
                with suppress(OSError):  # the client may have left first
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, timeout=5)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._connections.discard(request)
            super().shutdown_request(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            logger.error("The connection from %s failed: %r", client_address, error)


class _Connection(BaseHTTPRequestHandler):
    """A connection: reads requests, writes responses."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; Nagle's algorithm would put 40 ms between them.
    disable_nagle_algorithm = True

    @property
    def listener(self) -> _Listener:
        return cast(_Listener, self.server)

    def _serve(self) -> None:
        request = Request(self.command, self.path, self.headers, self.rfile)
        is_authorized = "Authorization" in self.headers
        entry = LoggedRequest(self.listener.origin, self.command, self.path, self.headers.get("Range"), is_authorized)
        self.listener.hub.requests.append(entry)
        fault = fault_for(request, self.listener.hub.faults)
        try:
            answer = self._answer(request, fault)
            request.drain()
            entry.status = answer.status
            self._send(answer, entry, fault.cut_after if fault else None)
        except ConnectionError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _answer(self, request: Request, fault: Fault | None) -> Answer:
        site = self.listener.site
        assert site is not None, "a listener serves only once it has its site"
        try:
            # Its token is public: no page of another site may use it.
            if reason := reason_to_refuse(request.method, request.headers):
                raise Refusal(403, reason)
            if fault and fault.is_refusal:
                raise Refusal(fault.status or 503, "A failure that was ordered", headers=fault.headers)
            answer = self.listener.answer(site, request)
            return changed(answer, fault) if fault else answer
        except Refusal as refusal:
            return refusal.answer()
        except ConnectionError:
            raise
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.target)
            return Refusal(500, f"The local Hub failed: {error!r}").answer()

    def _send(self, answer: Answer, entry: LoggedRequest, cut_after: int | None) -> None:
        self.send_response(answer.status)
        # X-Request-Id is what the real Hub's error messages quote.
        for name, value in {"X-Request-Id": uuid4().hex, **answer.headers, "Content-Length": answer.length}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in answer.chunks():
            if cut_after is not None:
                chunk = chunk[: cut_after - entry.sent_bytes]
            # Counted first: when the client has the last byte, the log is complete.
            entry.sent_bytes += len(chunk)
            self.wfile.write(chunk)
            if entry.sent_bytes == cut_after:
                raise ConnectionAbortedError("the cut that was ordered")

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: :attr:`LocalHub.requests` is the log."""
