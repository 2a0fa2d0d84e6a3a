"""The lease has one holder at a time, and a dead holder does not block the next."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi.tracking.ingest import lease as leases
from lossi.tracking.ingest.lease import LEASE, LOCK, STALE_S, LeaseLost, acquire_lease


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write_lease(folder: Path, **changes: object) -> None:
    """Write the lease of another holder."""
    holder = leases._me("somebody").__dict__ | changes
    (folder / LEASE).write_text(json.dumps(holder))


def test_only_one_process_holds_it_until_it_is_released(folder: Path) -> None:
    with acquire_lease(folder) as held:
        assert held is not None
        held.verify()
        assert acquire_lease(folder) is None
    assert not (folder / LEASE).exists()
    with acquire_lease(folder) as second:
        assert second is not None
    assert {path.name for path in folder.iterdir()} == {LOCK}


def test_without_working_locks_the_lease_file_keeps_others_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(leases.fcntl, "flock", none)
    with acquire_lease(folder) as held:
        assert held is not None
        assert acquire_lease(folder) is None


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({"pid": 2**22 + 1}, True),
        ({"started": "1"}, True),
        ({"boot": "another"}, True),
        ({"host": "elsewhere", "pid": 2**22 + 1}, False),
        ({"namespace": "pid:[1]", "pid": 2**22 + 1}, False),
        ({}, False),
    ],
    ids=["ended", "reused id", "rebooted", "another host", "another container", "alive"],
)
def test_the_lease_of_a_dead_holder_is_taken_over(folder: Path, changes: dict[str, object], free: bool) -> None:
    write_lease(folder, **changes)
    with _released(acquire_lease(folder)) as lease:
        assert (lease is not None) == free
    assert not list(folder.glob(".*"))


def test_a_holder_on_another_host_loses_it_after_a_minute_without_an_update(folder: Path) -> None:
    write_lease(folder, host="elsewhere")
    old = time.time() - STALE_S - 5
    os.utime(folder / LEASE, (old, old))
    lease = acquire_lease(folder)
    assert lease is not None
    lease.release()


def test_an_unreadable_lease_is_respected_for_a_minute(folder: Path) -> None:
    (folder / LEASE).write_text("{")
    assert acquire_lease(folder) is None
    os.utime(folder / LEASE, (1, 1))
    lease = acquire_lease(folder)
    assert lease is not None
    lease.release()


def test_a_late_holder_notices_and_leaves_the_new_lease_alone(folder: Path) -> None:
    slow = acquire_lease(folder)
    assert slow is not None
    write_lease(folder, token="another")
    with pytest.raises(LeaseLost):
        slow.verify()
    slow.release()
    assert json.loads((folder / LEASE).read_text())["token"] == "another"


def test_a_beat_updates_the_modification_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.0)
    with _released(acquire_lease(folder)) as lease:
        assert lease is not None
        os.utime(folder / LEASE, (1, 1))
        lease.beat()
        assert (folder / LEASE).stat().st_mtime > 1


def test_a_lease_that_changed_before_its_removal_is_put_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes find the same lease stale; the slower one has moved the new lease of the faster one."""
    write_lease(folder, pid=2**22 + 1)
    real: Callable[[Path], object] = leases._read
    calls = []

    def read(path: Path) -> object:
        holder = real(path)
        calls.append(path)
        if len(calls) == 2:  # the last check before the move
            write_lease(folder, token="faster")
        return holder

    monkeypatch.setattr(leases, "_read", read)
    assert acquire_lease(folder) is None
    assert json.loads((folder / LEASE).read_text())["token"] == "faster"


def test_fifty_processes_after_a_death_get_one_holder_at_a_time(folder: Path) -> None:
    """Without locks only the lease file decides; each holder appends twice and must not be interrupted."""
    write_lease(folder, pid=2**22 + 1)
    code = """
import sys, time
from pathlib import Path
from lossi.tracking.ingest import lease
def none(*_): raise OSError(38, "Function not implemented")
lease.fcntl.flock = none
folder = Path(sys.argv[1])
import os
children = []
for number in range(50):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            until = time.monotonic() + 300
            while time.monotonic() < until:
                held = lease.acquire_lease(folder)
                if held is None:
                    time.sleep(0.005)
                    continue
                with held:
                    for word in ("in", "out"):
                        held.verify()
                        with (folder / "log").open("a") as stream: stream.write(f"{word} {number}\\n")
                        time.sleep(0.002)
                    held.verify()
                status = 0
                break
        finally:
            os._exit(status)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=500)
    lines = (folder / "log").read_text().splitlines()
    assert len(lines) == 100
    assert all(lines[i] == f"in {lines[i].split()[1]}" and lines[i + 1] == f"out {lines[i].split()[1]}" for i in range(0, 100, 2))
    assert not (folder / LEASE).exists()


def test_another_users_process_with_a_hidden_start_time_counts_as_alive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lease(folder, pid=1, started="5")

    def not_mine(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(leases.os, "kill", not_mine)
    assert acquire_lease(folder) is None


def test_the_lease_file_identifies_this_process(folder: Path) -> None:
    with _released(acquire_lease(folder)):
        holder = json.loads((folder / LEASE).read_text())
    assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())


class _released:  # noqa: N801 - reads as a word in the with statement
    """Release a lease at the end, if there is one."""

    def __init__(self, lease: leases.Lease | None) -> None:
        self.lease = lease

    def __enter__(self) -> leases.Lease | None:
        return self.lease

    def __exit__(self, *_: object) -> None:
        if self.lease is not None:
            self.lease.release()
