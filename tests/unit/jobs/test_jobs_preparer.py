"""Telling whether the process that prepares a job is still at work."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from lossi.jobs.submit import preparer
from lossi.jobs.submit.preparer import LONGEST_S


def test_this_process_is_at_work(tmp_path: Path) -> None:
    (tmp_path / preparer.FILE).write_bytes(preparer.dump(preparer.myself()))
    assert preparer.at_work(tmp_path)


def test_a_process_that_has_ended_is_gone(tmp_path: Path) -> None:
    code = "import sys; from lossi.jobs.submit import preparer; sys.stdout.buffer.write(preparer.dump(preparer.myself()))"
    package = str(Path(preparer.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONPATH": package})
    (tmp_path / preparer.FILE).write_bytes(done.stdout)
    assert not preparer.at_work(tmp_path)


def test_a_reused_pid_is_another_process() -> None:
    mine = preparer.myself()
    assert not mine.is_gone()
    assert dataclasses.replace(mine, boot="another").is_gone()
    assert dataclasses.replace(mine, started="1").is_gone()


def test_a_process_on_another_host_counts_for_a_while() -> None:
    mine = preparer.myself()
    assert not dataclasses.replace(mine, host="elsewhere", pid=1).is_gone()
    assert dataclasses.replace(mine, host="elsewhere", since=mine.since - LONGEST_S - 1).is_gone()


def test_a_missing_or_broken_record_names_no_process(tmp_path: Path) -> None:
    assert not preparer.at_work(tmp_path)
    for text in ("", "{", "[]", json.dumps({"pid": "x"})):
        (tmp_path / preparer.FILE).write_text(text)
        assert not preparer.at_work(tmp_path)
