"""Bad input, each answered by an error that says what to do, with nothing lost and no traceback."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lossi, cell, notebook

PARAMETERS = notebook(
    cell("lr: float = 0.1\nname: str = 'x'\ndepth: int = 2", "parameters"),
    cell(
        "import os, pathlib\npathlib.Path(os.environ['LOSSI_OUTPUT_DIR'], 'name').write_bytes(name.encode('utf-8', 'surrogatepass'))"
    ),
)


@pytest.fixture
def ready(lossi: Lossi) -> Lossi:
    (lossi.root / "train.ipynb").write_text(PARAMETERS)
    return lossi


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "train.ipynb", "-e", "sklaern"), 3, "did you mean 'sklearn'"),
        (("run", "train.ipynb", "-p", "deepth=3"), 2, "did you mean 'depth'"),
        (("run", "train.ipynb", "-p", "depth=three"), 2, "depth"),
        (("run", "train.ipynb", "-p", "depth"), 2, "NAME=VALUE"),
        (("run", "train.ipynb", "-t", "soon"), 2, "soon"),
        (("run", "train.ipynb", "-m", "-3G"), 2, "-3G"),
        (("run", "nowhere.ipynb"), 3, "nowhere.ipynb"),
        (("run", "../train.ipynb"), None, "train.ipynb"),
        (("sweep", "train.ipynb"), 2, "--grid"),
        (("sweep", "train.ipynb", "-g", "width=1,2"), 2, "width"),
        (("jobs", "show", "01zzzzzzzzzzzzzzzzzzzzzzzz"), 3, "job"),
        (("runs", "list", "--filter", "metrics.loss >> 3"), 2, "metrics.loss"),
        (("runs", "show", "0" * 32), 3, "run"),
        (("logs", "last/../x"), 2, "JOB"),
    ],
)
def test_wrong_request_says_what_to_do(ready: Lossi, arguments: tuple[str, ...], code: int | None, words: str) -> None:
    done = ready(*arguments, expect=code)
    assert done.returncode != 0
    assert words in done.stderr
    assert not ready.json("jobs", "list")["items"]
    if not any(word == "-m" for word in arguments):
        problem = json.loads(ready(*arguments, "--json", expect=code).stderr)
        assert problem["detail"]


@pytest.mark.parametrize("fate", ["edited", "moved", "deleted"])
def test_notebook_changed_while_the_job_queues_runs_as_submitted(lossi: Lossi, fate: str) -> None:
    gate = lossi.root.parent / "gate"
    (lossi.root / "wait.ipynb").write_text(
        notebook(cell(f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.05)"))
    )
    (lossi.root / "train.ipynb").write_text(notebook(cell("print('as submitted')")))
    one_slot = {"LOSSI_LOCAL_SLOTS": "1"}
    lossi.json("run", "wait.ipynb", "--detach", env=one_slot)
    job = lossi.json("run", "train.ipynb", "--detach", env=one_slot)["id"]
    if fate == "edited":
        (lossi.root / "train.ipynb").write_text(notebook(cell("print('edited')")))
    elif fate == "moved":
        (lossi.root / "train.ipynb").rename(lossi.root / "elsewhere.ipynb")
    else:
        (lossi.root / "train.ipynb").unlink()
    assert lossi.json("jobs", "show", job)["job"]["state"] == "queued"
    gate.touch()
    assert lossi.until_ended(job)["job"]["state"] == "succeeded"
    assert "as submitted" in lossi("logs", job).stdout


HOSTILE = [
    "'",
    '"',
    "a\nb",
    "$(touch pwned)",
    "`id`",
    "ünïcødé \U0001f409",
    "a\u0085b\u2028c",
    "\\",
    "%s %d",
    "-p x",
    "",
    " ",
    "{lr}",
    "x" * 1_000_000,
]


def test_hostile_parameter_values_arrive_byte_for_byte(ready: Lossi) -> None:
    combinations = ready.root / "values.json"
    combinations.write_text(json.dumps([{"name": value} for value in HOSTILE]))
    job = ready.json("sweep", "train.ipynb", "--list", "values.json")
    assert job["state"] == "succeeded"
    folder = ready.root / ".lossi" / "jobs" / job["id"]
    for number, value in enumerate(HOSTILE):
        assert (folder / "tasks" / str(number) / "out" / "name").read_bytes() == value.encode()
    assert not list(ready.root.rglob("pwned"))
    assert "$(touch" not in (folder / "script.sh").read_text()


def test_nan_and_infinite_metrics_and_parameters(lossi: Lossi) -> None:
    (lossi.root / "odd.ipynb").write_text(
        notebook(
            cell("x: float = 1.0", "parameters"),
            cell(
                "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metrics({'seen': x, 'nan': float('nan'), 'up': float('inf'), 'down': float('-inf')})"
            ),
        )
    )
    assert lossi.json("run", "odd.ipynb", "-p", "x=nan")["state"] == "succeeded"
    columns = lossi.json("runs", "list")["columns"]
    assert [columns[f"metrics.{name}"] for name in ("seen", "nan", "up", "down")] == [
        ["NaN"],
        ["NaN"],
        ["Infinity"],
        ["-Infinity"],
    ]
    from mlflow import MlflowClient

    [run] = MlflowClient(f"sqlite:///{lossi.root / '.lossi/mlflow.db'}").search_runs(["1"])
    assert math.isnan(run.data.metrics["nan"])


@pytest.mark.parametrize("name", ["with space", "what?", "100%20", "ünï", "a'b\"c", "$(id)"])
def test_odd_paths_of_projects_and_notebooks(lossi: Lossi, name: str) -> None:
    root = lossi.root.parent / name
    root.mkdir()
    (root / f"{name}.ipynb").write_text(
        notebook(cell("import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('m', 1); mlflow.log_text('t', 'a.txt')"))
    )
    lossi("project", "init", ".", cwd=root)
    job = lossi.json("run", f"{name}.ipynb", cwd=root)
    assert job["state"] == "succeeded"
    [run_id] = lossi.json("runs", "list", cwd=root)["columns"]["run_id"]
    assert (root / ".lossi" / "artifacts" / "1" / run_id / "artifacts" / "a.txt").read_text() == "t"


def test_paths_out_of_the_project_are_refused(ready: Lossi) -> None:
    outside = ready.root.parent / "outside.ipynb"
    outside.write_text(PARAMETERS)
    (ready.root / "link.ipynb").symlink_to(outside)
    for source in ("../outside.ipynb", str(outside), "link.ipynb", "x/../../outside.ipynb"):
        done = ready("run", source, "--project", str(ready.root), expect=None)
        assert done.returncode in (2, 3, 4), done
    assert not ready.json("jobs", "list")["items"]


def test_corrupt_job_directory_among_good_ones(ready: Lossi) -> None:
    good = ready.json("run", "train.ipynb")["id"]
    bad = ready.json("run", "train.ipynb")["id"]
    (ready.root / ".lossi/jobs" / bad / "spec.json").write_text('{"id": "')
    (ready.root / ".lossi/lossi.db").unlink()
    jobs = {job["id"]: job for job in ready.json("jobs", "list")["items"]}
    assert jobs[good]["state"] == "succeeded"
    assert jobs[bad]["state"] == "unknown" and jobs[bad]["reason"]


def test_index_can_be_deleted(ready: Lossi) -> None:
    job = ready.json("sweep", "train.ipynb", "-g", "lr=1,2")["id"]
    shown = []
    for _ in range(2):
        runs = ready.json("runs", "list")
        shown.append((runs["columns"], ready.json("jobs", "show", job)))
        (ready.root / ".lossi/lossi.db").unlink()
    assert shown[0] == shown[1]


def test_same_key_submits_once_however_many_call(ready: Lossi) -> None:
    arguments = ("run", "train.ipynb", "--detach", "--idempotency-key", "double click", "--json")
    calls = [ready.start(*arguments) for _ in range(6)]
    ids = set()
    for call in calls:
        out, err = call.communicate(timeout=120)
        while call.returncode == 5 and "still being prepared" in err:  # as the hint says: try again with the same key
            call = ready.start(*arguments)
            out, err = call.communicate(timeout=120)
        assert call.returncode == 0, err
        ids.add(json.loads(out)["id"])
    assert len(ids) == 1 and len(ready.json("jobs", "list")["items"]) == 1
    done = ready("run", "train.ipynb", "-p", "lr=3", "--detach", "--idempotency-key", "double click", expect=4)
    assert "key" in done.stderr
    ready.until_ended(ids.pop())


def test_two_portals_and_a_command_at_once_on_one_project(ready: Lossi) -> None:
    with serving(ready) as first, serving(ready) as second:
        command = ready.start("sweep", "train.ipynb", "-g", "depth=1,2", "--json")
        for depth, portal in ((3, first), (4, second), (5, first), (6, second)):
            answer = portal("POST", "/api/v1/jobs", {"notebook": "train.ipynb", "parameters": {"depth": depth}})
            assert answer["state"] in ("queued", "running")
        while command.poll() is None or any(
            item["state"] in ("queued", "running") for item in second("GET", "/api/v1/jobs")["items"]
        ):
            first("GET", "/api/v1/runs")
            second("GET", "/api/v1/runs")
        assert command.returncode == 0, command.communicate()
        answered = [portal("GET", "/api/v1/runs")["columns"] for portal in (first, second)]
    for columns in [*answered, ready.json("runs", "list")["columns"]]:
        assert sorted(columns["params.depth"]) == ["1", "2", "3", "4", "5", "6"]
        assert set(columns["job.state"]) == {"succeeded"}


@contextlib.contextmanager
def serving(lossi: Lossi) -> Iterator[Callable[..., Any]]:
    """Start a portal and yield what asks it."""
    server = lossi.start("serve", "--port", "0", env={"PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    address = next(match[1] for line in server.stdout if (match := re.search(r"(http://127[^/]+)/[?]code=", line)))
    token = next(Path(lossi.environment["HOME"]).rglob("serve/token")).read_text().strip()

    def ask(method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(address + path, json.dumps(body).encode() if body else None, headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    try:
        yield ask
    finally:
        server.terminate()
        server.communicate(timeout=300)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: a full filesystem cannot be mounted")
def test_full_project_filesystem(ready: Lossi) -> None:
    small = ready.root.parent / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        (small / "train.ipynb").write_text(PARAMETERS)
        ready("project", "init", ".", cwd=small)
        with (small / "ballast").open("wb") as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(b"x" * 65536)
                stream.flush()
        done = ready("run", "train.ipynb", cwd=small, expect=5)
        assert "full" in done.stderr
        assert not [item for item in (small / ".lossi/jobs").glob("*") if item.is_dir() and not item.name.startswith(".")]
        (small / "ballast").unlink()
        assert ready.json("run", "train.ipynb", cwd=small)["state"] == "succeeded"
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: a read-only filesystem cannot be mounted")
def test_read_only_state_folder_and_project(ready: Lossi) -> None:
    job = ready.json("run", "train.ipynb")["id"]
    frozen = ready.root.parent / "frozen"
    frozen.mkdir()
    if subprocess.run(["mount", "--bind", str(ready.root), str(frozen)], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(frozen)], check=True)
        assert ready.json("jobs", "show", job, cwd=frozen)["job"]["state"] == "succeeded"
        assert ready.json("runs", "list", cwd=frozen)["columns"]["run_id"]
        done = ready("run", "train.ipynb", cwd=frozen, expect=5)
        assert "read-only" in done.stderr
    finally:
        subprocess.run(["umount", "--lazy", str(frozen)], check=True)


def test_state_folder_that_cannot_be_made(ready: Lossi) -> None:
    blocked = Path(ready.environment["HOME"]) / "file"
    blocked.write_text("")
    done = ready("run", "train.ipynb", expect=None, env={"XDG_STATE_HOME": str(blocked)})
    assert done.returncode in (4, 5) and str(blocked) in done.stderr
    assert "next:" in done.stderr
