"""A slurmrestd that gives recorded answers, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded_slurmrestd import API, SLASH, TESTER1, Served, replay, serve

from lossi.clusters import Cluster, RestSettings
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import RestClient, rows, transport


@pytest.fixture(params=["22.05", "24.11"])
def release(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def names_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """The users of the recorded cluster are not those of this machine."""
    monkeypatch.setattr(transport, "_name_of", {TESTER1: "tester1", 1002: "tester2", 1003: "tester3"}.get)
    monkeypatch.setattr(rows, "user_id", lambda name: {"root": 0, "tester1": TESTER1}.get(name))


@pytest.fixture
def server(release: str) -> Iterator[Served]:
    api, slash = API[release], SLASH[release]
    slurm, database = f"GET /slurm/{api}/", f"GET /slurmdb/{api}/"
    answers = {
        f"{slurm}ping": "ping",
        f"{slurm}jobs": "jobs",
        f"{slurm}partitions": "partitions",
        f"{slurm}nodes": "nodes",
        f"{database}jobs": "database_jobs",
        f"{database}jobs{slash}?step=987654": "database_nothing",
        f"{database}clusters": "clusters",
        f"{database}associations": "associations",
        f"{database}qos": "qos",
        f"POST /slurm/{api}/job/submit": "held",
        f"DELETE /slurm/{api}/job": "cancel_ended",
    }
    with serve(replay(release, answers)) as served:
        yield served


@pytest.fixture
def client(server: Served, names_of_users: None) -> Callable[..., RestClient]:
    def make(uid: int = TESTER1, **changes: object) -> RestClient:
        rest = RestSettings(url=server.url, token_command=("echo", "SLURM_JWT=a.b.c"))
        return RestClient(Cluster.model_validate({"name": "ci", "rest": rest, **changes}), uid=uid)

    return make


@pytest.fixture
def asked(tmp_path: Path) -> SlurmRequest:
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho ä\n")
    return SlurmRequest(name="lossi-A", script=script, directory=tmp_path, output=tmp_path / "scheduler.log")
