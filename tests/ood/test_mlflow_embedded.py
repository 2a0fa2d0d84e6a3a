"""MLflow's own pages as an app of the portal under the real Passenger: opened from Lossi's pages at the right run, as the user."""

from __future__ import annotations

import html
import json
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import mlflow_store
import pytest
from chromium import PROGRAM, chromium
from installation import Installation
from passenger import App, Passenger, app_folder, passenger, until, why_not
from portal import notebook
from real_cluster import OwnCluster
from slurm_site import Site

from lossi.mlflow_ui.embedded import key_of
from lossi.projects import Project

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not())]

SOURCE = Path(__file__).resolve().parents[2] / "ood-apps" / "mlflow-embedded"
PORTAL_APP = Path(__file__).resolve().parents[2] / "passenger-app"
URI = "/pun/sys/lossi-mlflow-embedded"
LARGEST_MB = 350
"""Limit of the process's resident memory after its first page, above the README's figure."""


@dataclass(frozen=True)
class Embedded:
    server: Passenger
    app: App
    site: Site
    ids: dict[str, Any]
    other: Path
    strange: Path

    def client(self, uri: str = URI, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=f"{self.server.url}{uri}/", timeout=120, trust_env=False, headers=headers)

    def page(self, project: Path) -> str:
        return f"p/{key_of(Project(project))}/"


def prepared(cluster: OwnCluster, user: str, project: Path, private: Path) -> dict[str, Any]:
    def run(*words: object) -> str:
        argv = [str(cluster.installation.python), "-c", *map(str, words)]
        return cluster.run_as(user, argv, timeout=300).stdout.strip().splitlines()[-1]

    uri = run(mlflow_store.PREPARING, project)
    ids: dict[str, Any] = json.loads(run(mlflow_store.LOGGING, uri, project / ".lossi" / "artifacts", private))
    return ids


@pytest.fixture(scope="module")
def running(slurm: OwnCluster, installed: Installation) -> Iterator[Embedded]:
    site = Site(slurm)
    user = site.user
    private = slurm.project(user) / "private.txt"
    private.write_text("private")
    ids = prepared(slurm, user, site.project, private)
    other = slurm.project(user)
    ids["other"] = prepared(slurm, user, other, slurm.project(user) / "x")["run"]
    # Another user's project, which this user has never opened.
    strange = slurm.project(slurm.users[1])
    prepared(slurm, slurm.users[1], strange, slurm.project(slurm.users[1]) / "x")
    with site.file.open("a") as file:
        file.write(f"mlflow_embedded_url: {URI}\n")
    folder = slurm.root / "embedded"
    folder.mkdir()
    app = App(URI, app_folder(folder / "mlflow", installed.python, SOURCE))
    bare = App("/pun/sys/bare", app_folder(folder / "bare", "/usr/bin/python3", SOURCE))
    lossi = App("/pun/sys/lossi", app_folder(folder / "lossi", installed.python))
    environment = {**slurm.environment_of(user), **site.env}
    with passenger([app, bare, lossi], user, environment) as server:
        yield Embedded(server, app, site, ids, other, strange)


def test_a_run_opens_from_lossis_pages_within_the_documented_memory(running: Embedded) -> None:
    with running.client() as browser:
        query = {"project": str(running.site.project), "run": running.ids["run"]}
        led = browser.get("open", params=query)
        address = urlsplit(led.headers["Location"])
        assert led.status_code == 303 and address.path == f"{URI}/{running.page(running.site.project)}"
        assert address.fragment == f"/experiments/{running.ids['experiment']}/runs/{running.ids['run']}"
        page = browser.get(running.page(running.site.project))
        assert "<title>MLflow</title>" in page.text and page.headers["X-Frame-Options"] == "SAMEORIGIN"
        scripts = re.findall(r'src="((?:\./)?static-files/[^"]+\.js)"', page.text)
        assert scripts
        for script in scripts:
            assert browser.get(running.page(running.site.project) + script).status_code == 200
        shown = browser.get(
            f"{running.page(running.site.project)}ajax-api/2.0/mlflow/runs/get", params={"run_id": running.ids["run"]}
        )
        assert shown.json()["run"]["data"]["metrics"][0]["value"] == 0.5
    (process,) = running.server.processes(running.app)
    assert Path(f"/proc/{process}").stat().st_uid == pwd.getpwnam(running.site.user).pw_uid
    status = Path(f"/proc/{process}/status").read_text()
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    print(f"resident after the first page: {int(resident) // 1024} MiB")
    assert int(resident) / 1024 < LARGEST_MB
    stated = re.search(r"(\d+) MiB", (SOURCE / "README.md").read_text())
    assert stated and abs(int(stated[1]) - int(resident) / 1024) < 60


def test_one_process_serves_several_projects_but_only_those_the_user_has_opened(running: Embedded) -> None:
    with running.client() as browser:

        def get(project: Path, run: str) -> int:
            path = f"{running.page(project)}ajax-api/2.0/mlflow/runs/get"
            return browser.get(path, params={"run_id": run}).status_code

        for _ in range(2):
            assert get(running.site.project, running.ids["run"]) == 200 and get(running.other, running.ids["run"]) == 404
            assert get(running.other, running.ids["other"]) == 200 and get(running.site.project, running.ids["other"]) == 404
        listed = browser.get("")
        assert str(running.site.project) in listed.text and str(running.other) in listed.text
        assert str(running.strange) not in listed.text
        assert browser.get(running.page(running.strange)).status_code == 404
        for query in ({"project": str(running.strange)}, {"project": "/etc"}, {"project": "../.."}, {}):
            assert browser.get("open", params=query).status_code == 404, query
        for run in ("nothing", "../../x", "<script>"):
            refused = browser.get("open", params={"project": str(running.other), "run": run})
            assert refused.status_code in (404, 422) and "<script>" not in refused.text


def test_pages_of_other_sites_cannot_write_and_artifacts_stay_in_the_store(running: Embedded) -> None:
    write = f"{running.page(running.site.project)}ajax-api/2.0/mlflow/runs/set-tag"
    tag = {"run_id": running.ids["run"], "key": "seen", "value": "yes"}
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "http://localhost:3000"}, {"Sec-Fetch-Site": "same-site"}):
        with running.client(**headers) as browser:
            assert browser.post(write, json=tag).status_code == 403, headers
    with running.client(**{"Origin": running.server.url, "Sec-Fetch-Site": "same-origin"}) as browser:
        assert browser.post(write, json=tag).status_code == 200
        artifacts = f"{running.page(running.site.project)}get-artifact"
        assert browser.get(artifacts, params={"run_uuid": running.ids["run"], "path": "plot.txt"}).text == "a plot"
        for run, path in (("run", "way-out"), ("hostile", "stolen.txt")):
            refused = browser.get(artifacts, params={"run_uuid": running.ids[run], "path": path})
            assert refused.status_code == 403 and "private" not in refused.text


def test_without_mlflow_a_page_says_so(running: Embedded) -> None:
    with running.client("/pun/sys/bare") as browser:
        page = browser.get("")
        assert page.status_code == 503 and "has no lossi and no mlflow" in page.text and "Traceback" not in page.text


def test_lossis_pages_of_jobs_and_runs_link_to_the_run_in_mlflow(running: Embedded) -> None:
    source = "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('loss', lr * 2)"
    running.site.write("train.ipynb", notebook("lr: float = 0.5", source))
    submitted = running.site.submit("train.ipynb")
    ended = running.site.until(submitted["id"], "succeeded")
    with running.client("/pun/sys/lossi") as lossi, running.client() as mlflow:
        query = {"project": str(running.site.project), "job": ended["id"]}
        for page in ("", f"jobs/{ended['id']}"):
            # The first page ingests the results.
            until(lambda page=page: ">MLflow</a>" in lossi.get(page, params=query).text, f"{page!r} has the link")
            (link,) = re.findall(r'<a href="([^"]+)">MLflow</a>', lossi.get(page, params=query).text)
            led = mlflow.get(running.server.url + html.unescape(link))
            assert led.status_code == 303, led.text
            run = led.headers["Location"].rpartition("/runs/")[2]
            path = f"{running.page(running.site.project)}ajax-api/2.0/mlflow/runs/get"
            shown = mlflow.get(path, params={"run_id": run}).json()["run"]["data"]["metrics"]
            assert [metric["value"] for metric in shown] == [1.0]


@pytest.mark.skipif(not PROGRAM, reason="no Chromium")
def test_a_browser_shows_the_run_and_loads_everything_from_the_app(running: Embedded) -> None:
    with chromium() as page:
        query = urlencode({"project": str(running.site.project), "run": running.ids["run"]})
        assert page.open(f"{running.server.url}{URI}/open?{query}") == 200
        page.wait_for("loss")
        assert running.ids["run"] in page.text and "a run" in page.text
        loaded = page.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
        outside = [name for name in loaded if name.startswith("http") and not name.startswith(f"{running.server.url}{URI}/")]
        assert not outside
        # A run's artifact is not a page of the portal.
        base = f"{running.server.url}{URI}/{running.page(running.site.project)}".rstrip("/")
        hostile, _ = mlflow_store.hostile_artifacts(running.site.project, running.ids, base)
        page.run(mlflow_store.LISTEN)
        page.run(
            f"location.hash = '#/experiments/{running.ids['experiment']}/runs/{running.ids['run']}/artifacts/{hostile.name}'"
        )
        page.wait_until("window.told")
        outcome = page.run("window.told")
        assert (outcome["parent"], outcome["read"], outcome["write"], outcome["blind"]) == (
            "SecurityError",
            "TypeError",
            "TypeError",
            "opaque",
        )
        with pytest.raises(AssertionError, match="ERR_ABORTED"):
            page.open(f"{base}/get-artifact?run_uuid={running.ids['run']}&path={hostile.name}")
    with running.client() as client:
        query = {"run_uuid": running.ids["run"], "path": hostile.name}
        headers = client.get(f"{base}/get-artifact", params=query).headers
        assert headers["Content-Security-Policy"].startswith("sandbox;") and "nosniff" in headers["X-Content-Type-Options"]
        answer = client.get(f"{base}/ajax-api/2.0/mlflow/runs/get", params={"run_id": running.ids["run"]})
        assert answer.status_code == 200 and "stolen" not in answer.text


def test_it_is_started_with_the_portals_wrapper() -> None:
    assert (SOURCE / "bin" / "python").read_bytes() == (PORTAL_APP / "bin" / "python").read_bytes()
