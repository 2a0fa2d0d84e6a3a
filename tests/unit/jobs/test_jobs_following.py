"""Following a job on the command line: until it ends, or until nothing more can be learned of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
from direct_scheduler import DirectScheduler, running

from lossi import jobs
from lossi.cli import follow
from lossi.contract.states import STATES, has_ended, is_active
from lossi.jobs.state import reconcile
from lossi.projects import Project

Spec = Callable[..., Any]


@pytest.fixture
def at_first_pause(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Let something happen while a job is followed."""

    def arrange(event: Callable[[], Any]) -> None:
        events = [event]
        sleep = time.sleep

        def pause(seconds: float) -> None:
            if events:
                events.pop()()
            sleep(0.01)

        monkeypatch.setattr(follow.time, "sleep", pause)

    return arrange


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_active_or_has_ended_or_is_unknown(state: str) -> None:
    assert [is_active(state), has_ended(state), state == "unknown"].count(True) == 1


def test_following_ends_when_the_directory_of_a_running_job_is_removed(
    project: Project, spec: Spec, direct: DirectScheduler, at_first_pause: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    job = jobs.submit(project, spec())
    direct.say(job.id, 0, running())
    at_first_pause(lambda: shutil.rmtree(project.jobs / job.id))
    assert follow.until_ended(project, job.id).state == "unknown"
    assert "1 unknown" in capsys.readouterr().err


def test_following_ends_when_the_scheduler_has_forgotten_a_job_and_no_exit_record_arrives(
    project: Project, spec: Spec, direct: DirectScheduler, at_first_pause: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LAG_S", 0.0)
    monkeypatch.setattr(follow, "UNKNOWN_PATIENCE_S", 0.05)
    job = jobs.submit(project, spec())
    direct.say(job.id, 0, running())
    at_first_pause(lambda: direct.forget(job.id))
    assert follow.until_ended(project, job.id).state == "unknown"


def test_following_waits_for_an_exit_record_that_arrives_late(
    project: Project, spec: Spec, direct: DirectScheduler, ends: Any, at_first_pause: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LAG_S", 0.0)
    job = jobs.submit(project, spec())
    direct.forget(job.id)
    assert jobs.get(project, job.id).state == "unknown"
    at_first_pause(lambda: ends(job.id, 0))
    assert follow.until_ended(project, job.id).state == "succeeded"


def test_following_a_job_of_unknown_state_by_the_command_ends(
    project: Project, spec: Spec, direct: DirectScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    from lossi.cli import main

    job = jobs.submit(project, spec())
    direct.say(job.id, 0, running())
    jobs.get(project, job.id)
    shutil.rmtree(project.jobs / job.id)
    with pytest.raises(SystemExit) as end:
        main(["jobs", "show", job.id, "--follow", "--project", str(project.root)])
    assert end.value.code == 0
    assert "its directory is gone" in capsys.readouterr().out
