"""Runs ``lossi`` commands of a session's terminals and cells outside the container: ``python -m lossi.ood.relay SOCKET SESSION``.

It runs on the node, as the user, and starts Lossi's command there. The socket has mode 0600 in a folder of mode 0700, and the
peer must be the same user. ``lossi`` inside the container is `shim`. It needs no portal session.
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

from lossi import processes

COMMANDS = ("run", "sweep", "jobs", "runs", "env", "clusters", "project", "notebook")
LONGEST = 2**20
"""Bytes of a command."""
SUBMITTING = {"run", "sweep"}
PATIENCE_S = 10.0


class Relay(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The socket of one session.

    Parameters
    ----------
    path
        Of the socket; at most 100 bytes.
    session
        Content of ``session.json``; has the defaults of ``--env`` and ``--cluster``.
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
    """One command, from its line of JSON to its exit code."""

    server: Relay

    def handle(self) -> None:
        _, user, _ = struct.unpack("3i", self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            return
        self.lock = threading.Lock()
        try:
            command = json.loads(self.rfile.readline(LONGEST))
            argv, folder = [str(word) for word in command["argv"]], str(command["cwd"])
            if any(b"\0" in os.fsencode(word) for word in [*argv, folder]):
                raise ValueError("a NUL cannot be passed to a program")
        except (ValueError, KeyError, TypeError, RecursionError):
            self.refuse("the command could not be read")
            return
        if not argv or argv[0] not in COMMANDS:
            self.refuse(f"inside a session, use lossi {'|'.join(COMMANDS)}")
        elif not os.path.isabs(folder) or not os.path.isdir(folder):  # noqa: PTH112, PTH117  (need not be UTF-8)
            self.refuse(f"the folder {folder} exists only inside the container: change to your project")
        else:
            self.run(self.with_defaults(argv), folder, command.get("columns"))

    def refuse(self, why: str) -> None:
        self.send(b"e", f"lossi: {why}\n".encode("utf-8", "replace"))
        self.send(b"x", b"2")

    def with_defaults(self, argv: list[str]) -> list[str]:
        """Return a command that submits by default in the session's environment, on its cluster."""
        if argv[0] not in SUBMITTING:
            return argv
        defaults = ["--env", self.server.session["environment"]]
        if not {"--here", "--scheduler"} & {word.partition("=")[0] for word in argv}:
            defaults += ["--cluster", self.server.session["cluster"]]
        return [argv[0], *defaults, *argv[1:]]  # the last of an option given twice counts

    def run(self, argv: list[str], folder: str, columns: object) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
        variables["LOSSI_SITE"] = self.server.session["site"]
        if isinstance(columns, int):
            variables["COLUMNS"] = str(columns)
        child = processes.start(
            [sys.executable, "-I", "-m", "lossi", *argv],
            environment=variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdout and child.stderr
        pumps = [self.thread(self.pump, b"o", child.stdout), self.thread(self.pump, b"e", child.stderr)]
        self.thread(self.follow, child)
        for pump in pumps:
            pump.join()
        self.send(b"x", str(child.wait()).encode())

    def thread(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread

    def pump(self, kind: bytes, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), 65536):
            self.send(kind, data)

    def follow(self, child: subprocess.Popen[bytes]) -> None:
        """Interrupt a command whose terminal is gone, as Ctrl-C does."""
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
    """Serve until SIGTERM."""
    path, session = arguments
    with Relay(Path(path), json.loads(Path(session).read_bytes())) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
