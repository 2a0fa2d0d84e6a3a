"""One session: starts Jupyter on a port of its own, hands port and password to Open OnDemand, reports until Jupyter ends."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from typing import Any

from . import proc, status

CONNECTION, PRIVATE, LOG = "connection.session", "private", "jupyter.log"
CONFIG = "jupyter_config.py"
"""In the folder of this file; reads ``private/settings.json``."""
PASSWORD_LETTERS = 32
"""182 bits; letters only, because Open OnDemand writes the password into YAML without quotes."""
PATIENCE_S = 300.0
"""The first start reads some hundred MB from a filesystem that may be busy."""
SAMPLE_S, REPORT_S, GRACE_S = 10.0, 60.0, 20.0
UNFLUSHED = 120
"""Python's exit code if all went well but the disk had no space for the last lines of its log."""


class Failure(Exception):
    """Why there is no session, for the card."""


class PortTaken(Exception):
    """Another process listens at the port."""


class Session:
    """One session in its folder.

    Parameters
    ----------
    folder
        Absolute path of the folder, with ``session.json`` in it.
    host
        The node's name as the portal's proxy will use it.
    """

    def __init__(self, folder: str, host: str) -> None:
        self.folder, self.host = folder, host
        with open(os.path.join(folder, "session.json"), encoding="utf-8") as stream:
            self.options: dict[str, Any] = json.load(stream)
        self.began = time.time()
        self.child: subprocess.Popen[bytes] | None = None
        self.password = ""
        self.stopped = False
        self.peak = 0
        self.cpu_s = 0.0

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def report(self, state: str, why: str = "", log: list[str] | None = None) -> None:
        """Write ``status.json``."""
        fields = {
            "state": state,
            "why": why,
            "log": log or [],
            "environment": self.options["title"],
            "host": self.host,
            "cores": self.options["cores"],
            "memory_mb": self.options["memory_mb"],
            "time_s": self.options.get("time_s"),
            "elapsed_s": round(time.time() - self.began),
            "cpu_s": round(self.cpu_s),
            "peak_mb": round(self.peak / 2**20),
        }
        status.report(self.path(status.FILE), fields)

    def tail(self, lines: int = 15) -> list[str]:
        """Return the last lines of Jupyter's log, without control sequences."""
        try:
            with open(self.path(LOG), "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - 8192))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return [re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", line)[:300] for line in text.splitlines()[-lines:]]

    def run(self, ports: list[int]) -> int:
        """Run Jupyter until it ends and return the exit code."""
        self.report("starting")
        try:
            self.check_packages()
            os.makedirs(self.path(PRIVATE), mode=0o700, exist_ok=True)
            os.chmod(self.path(PRIVATE), 0o700)
            port = self.start_on(ports)
            status.replace(self.path(CONNECTION), f"{port}\n{self.password}\n{self.interface()[1]}\n")
        except (Failure, OSError) as error:
            self.end()
            if self.stopped:
                self.report("ended", "it was stopped before Jupyter started")
                return 0
            why, log = status.FULL if status.is_full(error) else str(error), self.tail()
            self.report("failed", why, log)
            with contextlib.suppress(OSError):
                print(f"lossi: {why}", *log, sep="\n", file=sys.stderr, flush=True)
            return 1
        self.report("ready")
        self.watch()
        code = self.end()
        if code not in (0, UNFLUSHED) and not self.stopped:
            self.report("failed", f"Jupyter ended unexpectedly (exit code {code})", self.tail())
            return 1
        self.report("ended")
        return 0

    def check_packages(self) -> None:
        """Refuse an environment in which Jupyter cannot start."""
        for name, module in (("JupyterLab", "jupyterlab"), ("argon2-cffi", "argon2")):
            if importlib.util.find_spec(module) is None:
                raise Failure(
                    f"the environment {self.options['environment']} has no {name}: choose another one, or install it there"
                )

    def hashed(self) -> str:
        """Return the password's hash as Jupyter keeps it, with the costs that Jupyter itself uses."""
        if not self.password:
            import secrets

            self.password = "".join(secrets.choice(string.ascii_letters) for _ in range(PASSWORD_LETTERS))
        import argon2

        digest: str = argon2.PasswordHasher(memory_cost=10240, time_cost=10, parallelism=8).hash(self.password)
        return f"argon2:{digest}"

    def start_on(self, ports: list[int]) -> int:
        """Start Jupyter on the first free port and return it."""
        address = proc.own_address(self.host)
        for port in ports:
            if self.stopped:
                break
            if not proc.is_free(address, port):
                continue
            try:
                self.start(address, port)
            except PortTaken:
                self.end()
                continue
            return port
        raise Failure("no free port was found on this node; please start the session again")

    def interface(self) -> tuple[str, str, str]:
        """Return module, name and first page; without Notebook, JupyterLab shows one document at a time."""
        if self.options["interface"] == "lab":
            return "jupyterlab", "JupyterLab", "/lab"
        if importlib.util.find_spec("notebook") is None:
            return "jupyterlab", "JupyterLab", "/doc"
        return "notebook", "Notebook", "/tree"

    def start(self, address: str, port: int) -> None:
        """Start Jupyter and wait until it answers.

        Raises
        ------
        PortTaken
            If another process listens at the port.
        Failure
            If Jupyter does not answer within `PATIENCE_S`, ends, or is stopped.
        """
        module, _, page = self.interface()
        base = f"/node/{self.host}/{port}/"
        settings_file = self.path(PRIVATE, "settings.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(settings_file)
        config = os.path.join(os.path.dirname(os.path.abspath(__file__)), CONFIG)
        argv = [sys.executable, "-I", "-m", module, f"--config={config}"]
        with open(self.path(LOG), "ab") as log:
            self.child = subprocess.Popen(
                argv, cwd=self.options["folder"], env=self.variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        # Hashing takes less time than loading Jupyter, which waits for this file.
        settings = {"address": address, "port": port, "base": base, "page": page, "folder": self.options["folder"]}
        settings.update(origin=self.options["origin"].lower(), hashed=self.hashed())
        status.replace(settings_file, json.dumps(settings))
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers(address, port, base):
            if self.stopped:
                raise Failure("it was stopped")
            if time.monotonic() > deadline:
                raise Failure(f"Jupyter did not answer within {PATIENCE_S:.0f} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.child.wait(0.05)
                if proc.listeners(port):
                    raise PortTaken
                raise Failure(f"Jupyter did not start (exit code {code})")

    def answers(self, address: str, port: int, base: str) -> bool:
        """Return whether Jupyter answers at the port, once the socket is known to be its own."""
        assert self.child
        listening = proc.listeners(port)
        if any(owner != os.getuid() for owner, _ in listening):
            raise PortTaken
        if not any(inode in proc.sockets(self.child.pid) for _, inode in listening):
            return False
        try:
            with socket.create_connection(({"0.0.0.0": "127.0.0.1"}.get(address, address), port), 10) as connection:
                connection.sendall(f"GET {base}api HTTP/1.0\r\nHost: {self.host}:{port}\r\n\r\n".encode())
                return re.match(rb"HTTP/1\.[01] [1-4]", connection.recv(64)) is not None
        except OSError:
            return False

    def variables(self) -> dict[str, str]:
        """Return Jupyter's variables: kernels of the environment come before those in the user's home."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))}
        # `lossi` in the session's bin hands its command to the relay.
        kept["PATH"] = os.pathsep.join([self.path("bin"), os.path.dirname(sys.executable), kept.get("PATH") or os.defpath])
        # Kernels' keys: on the node's own disk, which has space when the home folder is full.
        runtime = tempfile.mkdtemp(prefix="jupyter-")
        return {**kept, "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_RUNTIME_DIR": runtime}

    def watch(self) -> None:
        """Record what the session uses until Jupyter ends."""
        assert self.child
        sampled = reported = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(0.5)
                return
            now = time.monotonic()
            if now - sampled >= SAMPLE_S:
                self.sample()
                sampled = now
            # At once if stopped: the scheduler may kill this process before Jupyter has ended.
            if now - reported >= (0 if self.stopped else REPORT_S):
                self.report("ended" if self.stopped else "ready")
                reported = now

    def sample(self) -> None:
        cpu_s, memory = proc.usage(os.getpid())
        self.cpu_s, self.peak = max(self.cpu_s, cpu_s), max(self.peak, memory)

    def stop(self, *_: object) -> None:
        """End the session on a signal of the scheduler; record its usage first."""
        self.stopped = True
        self.sample()
        if self.child:
            self.child.terminate()

    def end(self) -> int:
        """End Jupyter if it still runs, and return its exit code."""
        if self.child is None:
            return 0
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
        code = self.child.wait()
        self.cpu_s = max(self.cpu_s, sum(os.times()[:4]))
        return code


def main(arguments: list[str]) -> int:
    """Run the session in a folder."""
    folder, host, *ports = arguments
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", host):
        sys.stderr.write(f"lossi: {host!r} is not a host name\n")
        return 1
    session = Session(folder, host)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, session.stop)
    return session.run([int(port) for port in ports if port.isdigit() and 1024 <= int(port) <= 65535])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
