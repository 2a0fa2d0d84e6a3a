"""What starts Jupyter on the node, inside the environment: a password, a port that is really ours, and why it failed if it did.

Copied into the folder of a session and run there as ``python3 -I session.py FOLDER HOST PORT…`` by the environment's own Python, 3.9
or later; imports nothing of Lossi. Secrets are made here and lie only in files of mode 0600. The card reads ``status.json``, Jupyter
itself `jupyter_config`.
"""

from __future__ import annotations

import contextlib
import errno
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

STATUS, CONNECTION, PRIVATE, LOG = "status.json", "connection.session", "private", "jupyter.log"
CONFIG = "jupyter_lossi_config.py"
"""Lies beside this file; reads ``private/settings.json``."""
PASSWORD_LETTERS = 32
"""Letters only, because Open OnDemand writes them into YAML without quotes; 182 bits."""
PATIENCE_S = 300.0
"""The first start reads some hundred MB from a filesystem that may be busy."""
SAMPLE_S, REPORT_S, GRACE_S = 10.0, 60.0, 20.0
STATUS_BYTES = 8192
"""Of every ``status.json``: where no room is left, the next one is written over it."""
FULL = "no room is left in the folder of this session, mostly your home folder: remove files there or ask for more room"
LISTENING = "0A"
UNFLUSHED = 120
"""Python's exit code when all went well but the last lines of its log found no room."""


class Failure(Exception):
    """Why there is no session, for the card."""


class PortTaken(Exception):
    """Somebody else listens where Jupyter was to."""


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
            self.asked: dict[str, Any] = json.load(stream)
        self.began = time.time()
        self.child: subprocess.Popen[bytes] | None = None
        self.password = ""
        self.stopped = False
        self.peak = 0
        self.cpu_s = 0.0

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def report(self, state: str, why: str = "", log: list[str] | None = None) -> None:
        """Write ``status.json``; a full disk is no reason to end a session, nor to keep its user in the dark."""
        status = {
            "state": state,
            "why": why,
            "log": log or [],
            "environment": self.asked["title"],
            "host": self.host,
            "cores": self.asked["cores"],
            "memory_mb": self.asked["memory_mb"],
            "time_s": self.asked.get("time_s"),
            "elapsed_s": round(time.time() - self.began),
            "cpu_s": round(self.cpu_s),
            "peak_mb": round(self.peak / 2**20),
        }
        try:
            replace(self.path(STATUS), padded(status))
        except OSError as error:
            if why and is_full(error) and FULL not in why:
                status["why"] = f"{why}; {FULL}"
            with contextlib.suppress(OSError):
                write_over(self.path(STATUS), padded(status))

    def tail(self, lines: int = 15) -> list[str]:
        """Return the last lines of Jupyter's log, without what a terminal would act upon."""
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
            self.look()
            os.makedirs(self.path(PRIVATE), mode=0o700, exist_ok=True)
            os.chmod(self.path(PRIVATE), 0o700)
            port = self.started(ports)
            replace(self.path(CONNECTION), f"{port}\n{self.password}\n{self.interface()[1]}\n")
        except (Failure, OSError) as error:
            self.end()
            if self.stopped:
                self.report("ended", "it was stopped before Jupyter had started")
                return 0
            why, log = FULL if is_full(error) else str(error), self.tail()
            self.report("failed", why, log)
            with contextlib.suppress(OSError):
                print(f"lossi: {why}", *log, sep="\n", file=sys.stderr, flush=True)
            return 1
        self.report("ready")
        self.watch()
        code = self.end()
        if code not in (0, UNFLUSHED) and not self.stopped:
            self.report("failed", f"Jupyter ended by itself with code {code}", self.tail())
            return 1
        self.report("ended")
        return 0

    def look(self) -> None:
        """Refuse an environment in which Jupyter cannot start."""
        for name, module in (("JupyterLab", "jupyterlab"), ("argon2-cffi", "argon2")):
            if importlib.util.find_spec(module) is None:
                raise Failure(
                    f"the environment {self.asked['environment']} has no {name}: choose another one, or install it there"
                )

    def hashed(self) -> str:
        """Return the password as Jupyter keeps it, with the costs that Jupyter itself uses."""
        if not self.password:
            import secrets

            self.password = "".join(secrets.choice(string.ascii_letters) for _ in range(PASSWORD_LETTERS))
        import argon2

        found: str = argon2.PasswordHasher(memory_cost=10240, time_cost=10, parallelism=8).hash(self.password)
        return f"argon2:{found}"

    def started(self, ports: list[int]) -> int:
        """Start Jupyter on the first port that is free and ours, and return it."""
        address = own_address(self.host)
        for port in ports:
            if self.stopped:
                break
            if not is_free(address, port):
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
        if self.asked["interface"] == "lab":
            return "jupyterlab", "JupyterLab", "/lab"
        if importlib.util.find_spec("notebook") is None:
            return "jupyterlab", "JupyterLab", "/doc"
        return "notebook", "Notebook", "/tree"

    def start(self, address: str, port: int) -> None:
        module, _, page = self.interface()
        base = f"/node/{self.host}/{port}/"
        place = self.path(PRIVATE, "settings.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        argv = [sys.executable, "-I", "-m", module, f"--config={self.path(CONFIG)}"]
        with open(self.path(LOG), "ab") as log:
            self.child = subprocess.Popen(
                argv, cwd=self.asked["folder"], env=self.variables(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        # While it loads: that takes it longer.
        told = {"address": address, "port": port, "base": base, "page": page, "folder": self.asked["folder"]}
        replace(place, json.dumps({**told, "origin": self.asked["origin"].lower(), "hashed": self.hashed()}))
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers(address, port, base):
            if self.stopped:
                raise Failure("it was stopped")
            if time.monotonic() > deadline:
                raise Failure(f"Jupyter did not answer within {PATIENCE_S:.0f} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.child.wait(0.05)
                if listeners(port):
                    raise PortTaken
                raise Failure(f"Jupyter did not start (exit code {code})")

    def answers(self, address: str, port: int, base: str) -> bool:
        """Return whether Jupyter answers at the port, once the socket is known to be its own."""
        assert self.child
        found = listeners(port)
        if any(owner != os.getuid() for owner, _ in found):
            raise PortTaken
        if not any(inode in sockets(self.child.pid) for _, inode in found):
            return False
        try:
            with socket.create_connection(({"0.0.0.0": "127.0.0.1"}.get(address, address), port), 10) as asked:
                asked.sendall(f"GET {base}api HTTP/1.0\r\nHost: {self.host}:{port}\r\n\r\n".encode())
                return re.match(rb"HTTP/1\.[01] [1-4]", asked.recv(64)) is not None
        except OSError:
            return False

    def variables(self) -> dict[str, str]:
        """Return Jupyter's environment: the kernels of the environment come before those in the user's home."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))}
        folder = os.path.dirname(sys.executable)
        # `lossi` there hands its command to the relay.
        kept["PATH"] = os.pathsep.join([self.path("bin"), folder, kept.get("PATH") or os.defpath])
        # Kernels' keys: on the node's own disk, where there is room for them when the home folder is full.
        runtime = tempfile.mkdtemp(prefix="jupyter-")
        return {**kept, "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_RUNTIME_DIR": runtime}

    def watch(self) -> None:
        """Note what the session uses until Jupyter ends."""
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
            # Once stopped, at once: the scheduler's patience may end before Jupyter does.
            if now - reported >= (0 if self.stopped else REPORT_S):
                self.report("ended" if self.stopped else "ready")
                reported = now

    def sample(self) -> None:
        cpu_s, memory = usage(os.getpid())
        self.cpu_s, self.peak = max(self.cpu_s, cpu_s), max(self.peak, memory)

    def stop(self, *_: object) -> None:
        """End the session as the scheduler asks; what it used is noted first."""
        self.stopped = True
        self.sample()
        if self.child:
            self.child.terminate()

    def end(self) -> int:
        """Make sure that Jupyter has ended, and return its exit code."""
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


def own_address(host: str) -> str:
    """Return the node's address by the name that the proxy uses, so that nothing else of it listens; else all addresses."""
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)]
    except OSError:
        found = []
    return next((one for one in found if not one.startswith("127.")), "0.0.0.0")


def is_free(address: str, port: int) -> bool:
    """Return whether nobody listens at a port of any address, and it can be had."""
    if listeners(port):
        return False
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((address, port))
        except OSError:
            return False
    return True


def listeners(port: int, table: str = "/proc/net") -> list[tuple[int, str]]:
    """Return (user id, inode) of each socket that listens at a port of this machine, whatever its address."""
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(os.path.join(table, name), encoding="ascii") as stream:
            for line in stream.readlines()[1:]:
                words = line.split()
                if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                    found.append((int(words[7]), words[9]))
    return found


def sockets(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def usage(root: int) -> tuple[float, int]:
    """Return the CPU seconds and bytes of memory of a process and all below it."""
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    used: dict[int, tuple[int, int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stream:
            words = stream.read().rpartition(b")")[2].split()
            parents[int(name)] = int(words[1])
            used[int(name)] = (sum(map(int, words[11:15])), int(words[21]) * page)
    ours = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in ours and pid not in ours}
        if not more:
            break
        ours |= more
    mine = [used[pid] for pid in ours if pid in used]
    return sum(cpu for cpu, _ in mine) / tick, sum(memory for _, memory in mine)


def write(path: str, text: str) -> None:
    """Write a file that nobody else can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def replace(path: str, text: str) -> None:
    """Write such a file so that it is there as a whole or not at all."""
    try:
        write(path + ".part", text)
        os.replace(path + ".part", path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path + ".part")
        raise


def write_over(path: str, text: str) -> None:
    """Write into the room that a file has; nothing is written where that is too little."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size == len(text):
            os.pwrite(descriptor, text.encode("ascii"), 0)
    finally:
        os.close(descriptor)


def padded(status: dict[str, Any]) -> str:
    """Return a status as text of `STATUS_BYTES`, without the first lines of its log where it is longer."""
    while len(text := json.dumps(status)) > STATUS_BYTES and status["log"]:
        status = {**status, "log": status["log"][1:]}
    return text.ljust(STATUS_BYTES)


def waiting(title: str) -> str:
    """Return the status of a session that has not begun; it is written where the form is sent, while there is room."""
    return padded({"state": "waiting", "environment": title, "log": []})


def is_full(error: Exception) -> bool:
    """Return whether there is no room for what was to be written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def main(arguments: list[str]) -> int:
    """Run the session that lies in a folder."""
    folder, host, *ports = arguments
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", host):
        sys.stderr.write(f"lossi: {host!r} is no name of a node\n")
        return 1
    session = Session(folder, host)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, session.stop)
    return session.run([int(port) for port in ports if port.isdigit() and 1024 <= int(port) <= 65535])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
