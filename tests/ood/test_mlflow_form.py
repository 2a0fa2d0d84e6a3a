"""The MLflow app's form and submission: it offers what exists and refuses the rest with a sentence, without starting anything."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import jupyter_site
import pytest
from batch_connect import TREE, has_ruby, options, render
from test_jupyter_submit import HOSTILE

from lossi import projects
from lossi.errors import Forbidden, LossiError
from lossi.ood import apps, mlflow_session
from lossi.projects import stores

APP = TREE / "ood-apps" / "mlflow-session"

needs_ruby = pytest.mark.skipif(not has_ruby(), reason="no ruby: tests/provision.sh installs it")


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a project that has runs."""
    jupyter_site.write(home)
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.setattr("tempfile.tempdir", None)  # it is remembered
    with_runs(home / "project")
    return home


def with_runs(root: Path, revision: str | None = None) -> Path:
    """Make a folder look like a project in which a job has run."""
    (root / ".lossi").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(root / ".lossi" / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision or next(iter(stores.KNOWN_REVISIONS)),))
        connection.commit()
    return root


def good(site: Path, **changes: str) -> dict[str, str]:
    return {
        "cluster": "mahti",
        "queue": "mahti--small",
        "cores": "2",
        "memory_gb": "4",
        "hours": "2",
        "account": "project_123",
        "store": str(site / "project"),
        "staged_root": str(site / "staged"),
        **changes,
    }


def installed(folder: Path, *, for_nodes: bool = True) -> Path:
    """Put the app where `lossi install` would."""
    shutil.copytree(APP, folder)
    (folder / "environment").write_text(f"{sys.executable}\n")
    if for_nodes:
        (folder / "template" / "environment").write_text(f"{sys.executable}\n")
    return folder


# -- the form -------------------------------------------------------------------------------------------------------------


@needs_ruby
def test_the_form_offers_partitions_without_gpus_first(site: Path, tmp_path: Path) -> None:
    app = installed(tmp_path / "app")
    path = apps.write("mlflow-session", app)
    (answer,) = render([{"path": str(app / "form.yml.erb"), "kind": "form", "yaml": True}])
    form = answer["yaml"]
    assert form == json.loads(path.read_text()) and path.stat().st_mode & 0o777 == 0o644
    assert form["cluster"] == ["Lumi-G", "mahti"] and "form_header" not in form
    assert set(form["attributes"]) == {"cluster", *form["form"]} == {"cluster", *mlflow_session.FIELDS}
    partitions = form["attributes"]["queue"]["options"]
    assert [option[1] for option in partitions] == ["mahti--small", "Lumi-G--dev-g", "Lumi-G--1grace", "mahti--gpu_small"]
    hours = {"data-option-for-cluster-lumi-g": False, "data-max-hours": 72, "data-max-cores": 40, "data-max-memory-gb": 180}
    assert partitions[0][2] == hours, "no limit of a missing field"
    values = {name: form["attributes"][name].get("value") for name in ("cores", "memory_gb", "hours", "account")}
    assert values == {"cores": 2, "memory_gb": 4, "hours": 2, "account": ""}


@needs_ruby
@pytest.mark.parametrize("content", [None, "{", "\xff\xfe"])
def test_without_form_json_the_form_says_what_is_missing(tmp_path: Path, content: str | None) -> None:
    shutil.copy(APP / "form.yml.erb", tmp_path)
    if content is not None:
        (tmp_path / apps.FILE).write_text(content, "latin-1")
    (answer,) = render([{"path": str(tmp_path / "form.yml.erb"), "kind": "form", "yaml": True}])
    assert "lossi doctor" in answer["yaml"]["attributes"]["unavailable"]["help"]


def test_a_site_without_clusters_says_so(home: Path) -> None:
    (home / "no-site.yml").write_text("clusters: 1\n")
    (home / "no-site.yml").chmod(0o644)
    form = mlflow_session.form()
    assert "cluster" not in form, "a list without any existing cluster would hide the app"
    assert "no cluster" in form["form_header"] and "no cluster" in form["attributes"]["store"]["help"]


# -- what is sent ---------------------------------------------------------------------------------------------------------


@needs_ruby
def test_ruby_and_lossi_accept_and_refuse_the_same_choices(site: Path, tmp_path: Path) -> None:
    submit = str(installed(tmp_path / "app") / "submit.yml.erb")
    partitions = [
        f"{cluster}--{partition['name']}" for cluster, entry in jupyter_site.CLUSTERS.items() for partition in entry["partitions"]
    ]
    chosen = [
        good(site, cluster=cluster, queue=partition, hours="1", staged_root=str(site / f"staged-{number}"))
        for number, (cluster, partition) in enumerate(itertools.product(jupyter_site.CLUSTERS, partitions))
    ]
    requests = [{"path": submit, "kind": "struct", "names": values, "yaml": True} for values in chosen]
    # As the dashboard has it.
    answers = render(requests, env={**os.environ, "RUBYOPT": "", "PYTHONPATH": "/nowhere", "LANG": "C", "LC_ALL": "C"})
    for values, answer in zip(chosen, answers, strict=True):
        staged = Path(values["staged_root"])
        if not values["queue"].startswith(f"{values['cluster']}--"):
            assert "is not offered on" in answer["error"] and not staged.exists(), "a refusal writes nothing"
            continue
        submission = answer["yaml"]
        assert submission == mlflow_session.submit(values)
        assert f"{submission['cluster']}--{submission['script']['queue_name']}" == values["queue"]
        assert submission["script"]["accounting_id"] == "project_123" and submission["script"]["wall_time"] in (1800, 3600)
        assert submission["batch_connect"] == {"template": "basic", "conn_params": ["mode"]}
        assert {"--nodes=1", "--cpus-per-task=2", "--mem=4096M", "--no-requeue"} <= set(submission["script"]["native"])
        assert not [word for word in submission["script"]["native"] if "gpu" in word]
        assert json.loads((staged / "session.json").read_text())["store"] == str(site / "project")
        assert (staged / "session.json").stat().st_mode & 0o777 == 0o600 and staged.stat().st_mode & 0o777 == 0o700
        for word in options(submission["script"]):
            assert not set(word) & set(" \t\n'\"`$;&|<>"), word


@pytest.mark.parametrize("field", ["cluster", "queue", "cores", "memory_gb", "hours", "account", "store"])
def test_tampered_values_are_refused_with_a_sentence(site: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site / "project")  # a relative path is refused all the same
    for text in [*HOSTILE, "../project", "project", "/$(touch /tmp/owned)", "~root", "//", "~\n"]:
        if field == "account" and text == " ":
            continue  # empty
        with pytest.raises(LossiError) as caught:
            mlflow_session.submit(good(site, **{field: text}))
        assert caught.value.what and "Traceback" not in str(caught.value)
    assert not (site / "staged").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"cores": "41"}, "40"),
        ({"memory_gb": "181"}, "MiB of memory"),
        ({"hours": "73"}, "3-00:00:00"),
        ({"account": ""}, "account"),
        ({"account": "other"}, "project_[0-9]+"),
        ({"cluster": "mahtii"}, "did you mean 'mahti'"),
        ({"queue": "mahti--smal"}, "did you mean 'small'"),
        ({"store": ""}, "no folder was given"),
        ({"store": "/etc"}, "outside the allowed folders"),
        ({"store": "~/project/../../.."}, "outside the allowed folders"),
        ({"store": "~/missing"}, "is not a folder"),
        ({"store": "~/project/.lossi/mlflow.db"}, "is not a folder"),
        ({"store": "~/empty"}, "is not a project with runs"),
        ({"store": "~/no-runs"}, "has no runs yet"),
        ({"store": "~/newer"}, "would change in place"),
        ({"store": "~/broken"}, "would change in place"),
        ({"store": "~/way-out"}, "outside the allowed folders"),
        ({"store": "~/old-way-out"}, "outside the allowed folders"),
    ],
)
def test_a_refusal_names_the_problem(site: Path, tmp_path: Path, changes: dict[str, str], part: str) -> None:
    (site / "empty").mkdir()
    (site / "no-runs" / ".lossi").mkdir(parents=True)
    with_runs(site / "newer", "000000000000")
    (site / "broken" / ".lossi").mkdir(parents=True)
    (site / "broken" / ".lossi" / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    outside = tmp_path / "outside"
    (outside / "0").mkdir(parents=True)
    (outside / "0" / "meta.yaml").touch()
    (site / "way-out").symlink_to(outside)
    (site / "old-way-out").mkdir()
    (site / "old-way-out" / "mlruns").symlink_to(outside)
    with pytest.raises(LossiError) as caught:
        mlflow_session.submit(good(site, **changes))
    assert part in str(caught.value)
    assert not (site / "staged").exists()


def test_a_folder_elsewhere_is_accepted_if_the_user_opened_it_as_a_project(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = with_runs(tmp_path / "shared")
    with pytest.raises(Forbidden):
        mlflow_session.submit(good(site, store=str(shared)))
    projects.register(projects.Project(shared))
    mlflow_session.submit(good(site, store=str(shared)))
    monkeypatch.setenv("OOD_ALLOWLIST_PATH", str(site))
    with pytest.raises(Forbidden):
        mlflow_session.submit(good(site, store=str(shared)))


def test_a_hostile_folder_name_arrives_unchanged(site: Path) -> None:
    named = with_runs(site / "a'b\"c $(id) `x` \\ ; é,:<%= 1 %>")
    mlflow_session.submit(good(site, store=f"{named}/"))
    assert json.loads((site / "staged" / "session.json").read_text())["store"] == str(named)


@needs_ruby
def test_an_incomplete_installation_is_refused_with_a_sentence(site: Path, tmp_path: Path) -> None:
    bare, gone = installed(tmp_path / "bare", for_nodes=False), installed(tmp_path / "gone")
    (gone / "environment").write_text("/nowhere/python\n")
    names: dict[str, Any] = good(site)
    requests = [{"path": str(app / "submit.yml.erb"), "kind": "struct", "names": names} for app in (bare, gone)]
    without, missing = render(requests)
    assert "has not named an environment" in without["error"] and "lossi doctor" in missing["error"]
    assert not (site / "staged").exists()


# -- the card -------------------------------------------------------------------------------------------------------------


@needs_ruby
def test_cards_print_values_as_text_never_as_markup(tmp_path: Path) -> None:
    bad = '"><script>alert("1")</script>\n\n# & \'<%= 1 %>'
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "failure.txt").write_bytes(bad.encode() + b"\xff\n")
    connections = [
        {"host": bad, "port": 8888, "password": bad, "mode": bad},
        {"host": bad, "port": bad, "password": bad, "mode": bad},
        {},
        {"host": "n1", "port": 8888, "password": "p", "mode": "copy"},
    ]
    requests = [{"path": str(APP / "view.html.erb"), "kind": "struct", "names": names} for names in connections]
    requests.append({"path": str(APP / "completed.html.erb"), "kind": "session", "names": {"staged_root": str(tmp_path / "bad")}})
    answers = render(requests)
    for answer in answers:
        assert "error" not in answer and "<script" not in answer["text"] and "<%" not in answer["text"], answer
    hostile, no_port, empty, good_one, failed = (answer["text"] for answer in answers)
    assert "<form" in hostile and "how full your home folder is" in no_port and "how full your home folder is" in empty
    assert 'action="/node/n1/8888/lossi-login"' in good_one and "read-only copy" in good_one and "\n\n#" not in failed


@needs_ruby
def test_an_ended_session_says_whether_it_ever_started(tmp_path: Path) -> None:
    files = {"ready": "23456 writable\n", "failure.txt": "there is no port\n", "": ""}
    requests = []
    for name, text in files.items():
        staged = tmp_path / (name or "nothing")
        staged.mkdir()
        if name:
            (staged / name).write_text(text)
        requests.append({"path": str(APP / "completed.html.erb"), "kind": "session", "names": {"staged_root": str(staged)}})
    ended, failed, never = (answer["text"] for answer in render(requests))
    assert "has ended" in ended and "could not start" in failed and "there is no port" in failed and "did not start" in never
    assert "password" not in ended and "<form" not in ended
