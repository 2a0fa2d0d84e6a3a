"""``lossi runs`` for people and programs."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lossi.projects import Project


class Command:
    """The command in a project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-c", "from lossi.cli import main; main()", "runs", *arguments]
        done = subprocess.run(call, cwd=self.folder, capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == expect, done
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self(*arguments, "--json").stdout)
        return answer


@pytest.fixture
def lossi(project: Project) -> Command:
    return Command(project.root)


@pytest.fixture
def runs(client: MlflowClient) -> list[str]:
    experiment = client.create_experiment("digits")
    ids = []
    for number in range(3):
        run_id = client.create_run(
            experiment, start_time=1 + number, run_name=f"run {number}", tags={"lossi.environment": "sklearn"}
        ).info.run_id
        client.log_param(run_id, "lr", number)
        client.log_param(run_id, "depth", 3)
        client.log_metric(run_id, "accuracy", [0.5, float("nan"), 0.25][number])
        ids.append(str(run_id))
    return ids


def test_list_for_programs_and_people(lossi: Command, runs: list[str]) -> None:
    table = lossi.json("list", "--filter", "metrics.accuracy > 0", "--order-by", "metrics.accuracy DESC")
    assert table["columns"]["run_id"] == [runs[0], runs[2]] and table["stale"] is False  # type: ignore[index]
    text = lossi("list", "--filter", "params.depth = '3'").stdout
    assert runs[0][:8] in text and "accuracy" in text and "NaN" in text and "depth" not in text, "equal values are left out"
    assert "No run matches" in lossi("list", "-f", "params.depth = '4'").stdout
    chosen = lossi("list", "-c", "run_id", "-c", "metrics.*", "-l", "1")
    assert runs[2] in chosen.stdout and "1 of 3 runs" in chosen.stderr
    cursor = chosen.stderr.split("--cursor ")[1].strip()
    assert lossi.json("list", "--cursor", cursor, "-c", "run_id")["columns"] == {"run_id": [runs[1], runs[0]]}


def test_show_by_the_first_characters(lossi: Command, runs: list[str]) -> None:
    assert lossi.json("show", runs[1][:10])["run_id"] == runs[1]
    text = lossi("show", runs[0]).stdout
    assert "run 0" in text and "digits" in text and "lr" in text and "accuracy" in text
    missing = lossi("show", "0" * 32, expect=3)
    assert "no run" in missing.stderr and "lossi runs list" in missing.stderr


def test_compare(lossi: Command, client: MlflowClient, runs: list[str]) -> None:
    client.set_tag(runs[2], "lossi.environment", "pytorch")
    comparison = lossi.json("compare", runs[0][:12], runs[2])
    assert comparison["differing"] == {"environment": ["sklearn", "pytorch"], "params.lr": ["0", "2"]}
    text = lossi("compare", "--filter", "params.depth = '3'", "--order-by", "metrics.accuracy DESC").stdout
    assert "depth = 3" in text and "warning: the software" in text
    assert text.index(runs[0][:8]) < text.index(runs[2][:8]) < text.index(runs[1][:8])
    assert "no run to compare" in lossi("compare", expect=2).stderr
    assert "nope" in lossi("compare", runs[0], "nope", expect=3).stderr


def test_export_to_a_file_and_to_standard_output(lossi: Command, client: MlflowClient, runs: list[str], tmp_path: Path) -> None:
    client.log_param(runs[0], "note", "=1+1 é")
    rows = list(csv.DictReader(io.StringIO(lossi("export", "--order-by", "start_time ASC").stdout)))
    assert [row["run_id"] for row in rows] == runs and rows[0]["params.note"] == "'=1+1 é"
    target = tmp_path / "runs.json"
    lossi("export", "--format", "json", "-O", str(target), "-c", "params.lr")
    assert json.loads(target.read_text()) == [{"params.lr": "2"}, {"params.lr": "1"}, {"params.lr": "0"}]
    assert json.loads(lossi("export", "--json").stdout)[0]["run_id"] == runs[2]
    assert "csv or json" in lossi("export", "--format", "xml", expect=2).stderr
    assert "folder does not exist" in lossi("export", "-O", str(tmp_path / "no" / "runs.csv"), expect=5).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("list", "--filter", "metrics.loss >> 3"), 2, "character 15"),
        (("list", "--filter", "accurracy > 3"), 2, "prefix"),
        (("list", "--order-by", "lr"), 2, "order_by"),
        (("list", "--column", "nothing"), 2, "column"),
        (("list", "--view", "some"), 2, "active, deleted or all"),
        (("list", "--cursor", "x"), 2, "cursor"),
        (("list", "--experiment", "digit"), 3, "digits"),
        (("list", "--project", "nowhere/at/all"), 3, "nowhere"),
    ],
)
def test_invalid_arguments_are_explained(
    lossi: Command, runs: list[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = lossi(*arguments, expect=code)
    assert words in done.stderr and "next:" in done.stderr
    problem = json.loads(lossi(*arguments, "--json", expect=code).stderr)
    assert problem["hint"]


def test_terminal_escapes_of_a_store_do_not_reach_the_terminal(lossi: Command, client: MlflowClient, runs: list[str]) -> None:
    client.log_param(runs[0], "evil", "\x1b]0;title\x07\x1b[31mred")
    for arguments in (("list",), ("show", runs[0]), ("compare", *runs)):
        assert "\x1b" not in lossi(*arguments).stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_project_is_shown(lossi: Command, project: Project, runs: list[str]) -> None:
    project.jobs.mkdir(exist_ok=True)
    project.home.chmod(0o500)
    try:
        assert lossi.json("list")["total"] == 3
    finally:
        project.home.chmod(0o700)
