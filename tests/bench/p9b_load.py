"""P9b: twenty users look at their job lists, each with ten clients that ask every five seconds, for five minutes.

Each user has a web process of their own and a job whose tasks start and end meanwhile. What slurmctld was asked is read from
`sdiag`, by user, before and after. The tasks run for real, but the site's set-up line has them sleep in the place of their runner.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from on_slurm import Bench, OwnCluster, Row, cluster, measured, requests

USERS = tuple(f"lossi-load{number:02}" for number in range(1, 21))
CLIENTS = 10
EVERY_S = 5.0
GOAL = 2.0
STORES = "xdg_cache_home/lossi/stores"
SLEEP = "exec sleep $((60 + 90 * lossi_task))"


@dataclass
class Polling:
    """What the clients of all users saw.

    Attributes
    ----------
    took
        Seconds of each answer.
    faults
        What was no answer, or said that it may be old.
    """

    took: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def poll(self, port: int, token: str, delay_s: float) -> None:
        """Ask for the job list until the end, as one open page does."""
        while not self.stop.wait(delay_s):
            begun = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", "/api/v1/jobs", headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status != 200 or len(body["items"]) != 1 or body["stale"]:
                    self.faults.append(f"{answer.status} {body}")
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.faults.append(repr(error))
            finally:
                connection.close()
            self.took.append(time.monotonic() - begun)
            delay_s = max(EVERY_S - self.took[-1], 0.0)


def measure(seconds: int) -> list[Row]:
    with _accounts(), cluster(users=USERS) as slurm:
        benches = [_bench(slurm, USERS[0])]
        with ThreadPoolExecutor(2) as pool:
            benches += pool.map(lambda user: _bench(slurm, user, like=USERS[0]), USERS[1:])
        polling = Polling()
        with contextlib.ExitStack() as stack:
            portals = [stack.enter_context(_served(bench)) for bench in benches]
            threads = [
                threading.Thread(target=polling.poll, args=(*portal, EVERY_S * number / CLIENTS))
                for portal in portals
                for number in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            time.sleep(2 * EVERY_S)  # each page has been opened
            before, begun = requests(slurm, "user"), time.monotonic()
            time.sleep(seconds)
            after, minutes = requests(slurm, "user"), (time.monotonic() - begun) / 60
            polling.stop.set()
            for thread in threads:
                thread.join()
        for bench in benches:
            slurm.run_as(bench.user, ["scancel", "--me"])
    if polling.faults:
        print(f"  not an answer: {polling.faults[0]}")
    each = [(after.get(user, 0) - before.get(user, 0)) / minutes for user in USERS]
    return [
        {
            "id": "P9b",
            "what": f"Slurm RPC per minute and user, greatest of {len(USERS)} users with {CLIENTS} clients each that ask for the jobs "
            f"every {EVERY_S:.0f} s, {minutes:.0f} minutes",
            "ours": f"{max(each):.1f}",
            "peer": None,
            "ratio": None,
            "goal": f"≤ {GOAL:.0f}",
            "met": max(each) <= GOAL,
        },
        {
            "id": "P9b",
            "what": f"GET /jobs meanwhile: median; of {len(polling.took):,} questions those that got no answer, or a stale one",
            "ours": f"{statistics.median(polling.took) * 1000:.0f} ms; {len(polling.faults)}",
            "peer": None,
            "ratio": None,
            "goal": "–; 0",
            "met": not polling.faults,
        },
    ]


@contextlib.contextmanager
def _accounts() -> Iterator[None]:
    """Remove the users again that the cluster's script makes."""
    there = {account.pw_name for account in pwd.getpwall()}
    try:
        yield
    finally:
        for user in set(USERS) - there:
            subprocess.run(["userdel", "--remove", user], capture_output=True)


def _bench(slurm: OwnCluster, user: str, like: str = "") -> Bench:
    """Make a user's project and job; ``like``: a user whose empty tracking store is taken, which MLflow needs seconds to make."""
    bench = Bench.of(slurm, user, setup=[SLEEP])
    if like:
        theirs, own = (slurm.projects / f"{name}-state" / STORES for name in (like, user))
        shutil.copytree(theirs, own, dirs_exist_ok=True)
        for path in (own, own.parent, own.parent.parent, *own.iterdir()):
            slurm.give(path, user)
    bench.lossi("sweep", "one.ipynb", "-g", "x=1,2,3,4", "--cluster", "ci", "--detach", "--max-parallel", "2", "--memory", "100M")
    return bench


@contextlib.contextmanager
def _served(bench: Bench) -> Iterator[tuple[int, str]]:
    """Serve a user's project and yield port and token."""
    account = pwd.getpwnam(bench.user)
    environment = {**bench.cluster.environment_of(bench.user), **bench.environment, "PYTHONUNBUFFERED": "1"}
    server_log = bench.cluster.projects / f"{bench.user}-state" / "serve.log"
    process = subprocess.Popen(
        [bench.cluster.installation.command, "serve", "--port", "0"],
        cwd=bench.project,
        env=environment,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(bench.user, account.pw_gid),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=server_log.open("w"),
        text=True,
    )
    try:
        assert process.stdout
        line = next(line for line in process.stdout if "http://127.0.0.1:" in line)
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        token = bench.cluster.projects / f"{bench.user}-state" / "xdg_state_home" / "lossi" / "serve" / "token"
        yield port, token.read_text().strip()
        if process.poll() is not None:
            print(f"  the server of {bench.user} had ended with {process.returncode}: {server_log.read_text()[-2000:]}")
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    measured(__doc__, measure, ("seconds", int, 300, "how long"))
