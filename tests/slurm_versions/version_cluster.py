"""A cluster in another Debian system, its clients, and questions asked as an ordinary user."""

from __future__ import annotations

import _strptime  # noqa: F401 - loaded late otherwise, by users to whom root's own Python may be closed
import os
import pickle
import pwd
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import host
import pytest

from lossi.clusters import Cluster, PySlurmSettings, RestSettings
from lossi.jobs.schedulers.slurm.cli import CliClient
from lossi.jobs.schedulers.slurm.client import SlurmClient
from lossi.jobs.schedulers.slurm.pyslurm import PySlurmClient
from lossi.jobs.schedulers.slurm.rest import RestClient

T = TypeVar("T")
CLIENTS = {"slurm_cli": CliClient, "slurm_rest": RestClient, "slurm_pyslurm": PySlurmClient}


@dataclass(frozen=True)
class VersionCluster:
    """What versions.sh says of one cluster."""

    suite: str
    release: str
    root: str
    conf: str
    bin: str
    rest: str
    sockets: str
    python: str

    def model(self, scheduler: str) -> Cluster:
        return Cluster(
            name="ci",
            scheduler=scheduler,
            bin=Path(self.bin),
            conf=Path(self.conf),
            rest=RestSettings(socket=Path(self.sockets)),
            pyslurm=PySlurmSettings(python=Path(self.python), chroot=Path(self.root), any_version=True) if self.python else None,
            deadline_s=15,
        )

    def access(self, scheduler: str) -> Access:
        return Access(self, scheduler)


@dataclass(frozen=True)
class Access:
    """A client of a cluster, used as one of its users."""

    cluster: VersionCluster
    scheduler: str

    def ask(self, question: Callable[[SlurmClient], T], user: str = "lossi-tester1") -> T:
        return as_user(user, lambda: question(CLIENTS[self.scheduler](self.cluster.model(self.scheduler))))

    def wait(self, question: Callable[[SlurmClient], T]) -> T:
        """Return the first true answer; the test fails when none came within the time."""
        end = time.monotonic() + host.PATIENCE_S
        while not (answer := self.ask(question)):
            if time.monotonic() > end:
                queue = self.ask(lambda client: client.queue())
                pytest.fail(f"not within {host.PATIENCE_S} s; last answer {answer!r}; queue {str(queue)[:2000]}")
            time.sleep(0.2)
        return answer


def home_of(user: str) -> Path:
    return Path(pwd.getpwnam(user).pw_dir)


def as_user(user: str, function: Callable[[], T]) -> T:
    """Return what a function returns, or raise what it raises, in a child process that is the user's."""
    account = pwd.getpwnam(user)
    if os.getuid() == account.pw_uid:
        return function()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.initgroups(user, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            os.environ.update(HOME=account.pw_dir, USER=user, LOGNAME=user, PATH="/usr/bin:/bin")
            os.chdir(account.pw_dir)
            signal.alarm(120)
            try:
                outcome: tuple[bool, object] = (True, function())
            except Exception as error:
                error.add_note(traceback.format_exc())  # a traceback cannot be handed over
                outcome = (False, error)
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(outcome, stream)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if status:
        pytest.fail(f"the user's process ended with status {status}")
    fine, answer = pickle.loads(text)
    if not fine:
        raise answer
    return answer
