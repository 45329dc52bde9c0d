"""A proxy that passes every request on, and loses the first answer to each client: it says 503 instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx


@contextmanager
def losing_first_answers(target: str) -> Iterator[tuple[str, list[int]]]:
    """The address of the proxy, and the statuses that it was answered with, as they come."""
    statuses: list[int] = []
    client = httpx.Client(base_url=target, timeout=30, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            passed = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            answer = client.post(self.path, content=body, headers=passed)
            statuses.append(answer.status_code)
            if len(statuses) > 1:
                self._answer(answer.status_code, answer.content)
            else:
                self._answer(503, json.dumps({"code": "unavailable", "message": "the answer was lost"}).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", statuses
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()
