"""Run all tests on one machine: folders that mostly wait (for Slurm, for Passenger) next to those that compute.

Each lane is a list of pytest sessions that run one after another; lanes run at the same time. What a session printed is shown when
it ends, and at the end the slowest tests and the closing line of every session. Any failure fails the whole.

    python tests/side_by_side.py [--only SESSION …] [--fast-unit-tests-ran] [--slurm-versions]
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOGS = HERE.parent / "build" / "tests"
SLOWEST = 25
DURATION = re.compile(r"^ *(\d+\.\d+)s (?:call|setup|teardown) +\S+", re.MULTILINE)
VERSIONS = HERE / "slurm_versions"
WAITING = {"slurm": ("slurm", "schedulers"), "portal": ("ood", "containers")}
"""Lanes of folders whose tests wait most of their time. In file order: their tests share clusters and servers."""


@dataclass(frozen=True)
class Session:
    """One run of pytest, or of a script that runs it."""

    name: str
    argv: Sequence[str]

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


def lanes(*, fast_unit_tests_ran: bool, slurm_versions: bool) -> list[list[Session]]:
    """Return what runs next to what; every folder with tests is in one of the lanes."""
    waiting = {folder for folders in WAITING.values() for folder in folders}
    tested = sorted({path.relative_to(HERE).parts[0] for path in HERE.glob("*/**/test_*.py")} - {"unit", VERSIONS.name})
    unit = ["tests/unit", "--numprocesses", "2", *(["-m", "slow"] if fast_unit_tests_ran else [])]
    planned = [
        [_pytest(name, "-p", "no:randomly", *(f"tests/{folder}" for folder in folders))] for name, folders in WAITING.items()
    ]
    planned.append([_pytest("unit", *unit), _pytest("jobs", *(f"tests/{folder}" for folder in tested if folder not in waiting))])
    if slurm_versions:
        planned[0].append(Session("slurm-versions", ["bash", "tests/slurm/versions.sh"]))
    return planned


def _pytest(name: str, *arguments: str) -> Session:
    return Session(name, [sys.executable, "-m", "pytest", f"--durations={SLOWEST}", *arguments])


class Runner:
    """Runs lanes and keeps what came of them."""

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        self._printing = threading.Lock()

    def run(self, lane: Sequence[Session]) -> None:
        """Run the sessions of a lane one after another."""
        for session in lane:
            began = time.monotonic()
            with session.log.open("wb") as log:
                child = subprocess.Popen(session.argv, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self._children.append(child)
                code = child.wait()
            with self._printing:
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                print(
                    f"===== {session.name}: {minutes}:{seconds:02} =====",
                    session.log.read_text("utf-8", "replace"),
                    sep="\n",
                    flush=True,
                )
                self.results[session.name] = code

    def interrupt(self) -> None:
        """End what runs in pytest's own way, which takes clusters and mounts down."""
        running = [child for child in self._children if child.poll() is None]
        for child in running:
            child.send_signal(signal.SIGINT)
        for child in running:
            child.wait()


def slowest(sessions: Sequence[Session]) -> Iterator[str]:
    """Return the lines of the slowest tests of all sessions."""
    durations = [
        (float(match[1]), match[0])
        for session in sessions
        for match in DURATION.finditer(session.log.read_text("utf-8", "replace"))
    ]
    return (line for _, line in sorted(durations, reverse=True)[:SLOWEST])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--fast-unit-tests-ran", action="store_true", help="run only the slow ones of tests/unit: `make check` ran the others"
    )
    parser.add_argument("--slurm-versions", action="store_true", help="run the tests with other versions of Slurm too")
    parser.add_argument("--only", nargs="+", metavar="SESSION", help="run only these: unit, jobs, slurm, portal")
    options = parser.parse_args()
    planned = lanes(fast_unit_tests_ran=options.fast_unit_tests_ran, slurm_versions=options.slurm_versions)
    if options.only:
        planned = [kept for lane in planned if (kept := [session for session in lane if session.name in options.only])]
    sessions = [session for lane in planned for session in lane]
    LOGS.mkdir(parents=True, exist_ok=True)
    for session in sessions:
        session.log.unlink(missing_ok=True)
    print(
        f"Running {', '.join(' then '.join(session.name for session in lane) for lane in planned)} side by side; logs in {LOGS}",
        flush=True,
    )
    runner = Runner()
    threads = [threading.Thread(target=runner.run, args=(lane,), daemon=True) for lane in planned]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        runner.interrupt()
    print(f"===== slowest {SLOWEST} =====", *slowest(sessions), "===== all =====", sep="\n")
    for session in sessions:
        print(f"{session.name:15}", session.log.read_text("utf-8", "replace").rstrip().rpartition("\n")[2])
    return max(map(abs, runner.results.values()))


if __name__ == "__main__":
    sys.exit(main())
