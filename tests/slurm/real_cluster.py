"""The cluster that the tests of this folder run on: a throw-away one of their own, or an existing one.

A throw-away cluster needs root on Debian or Ubuntu (`tests/provision.sh` installs the packages); each test session has its own
folder and ports. An existing one is named by environment variables (`existing_cluster`); the tests then run as the current user and
those that break something are skipped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import host
import installation
import pytest
from free_ports import free_ports
from installation import Installation

from lossi.clusters import Cluster, RestSettings

T = TypeVar("T")

SCRIPT = Path(__file__).with_name("cluster.sh")
USERS = ("lossi-tester1", "lossi-tester2")
CACHE = Path(os.environ.get("LOSSI_TEST_CACHE") or "/var/cache/lossi-tests")
PROGRAMS = ("slurmctld", "slurmd", "slurmrestd", "sbatch", "sacctmgr", "slurmdbd", "munged", "mariadbd", "mariadb-install-db")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SAVED_S = 15.0
"""slurmctld saves its state some five seconds after a change, later on a busy machine."""


class RestPlaces(NamedTuple):
    """Where slurmrestd answers: with a token at the address, as its user at the socket."""

    url: str
    socket: Path


@dataclass
class RealCluster:
    """What tests may rely on, whichever cluster it is."""

    conf: Path | None
    users: tuple[str, ...]
    """Whom commands can be run as; the first is the one to take where it does not matter."""
    projects: Path
    """Folder that nodes see and every user may enter."""
    partition: str | None = None
    gpu_partition: str | None = None
    account: str | None = None
    accounting: bool = True
    made: int = 0
    installed: list[Installation] = field(default_factory=list)

    @property
    def own(self) -> bool:
        """Whether it is ours to break."""
        return isinstance(self, OwnCluster)

    def model(self, **changes: Any) -> Cluster:
        """Return what Lossi knows of this cluster; it is asked anew each time and files are not waited for long."""
        values: dict[str, Any] = {"name": "ci", "conf": self.conf, "poll_interval_s": 0, "deadline_s": 10, "exit_grace_s": 2}
        if self.partition:
            values["default_partition"] = self.partition
        if self.account:
            values["account"] = {"default": self.account}
        return Cluster.model_validate({**values, **changes})

    def environment(self) -> dict[str, str]:
        """Return what a user's process on a login node has, but HOME and USER."""
        values = {"PATH": PATH, "LANG": "C.UTF-8"}
        if self.conf:
            values["SLURM_CONF"] = str(self.conf)
        return values

    def run_as(
        self,
        user: str,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        expect: int | None = 0,
        text: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user, ``text`` on its standard input; an exit code other than ``expect`` (None: any) fails the test."""
        process = subprocess.Popen(
            self.argv_as(user, [str(word) for word in argv]),
            cwd=cwd or self.home(user),
            env={**self.environment_of(user), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(text, timeout=timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if expect is not None and process.returncode != expect:
            pytest.fail(f"{shlex.join(map(str, argv))} as {user}: {process.returncode}\n{out}\n{err}")
        return subprocess.CompletedProcess(list(map(str, argv)), process.returncode, out, err)

    def argv_as(self, user: str, argv: list[str]) -> list[str]:
        assert user == self.users[0]
        return argv

    def home(self, user: str) -> Path:
        return Path(pwd.getpwnam(user).pw_dir)

    def environment_of(self, user: str) -> dict[str, str]:
        """Return the environment of a user's commands: state of Lossi in a place of this session alone."""
        state = self.projects / f"{user}-state"
        places = {name: str(state / name.lower()) for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        return {**self.environment(), "HOME": str(self.home(user)), "USER": user, "LOGNAME": user, **places}

    def project(self, user: str) -> Path:
        """Return a new, empty folder of the user's that nodes see."""
        self.made += 1
        folder = self.projects / f"{user}-{self.made}"
        folder.mkdir()
        self.give(folder, user)
        return folder

    def give(self, path: Path, user: str) -> None:
        """Make a path the user's."""

    @functools.cached_property
    def installation(self) -> Installation:
        """The Lossi that users run."""
        return Installation(Path(sys.prefix))

    def lossi(
        self,
        user: str,
        *arguments: str | Path,
        project: Path,
        expect: int | None = 0,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> Any:
        """Run the installed command in a project as a user and return what it says as JSON (text of ``logs`` as it is)."""
        words = [str(word) for word in arguments]
        # Before `--`, behind which everything belongs to the command that is run.
        at = words.index("--") if "--" in words else len(words)
        argv = [self.installation.command, *words[:at], "--json", *words[at:]]
        done = self.run_as(user, argv, cwd=project, env=env, timeout=timeout, expect=expect)
        try:
            return json.loads(done.stdout or done.stderr)  # a refusal is on the other one
        except ValueError:
            pytest.fail(f"{shlex.join(words)}: no JSON\n{done.stdout}\n{done.stderr}")

    def sbatch(self, user: str, body: str, *options: str, cwd: Path | None = None) -> int:
        """Submit a script of POSIX sh and return the job's id."""
        where = cwd or self.project(user)
        arguments = [*([f"--partition={self.partition}"] if self.partition else []), *options]
        answer = self.run_as(user, ["sbatch", "--parsable", *arguments], cwd=where, text=f"#!/bin/sh\n{body}\n").stdout
        return int(answer.split(";")[0])

    def job(self, user: str, job_id: int | str) -> dict[str, str]:
        """Return the fields of ``scontrol show job``, or none when slurmctld has forgotten the job."""
        text = self.run_as(user, ["scontrol", "-o", "show", "job", str(job_id)], expect=None).stdout.splitlines()[:1]
        return dict(word.split("=", 1) for line in text for word in line.split() if "=" in word)

    def sacct(self, user: str, job_id: int | str, *fields: str) -> list[dict[str, str]]:
        """Return the rows of the accounting database, all attempts, without steps."""
        argv = ["sacct", "-n", "-P", "-D", "-X", "-j", str(job_id), "-o", ",".join(fields)]
        lines = self.run_as(user, argv).stdout.splitlines()
        return [dict(zip(fields, line.split("|"), strict=True)) for line in lines]

    def wait(self, look: Callable[[], T], what: str = "") -> T:
        """Return the first true answer of ``look``; the test fails when none came within the time."""
        end = time.monotonic() + host.PATIENCE_S
        while not (answer := look()):
            if time.monotonic() > end:
                pytest.fail(f"not within {host.PATIENCE_S} s: {what or look}; last answer {answer!r}")
            time.sleep(0.05)
        return answer


@dataclass
class OwnCluster(RealCluster):
    """A throw-away cluster; `cluster.sh` says what it offers. Root runs the tests, and jobs as any of the users."""

    root: Path = Path()
    port: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    def argv_as(self, user: str, argv: list[str]) -> list[str]:
        # su, as a login does it: other ways to drop rights leave some of root's that hide faults of permission.
        return ["su", "-s", "/bin/sh", "--session-command", f"exec {shlex.join(argv)}", user]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "OOD_CLUSTERS": str(self.root / "etc" / "clusters.d")}

    def give(self, path: Path, user: str) -> None:
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)

    @functools.cached_property
    def installation(self) -> Installation:
        return self.install()

    def install(self) -> Installation:
        """Install the working tree anew."""
        python = installation.interpreter(self.users[0])
        base = installation.foundation(python, CACHE)
        packages = self.root / "wheel"
        if not packages.exists():
            packages.mkdir()
            installation.wheel(packages)
        self.installed.append(
            installation.install(python, base, next(packages.glob("*.whl")), self.root / f"lossi-{len(self.installed)}")
        )
        return self.installed[-1]

    def script(self, *words: str, **settings: str) -> str:
        """Run a subcommand of `cluster.sh` and return what it says."""
        done = subprocess.run(
            [str(SCRIPT), *words], env=self.script_environment(settings), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"cluster.sh {shlex.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def script_environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        fixed = {"SLURMCI_ROOT": str(self.root), "SLURMCI_PORT": str(self.port), "SLURMCI_USERS": " ".join(self.users)}
        return {"PATH": PATH, "SLURMCI_DBD": "1" if self.accounting else "0", **self.settings, **settings, **fixed}

    # -- faults ------------------------------------------------------------------------------------------------------

    def kill_ctld(self) -> None:
        """End slurmctld as a crash does, once it has saved what it last did: it forgets the jobs of its last seconds otherwise."""
        state = self.root / "state" / "job_state"
        words = self.scontrol("-o", "show", "jobs").split()
        stamps = [word.partition("=")[2] for word in words if word.startswith(("SubmitTime=", "StartTime=", "EndTime="))]
        now = time.time()
        last = max((at for stamp in stamps if "T" in stamp and (at := _local(stamp)) <= now), default=0.0)
        while time.time() < last + SAVED_S and not (state.exists() and state.stat().st_mtime >= last + 1):
            time.sleep(0.05)
        self.script("kill-ctld")

    def start_ctld(self) -> None:
        self.script("start-ctld")

    def kill_slurmd(self, node: str) -> None:
        """End a node's slurmd as a crash does; its jobs run on."""
        self.script("kill-slurmd", node)

    def start_slurmd(self, node: str) -> None:
        self.script("start-slurmd", node)

    def stop_dbd(self) -> None:
        self.script("stop-dbd")

    def start_dbd(self) -> None:
        self.script("start-dbd")

    @contextlib.contextmanager
    def configured(self, **settings: str) -> Iterator[None]:
        """Run slurmctld with other variables of `cluster.sh` (``SLURMCI_MAXARRAY="10"``) for the time of the block."""
        self._configure(settings)
        try:
            yield
        finally:
            self._configure({})

    def _configure(self, settings: dict[str, str]) -> None:
        self.script("stop-ctld")
        self.script("configure", **settings)
        self.start_ctld()

    def scontrol(self, *words: str) -> str:
        """Run scontrol as root."""
        done = subprocess.run(["scontrol", *words], env=self.environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_now(self, job_id: int | str) -> None:
        """Let a requeued job start: Slurm holds it back for two minutes, because a node refuses it within the second of its end."""

        def started() -> bool:
            shown = self.job("root", job_id)
            soon = datetime.fromtimestamp(time.time() + 10).isoformat()
            if shown.get("Reason") == "BeginTime" and shown["EligibleTime"] > soon:
                self.scontrol("update", f"jobid={job_id}", "starttime=now+2")
            return shown.get("JobState") not in ("PENDING", "COMPLETING")

        self.wait(started, f"job {job_id} starts again")

    def rest_up(self, user: str) -> RestPlaces:
        """Start slurmrestd for all by token, and one for the user on a socket; those that run already are kept."""
        url, path = self.script("rest-up", user).split()
        return RestPlaces(url, Path(path))

    def rest_down(self) -> None:
        self.script("rest-down")

    def rest_door(self, user: str) -> RestSettings:
        """Return how Lossi reaches slurmrestd by token as the user."""
        words = ("env", f"SLURM_CONF={self.conf}", "scontrol", "token", "lifespan=3600")
        return RestSettings(url=self.rest_up(user).url, token_command=words)


def why_not_own() -> str:
    """Return why no throw-away cluster can be had here; empty when it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if os.geteuid() == 0 and Path("/etc/debian_version").exists() and not missing:
        return ""
    return "no Slurm: needs root on Debian or Ubuntu with the packages of tests/provision.sh, or LOSSI_TEST_CLUSTER=1 for an existing one"


@contextlib.contextmanager
def throw_away(*, accounting: bool = True, users: tuple[str, ...] = USERS, **settings: str) -> Iterator[OwnCluster]:
    """Start a cluster; it ends with the block, and also when this process ends in any other way."""
    root = Path(tempfile.mkdtemp(prefix="lossi-slurm-", dir="/var/tmp"))
    root.chmod(0o755)
    projects = root / "projects"
    projects.mkdir(mode=0o755)
    cluster = OwnCluster(
        conf=root / "etc" / "slurm.conf",
        users=users,
        projects=projects,
        partition="small",
        gpu_partition="gpu",
        account="proj1" if accounting else None,
        accounting=accounting,
        root=root,
        port=free_ports(),
        settings=settings,
    )
    # It waits for the end of its standard input, which comes when this process closes it or ceases to be.
    guard = subprocess.Popen(
        [str(SCRIPT), "guard"],
        env={**cluster.script_environment({}), "SLURMCI_KEEP": os.environ.get("LOSSI_TEST_KEEP", "")},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        cluster.script("up")
        for user in users:
            (projects / f"{user}-state").mkdir()
            cluster.give(projects / f"{user}-state", user)
        yield cluster
    finally:
        assert guard.stdin
        guard.stdin.close()
        guard.wait(300)  # a thousand tasks take a while to end


def _local(stamp: str) -> float:
    return datetime.fromisoformat(stamp).astimezone().timestamp()
