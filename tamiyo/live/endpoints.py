"""Serve `/healthz`, `/readyz`, `/metrics` and `/panel` over HTTP to a few clients at a time; slow clients delay nobody else."""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any, Final

_PATIENCE_S: Final = 5.0
_CLIENTS: Final = 32
_LONGEST_S: Final = 15.0  # for a whole request, so that a client that sends a byte now and then can't hold a place for longer


class Page:
    """What a path answers."""

    def __init__(self, body: bytes, kind: str = "text/plain; charset=utf-8", status: HTTPStatus = HTTPStatus.OK) -> None:
        self.body, self.kind, self.status = body, kind, status

    @classmethod
    def json(cls, value: Mapping[str, Any], *, good: bool) -> "Page":
        """Return one JSON object: status 200 if `good`, else 503."""
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return cls((json.dumps(value, default=str) + "\n").encode(), "application/json", status)


Pages = Mapping[str, Callable[[], Page]]


class Endpoints:
    """Serves pages until it is closed."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Listen at once; port 0 takes a free one. Raises OSError if the address is taken."""
        self._server = _Server((host, port), pages)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="tamiyo-http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stop listening; clients that still read are dropped."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.pages = pages
        self._served: dict[int, socket] = {}  # oldest first
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a request; if there are too many clients, cut off the oldest one: an honest client needs almost no time."""
        with self._lock:
            cut = self._served.pop(next(iter(self._served))) if len(self._served) >= _CLIENTS else None
            self._served[id(request)] = request
        if cut is not None:
            self._cut(cut)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        ends = threading.Timer(_LONGEST_S, self._cut, (request,))
        ends.daemon = True
        ends.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            ends.cancel()
            with self._lock:
                self._served.pop(id(request), None)

    def _cut(self, request: socket) -> None:
        with suppress(OSError):
            request.shutdown(SHUT_RDWR)

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Ignore the error: a client that disconnects is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server_version = "tamiyo"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        known = ", ".join(self.server.pages)
        found = page() if page is not None else Page(f"expected one of {known}\n".encode(), status=HTTPStatus.NOT_FOUND)
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(found.body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: requests are not logged."""
