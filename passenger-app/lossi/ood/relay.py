"""Takes ``lossi run|sweep|jobs`` of a session's terminals and cells out of the container: ``python -m lossi.ood.relay SOCKET SESSION``.

Runs beside the container, on the node, as the user, and starts Lossi's own command there. The socket is a file of mode 0600 in a
folder of mode 0700, and who connects must be the same user. ``lossi`` inside is `shim`. Nothing of a portal session is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

COMMANDS = ("run", "sweep", "jobs", "runs", "env", "clusters", "project", "notebook")
LONGEST = 2**20
"""Bytes of one command."""
SUBMITTING = {"run", "sweep"}
PATIENCE_S = 10.0


class Relay(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The socket of one session.

    Parameters
    ----------
    path
        Where the socket is to be; at most 100 bytes.
    session
        Content of ``session.json``: what a command without ``--env`` or ``--cluster`` means.
    """

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, path: Path, session: dict[str, Any]) -> None:
        self.session = session
        mask = os.umask(0o177)
        try:
            super().__init__(str(path), Command)
        finally:
            os.umask(mask)


class Command(socketserver.StreamRequestHandler):
    """One command, from the first line to its exit code."""

    server: Relay

    def handle(self) -> None:
        _, user, _ = struct.unpack("3i", self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            return
        self.lock = threading.Lock()
        try:
            asked = json.loads(self.rfile.readline(LONGEST))
            argv, folder = [str(word) for word in asked["argv"]], str(asked["cwd"])
            if any(b"\0" in os.fsencode(word) for word in [*argv, folder]):
                raise ValueError("no program can receive it")
        except (ValueError, KeyError, TypeError, RecursionError):
            self.refuse("the command could not be read")
            return
        if not argv or argv[0] not in COMMANDS:
            self.refuse(f"inside a session there are: lossi {'|'.join(COMMANDS)}")
        elif not os.path.isabs(folder) or not os.path.isdir(folder):  # noqa: PTH112, PTH117  (need not be UTF-8)
            self.refuse(f"the folder {folder} is inside the container only: change to your project")
        else:
            self.run(self.completed(argv), folder, asked.get("columns"))

    def refuse(self, why: str) -> None:
        self.send(b"e", f"lossi: {why}\n".encode("utf-8", "replace"))
        self.send(b"x", b"2")

    def completed(self, argv: list[str]) -> list[str]:
        """Return a command with what this session means by it: its environment, on its cluster."""
        if argv[0] not in SUBMITTING:
            return argv
        meant = ["--env", self.server.session["environment"]]
        if not {"--here", "--scheduler"} & {word.partition("=")[0] for word in argv}:
            meant += ["--cluster", self.server.session["cluster"]]
        return [argv[0], *meant, *argv[1:]]  # what is said again later wins

    def run(self, argv: list[str], folder: str, columns: object) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
        variables["LOSSI_SITE"] = self.server.session["site"]
        if isinstance(columns, int):
            variables["COLUMNS"] = str(columns)
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", "lossi", *argv],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert child.stdout and child.stderr
        threads = [self.thread(self.pump, b"o", child.stdout), self.thread(self.pump, b"e", child.stderr)]
        self.thread(self.follow, child)
        for thread in threads:
            thread.join()
        self.send(b"x", str(child.wait()).encode())

    def thread(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        started = threading.Thread(target=work, args=arguments, daemon=True)
        started.start()
        return started

    def pump(self, kind: bytes, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), 65536):
            self.send(kind, data)

    def follow(self, child: subprocess.Popen[bytes]) -> None:
        """End a command whose terminal has gone, as Ctrl-C does."""
        with contextlib.suppress(OSError):
            self.request.recv(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE_S)
                return
            os.killpg(child.pid, signal.SIGKILL)

    def send(self, kind: bytes, data: bytes) -> None:
        with contextlib.suppress(OSError), self.lock:
            self.request.sendall(kind + struct.pack("!I", len(data)) + data)


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
    path, session = arguments
    with Relay(Path(path), json.loads(Path(session).read_bytes())) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
