"""A server on 127.0.0.1 or a unix socket that answers as slurmrestd was recorded to; it notes what it is asked."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
NOT_SERVED = (404, b"Unable find requested URL. Please view /openapi/v3 for API reference.")

API = {"22.05": "v0.0.38", "24.11": "v0.0.42"}
SLASH = {"22.05": "", "24.11": "/"}
TESTER1 = 1001


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: Any


Answerer = Callable[[Asked], tuple[int, bytes]]


@dataclass
class Served:
    """A running server: where it is, and what it was asked."""

    url: str
    answerer: Answerer
    asked: list[Asked] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


def recorded(version: str, name: str) -> dict[str, Any]:
    return json.loads((RECORDED / f"rest-{version}" / f"{name}.json").read_text())


def replay(version: str, answers: dict[str, str]) -> Answerer:
    """Answer requests whose "METHOD /path?query" begins so with the recorded answer of that name; of several the longest wins."""

    def answer(asked: Asked) -> tuple[int, bytes]:
        line = f"{asked.method} {asked.target}"
        known = max((start for start in answers if line.startswith(start)), key=len, default=None)
        if known is None:
            return NOT_SERVED
        answered = recorded(version, answers[known])
        return answered["status"], json.dumps(answered["document"]).encode() if answered["document"] else answered[
            "text"
        ].encode()

    return answer


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def serve(answerer: Answerer, socket: Path | None = None) -> Iterator[Served]:
    served = Served("", answerer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            request = Asked(self.command, self.path, dict(self.headers), body)
            served.asked.append(request)
            status, content = served.answerer(request)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                for name, value in served.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def address_string(self) -> str:
            return "test"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler) if socket is None else _UnixServer(str(socket), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}" if socket is None else ""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
