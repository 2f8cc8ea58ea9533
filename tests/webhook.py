"""A local webhook that keeps what it was sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Listens on a free local port; `status` is what it answers, with `answer` as the body.

    `posts` are the bodies that it took, `keys` the idempotency keys of all that came. While `hangs` it answers nothing.
    """

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.status = 200
        self.answer = b""
        self.hangs = False
        self._released = threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.keys.append(self.headers["Idempotency-Key"])
                if webhook.hangs:
                    webhook._released.wait()
                    return
                if webhook.status < 300:
                    webhook.posts.append(json.loads(body))
                self.send_response(webhook.status)
                self.send_header("Location", webhook.address)
                self.send_header("Content-Length", str(len(webhook.answer)))
                self.end_headers()
                self.wfile.write(webhook.answer)

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
