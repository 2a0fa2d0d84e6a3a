"""The child process with PySlurm can do what it likes: it is always one error that says what to do, in time, and nothing is left."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossi.clusters import Cluster, PySlurmSettings
from lossi.errors import InvalidInput, LossiError, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm.pyslurm import PySlurmClient, process
from lossi.jobs.schedulers.slurm.request import SlurmRequest


def cluster(place: Path, body: str, **more: object) -> Cluster:
    """Return a cluster whose interpreter with PySlurm is a script of POSIX sh."""
    python = place / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o700)
    pyslurm = PySlurmSettings(python=python)
    return Cluster.model_validate({"name": "ci", "scheduler": "slurm_pyslurm", "pyslurm": pyslurm, "deadline_s": 5, **more})


def asked(target: Cluster) -> LossiError:
    with pytest.raises(LossiError) as caught:
        process.ask(target, {"ask": "queue"})
    assert caught.value.hint, "every failure says what to do"
    return caught.value


def said(place: Path, answer: object, **more: object) -> Cluster:
    (place / "answer").write_text(json.dumps(answer))
    return cluster(place, f"cat > /dev/null; cat '{place}/answer'", **more)


def test_an_answer_is_handed_over(tmp_path: Path) -> None:
    assert process.ask(said(tmp_path, {"answer": [1, "ü"]}), {"ask": "queue"}) == [1, "ü"]


def test_the_child_gets_its_program_and_the_question_on_standard_input(tmp_path: Path) -> None:
    target = cluster(tmp_path, f"cat > '{tmp_path}/given'; echo '{{\"answer\": 1}}'", slurm_name="other")
    process.ask(target, {"ask": "named", "prefix": "x" * 500_000})
    content = json.loads((tmp_path / "given").read_text())
    assert 'import_module("pyslurm")' in content["program"]
    assert content["question"]["cluster"] == "other"
    assert content["question"]["prefix"] == "x" * 500_000


def test_the_child_has_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY_BASE", "RUBYOPT", "SLURM_HINT", "PYTHONPATH"):
        monkeypatch.setenv(name, "do-not-tell")
    target = cluster(tmp_path, f"cat > /dev/null; env > '{tmp_path}/env'; echo '{{\"answer\": 1}}'", conf=Path("/x/slurm.conf"))
    process.ask(target, {"ask": "queue"})
    variables = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert set(variables) - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LANG", "HOME", "USER", "SLURM_CONF"}
    assert variables["SLURM_CONF"] == "/x/slurm.conf"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 1", "ended with exit code 1"),
        ("cat > /dev/null; echo 'slurm_init: fatal: no conf' >&2; exit 1", "no conf"),
        ("cat > /dev/null; exit 0", "exit code 0 and no answer"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("cat > /dev/null; echo rubbish", "no valid answer"),
        ("cat > /dev/null; printf '\\377\\000'", "no valid answer"),
        ("cat > /dev/null; echo '[1, 2]'", "no valid answer"),
        ("cat > /dev/null; echo '{\"answer\": ['", "no valid answer"),
        ("cat > /dev/null; echo '{}'", "no valid answer"),
        ("exec 0<&-; echo '{\"problem\": 1}'", "no valid answer"),
    ],
)
def test_a_child_that_ends_or_writes_rubbish_is_unavailable(tmp_path: Path, body: str, words: str) -> None:
    error = asked(cluster(tmp_path, body))
    assert isinstance(error, Unavailable)
    assert words in f"{error.what} {error.why}"


def test_a_child_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    target = cluster(tmp_path, f"sleep 9999 & echo $! > '{tmp_path}/pid'; sleep 9999", deadline_s=0.5)
    error = asked(target)
    assert isinstance(error, Unavailable)
    assert "within 0.5 s" in error.what
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_a_child_leaves_behind_is_ended(tmp_path: Path) -> None:
    target = cluster(
        tmp_path, f"cat > /dev/null; sleep 1000 >/dev/null 2>&1 & echo $! > '{tmp_path}/pid'; echo '{{\"answer\": 7}}'"
    )
    assert process.ask(target, {"ask": "queue"}) == 7
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> bool:
    """Return whether a process has ended, at once or soon."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        os.sched_yield()
    return False


def test_a_child_that_never_stops_writing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_BYTES", 2**20)
    error = asked(cluster(tmp_path, "cat > /dev/null; while :; do echo 0123456789012345678901234567890123456789; done"))
    assert isinstance(error, Unavailable)
    assert "more than 1 MiB" in error.what


def test_complaints_without_end_do_no_harm(tmp_path: Path) -> None:
    body = "cat > /dev/null; head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last words >&2; exit 3"
    error = asked(cluster(tmp_path, body))
    assert "exit code 3" in error.what
    assert error.why == "last words"


@pytest.mark.parametrize("python", ["nowhere/python", ".", "plain"])
def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: Path, python: str) -> None:
    (tmp_path / "plain").write_text("no program")
    target = Cluster(name="ci", pyslurm=PySlurmSettings(python=tmp_path / python))
    error = asked(target)
    assert isinstance(error, Unavailable)
    assert str(tmp_path / python) in error.why
    assert "pyslurm.python" in error.hint


def test_a_cluster_without_pyslurm_is_told_apart() -> None:
    assert isinstance(asked(Cluster(name="ci")), NotSupported)


@pytest.mark.parametrize(
    ("problem", "kind", "hint"),
    [
        ("conf", Unavailable, "conf"),
        ("import", Unavailable, "install PySlurm"),
        ("version", Unavailable, "any_version"),
        ("cluster", NotSupported, "slurm.conf"),
        ("invalid", InvalidInput, "correct"),
    ],
)
def test_every_problem_of_the_child_has_a_way_out(tmp_path: Path, problem: str, kind: type[LossiError], hint: str) -> None:
    error = asked(said(tmp_path, {"problem": problem, "text": "so it is"}))
    assert type(error) is kind
    assert error.why == "so it is"
    assert hint in error.hint


def test_slurm_s_own_words_mean_the_same_as_for_the_other_clients(tmp_path: Path) -> None:
    refused = asked(said(tmp_path, {"problem": "slurm", "text": "Invalid account or account/partition combination specified"}))
    assert type(refused) is InvalidInput
    down = asked(said(tmp_path, {"problem": "slurm", "text": "Unable to contact slurm controller (connect failure)"}))
    assert type(down) is Unavailable


def test_a_real_interpreter_without_slurm_conf_or_pyslurm_says_so(tmp_path: Path) -> None:
    target = Cluster(name="ci", conf=tmp_path / "slurm.conf", pyslurm=PySlurmSettings(python=Path(sys.executable)), deadline_s=30)
    assert "finds no slurm.conf" in asked(target).what
    (tmp_path / "slurm.conf").touch()
    error = asked(target)
    assert "cannot import PySlurm" in error.what
    assert "pyslurm" in error.why


FAKE = """
import os, sys
print("printed by the library")
os.write(1, b"written past Python\\n")
__version__ = "25.11.2"
"""


@pytest.mark.host("cc", "as", "ld")
def test_a_libslurm_of_another_version_is_refused_unless_the_site_insists(tmp_path: Path) -> None:
    """A library that stands in for libslurm says 26.05; what libraries print does not spoil the answer."""
    source = tmp_path / "slurm.c"
    source.write_text("long slurm_api_version(void) { return 0x2d0000; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libslurm.so.45", source], check=True)
    package = tmp_path / "pyslurm"
    package.mkdir()
    load = f"import ctypes; ctypes.CDLL('{tmp_path}/libslurm.so.45')\n"
    (package / "__init__.py").write_text(
        load + FAKE + "class slurmctld:\n  class Config:\n    load = staticmethod(lambda: None)\n"
    )
    (package / "settings.py").write_text("LOCAL_CLUSTER = 'ci'\n")
    (tmp_path / "slurm.conf").touch()
    # -I keeps PYTHONPATH away: a wrapper that adds the folder.
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(tmp_path)!r})\nsys.argv = ['-c']\nexec({process._LOADER!r})\n"
    )
    python.chmod(0o700)

    def target(**more: object) -> Cluster:
        pyslurm = {"python": python, **more}
        return Cluster.model_validate({"name": "ci", "conf": tmp_path / "slurm.conf", "pyslurm": pyslurm, "deadline_s": 30})

    error = asked(target())
    assert error.why == "PySlurm 25.11.2 is made for Slurm 25.11, and libslurm here is of 26.05"
    assert process.ask(target(any_version=True), {"ask": "configuration"})["version"] is None
    with pytest.raises(NotSupported, match="cannot reach the cluster other"):
        process.ask(target(any_version=True).model_copy(update={"slurm_name": "other"}), {"ask": "configuration"})


REQUEST = SlurmRequest(
    "lossi-1", Path("/j/script.sh"), Path("/j"), Path("/j/50% of.log"), gpus=2, gpu_type="a100", array=range(5), throttle=2
)


def test_the_words_of_a_request() -> None:
    arguments = PySlurmClient(Cluster(name="ci")).arguments(REQUEST)
    assert arguments[0] == "pyslurm.JobSubmitDescription"
    assert {"array=0-4%2", "gres_per_node={'gpu:a100': 2}", "standard_output=/j/50%% of.log", "script=/j/script.sh"} <= set(
        arguments
    )


def test_what_pyslurm_lacks_is_refused_with_a_way_out() -> None:
    client = PySlurmClient(Cluster(name="ci"))
    with pytest.raises(NotSupported, match="slurm_cli"):
        client.expected_start(REQUEST)
    with pytest.raises(NotSupported, match="--hint=nomultithread"):
        client.submit(dataclasses.replace(REQUEST, options=("--hint=nomultithread",)))


def test_an_answer_of_another_shape_is_unavailable(tmp_path: Path) -> None:
    for answer in ([{}], [1], 7, None, [{"array_id": 1}]):
        client = PySlurmClient(said(tmp_path, {"answer": answer}))
        for question in (
            client.queue,
            client.partitions,
            client.nodes,
            client.associations,
            client.qos,
            client.configuration,
        ):
            if isinstance(answer, list) and question == client.qos:
                continue  # any list is one of names
            with pytest.raises(Unavailable):
                question()
