"""The portal under the real Passenger as an ordinary user: addresses, sessions, files, jobs on the real Slurm, and failed starts."""

from __future__ import annotations

import html
import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
from installation import Installation
from passenger import PORTAL, until, why_not
from portal import Portal, csrf, finished, notebook, portal
from real_cluster import OwnCluster
from slurm_site import Site

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not())]

TRAIN = (
    "lr: float = 0.5  # learning rate",
    "import mlflow\nwith mlflow.start_run():\n    mlflow.log_param('lr', lr)\n    mlflow.log_metric('loss', lr * 2)",
    "from IPython.display import HTML\nprint('trained with', lr)\nHTML('<script>document.title = \"acted\"</script><b>bold</b>')",
)


@pytest.fixture(scope="module")
def site(slurm: OwnCluster) -> Site:
    new_site = Site(slurm)
    new_site.write("train.ipynb", notebook(*TRAIN))
    return new_site


@pytest.fixture(scope="module")
def running(site: Site, installed: Installation, slurm: OwnCluster) -> Iterator[Portal]:
    with portal(site, installed, slurm.root / "portal") as started:
        yield started


@pytest.fixture(scope="module")
def job(running: Portal) -> str:
    """A sweep of two, submitted from the web process and watched to its end."""
    with running.client() as browser:
        body = {"notebook": "train.ipynb", "sweep": {"grid": {"lr": [0.1, 0.2]}}, "resources": {"time": 600, "memory": "1500M"}}
        answer = browser.post("api/v1/jobs", json=body, params={"project": str(running.site.project)}, headers=csrf(browser))
        assert answer.status_code == 201, answer.text
        ended = finished(browser, answer.json()["id"], running.site.project)
        assert (ended["state"], ended["counts"]) == ("succeeded", {"succeeded": 2}), (ended, running.site.logs(ended["id"]))
        return str(ended["id"])


# -- where and as whom ------------------------------------------------------------------------------------------------


def test_it_runs_as_the_user_in_one_process_without_what_the_portal_left_in_the_environment(running: Portal) -> None:
    with running.client() as browser:
        assert browser.get("api/v1/session").json()["user"] == running.site.user
        forged = browser.get("api/v1/session", headers={"X-Forwarded-User": "root", "REMOTE_USER": "root"}).json()
        assert forged["user"] == running.site.user
    (process,) = running.server.processes(running.apps["sys"])
    assert Path(f"/proc/{process}").stat().st_uid == pwd.getpwnam(running.site.user).pw_uid
    names = {entry.partition(b"=")[0].decode() for entry in Path(f"/proc/{process}/environ").read_bytes().split(b"\0") if entry}
    left = {name for name in names if name.startswith(("PYTHON", "RUBY", "BUNDLE", "GEM_"))} - {"PYTHONNOUSERSITE"}
    assert not left
    assert {"ONDEMAND_VERSION", "PASSENGER_BASE_URI", "HOME"} <= names


@pytest.mark.parametrize("mount", ["sys", "dev"])
def test_every_address_is_below_the_mount(running: Portal, job: str, mount: str) -> None:
    uri = running.apps[mount].uri
    with running.client(mount) as browser:
        page = browser.get("", params={"project": str(running.site.project)})
        assert page.status_code == 200
        links = [link for link in re.findall(r'(?:href|src)="([^"]*)"', page.text) if not link.startswith("/pun/sys/dashboard")]
        assert len(links) >= 10
        for link in links:
            assert link.startswith(uri + "/"), link
            assert browser.get(running.server.url + html.unescape(link)).status_code in (200, 304), link
        session = browser.get("api/v1/session")
        cookie = session.headers["Set-Cookie"]
        assert cookie.startswith(f"lossi_session_{mount}_lossi=") and f"Path={uri}/;" in cookie
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
        document = browser.get("api/v1/openapi.json").json()
        assert document["components"]["securitySchemes"]["session"]["name"] == f"lossi_session_{mount}_lossi"
    bare = httpx.get(running.server.url + uri + "?project=x", trust_env=False)
    assert (bare.status_code, bare.headers["Location"]) == (308, f"{uri}/?project=x")


@pytest.mark.parametrize(
    ("mount", "kind", "app", "field"),
    [("sys", "sys", "lossi-jupyter", "folder"), ("dev", "dev", "lossi-mlflow-session", "store")],
)
def test_a_project_links_to_the_forms_of_installed_session_apps(
    running: Portal, mount: str, kind: str, app: str, field: str
) -> None:
    with running.client(mount) as browser:
        page = browser.get("", params={"project": str(running.site.project)}).text
    (link,) = [html.unescape(link) for link in re.findall(r'href="([^"]*)"', page) if "batch_connect" in link]
    path, _, query = link.partition("?")
    assert path == f"/pun/sys/dashboard/batch_connect/{kind}/{app}/session_contexts/new"
    assert parse_qs(query) == {field: [str(running.site.project)]}


def test_the_cookie_is_secure_if_the_portal_uses_https(running: Portal) -> None:
    with running.client() as browser:
        assert "Secure" not in browser.get("api/v1/session").headers["Set-Cookie"]
    with running.client(**{"X-Forwarded-Proto": "https"}) as browser:
        assert "Secure" in browser.get("api/v1/session").headers["Set-Cookie"]


def test_the_server_sends_static_files_and_every_other_answer_has_our_headers(running: Portal) -> None:
    with running.client() as browser:
        style = browser.get("static/start.css")
        assert style.status_code == 200 and style.headers["Content-Type"].startswith("text/css")
        assert "X-Powered-By" not in style.headers, "nginx left a file of public/ to Passenger"
        page = browser.get("")
        assert (
            page.headers["X-Powered-By"].startswith("Phusion")
            and "frame-ancestors 'self'" in page.headers["Content-Security-Policy"]
        )
        assert browser.get("static/").status_code in (403, 404)
        for outside in ("static/../../passenger_wsgi.py", "static/%2e%2e/%2e%2e/environment", "passenger_wsgi.py", "environment"):
            assert browser.get(outside).status_code in (400, 403, 404), outside
    assert not list((PORTAL / "public").rglob("index.html")), "it would be served without our headers"


def test_a_missing_page_is_a_page_or_a_problem_document(running: Portal) -> None:
    with running.client() as browser:
        page = browser.get("nothing/here", headers={"Accept": "text/html"})
        assert page.status_code == 404 and "<h1>Not Found</h1>" in page.text
        problem = browser.get("api/v1/nothing")
        assert (problem.status_code, problem.headers["Content-Type"]) == (404, "application/problem+json")


def test_writes_need_our_token_our_type_and_our_site(running: Portal) -> None:
    with running.client() as browser:
        token = csrf(browser)
        ask = {"params": {"project": str(running.site.project)}}
        good = {"json": {"notebook": "train.ipynb"}, **ask}
        assert browser.post("api/v1/jobs/preview", headers=token, **good).status_code == 200
        assert browser.post("api/v1/jobs/preview", **good).status_code == 403
        assert browser.post("api/v1/jobs/preview", headers={**token, "Sec-Fetch-Site": "cross-site"}, **good).status_code == 403
        assert browser.post("api/v1/jobs/preview", headers={**token, "Sec-Fetch-Site": "same-site"}, **good).status_code == 403
        assert browser.post("api/v1/jobs/preview", headers=token, data={"notebook": "train.ipynb"}, **ask).status_code == 415
    with running.client("dev") as other:
        assert other.post("api/v1/jobs/preview", headers=token, **good).status_code == 403


def test_the_portal_shows_nothing_outside_the_allowed_folders(running: Portal) -> None:
    with running.client("limited") as browser:
        assert browser.get("api/v1/projects").json() == {"projects": []}
        hidden = browser.get("api/v1/jobs", params={"project": str(running.site.project)})
        assert hidden.status_code == 404 and str(running.site.project) not in hidden.json()["hint"]
        assert running.site.project.name not in browser.get("").text
        refused = browser.post("api/v1/projects", json={"path": str(running.site.project)}, headers=csrf(browser))
        assert refused.status_code == 403


def test_no_job_runs_on_the_web_server_itself(running: Portal) -> None:
    with running.client() as browser:
        body = {"notebook": "train.ipynb", "scheduler": "local"}
        answer = browser.post("api/v1/jobs", json=body, params={"project": str(running.site.project)}, headers=csrf(browser))
        assert answer.status_code in (403, 409, 422, 501), answer.text
        assert "web server of Open OnDemand" in answer.text


# -- jobs ---------------------------------------------------------------------------------------------------------------


def test_a_sweep_submitted_from_the_web_process_is_watched_and_compared(running: Portal, job: str) -> None:
    ask = {"project": str(running.site.project)}
    with running.client() as browser:
        tasks = browser.get(f"api/v1/jobs/{job}/tasks", params=ask).json()["items"]
        assert [task["state"] for task in tasks] == ["succeeded"] * 2 and all(task["host"] for task in tasks)
        log = browser.get(f"api/v1/jobs/{job}/tasks/1/log", params=ask).json()
        assert "trained with 0.2" in log["text"]
        runs = browser.get("api/v1/runs", params={**ask, "limit": "100"}).json()
        compared = browser.post(
            "api/v1/runs/compare", json={"run_ids": runs["columns"]["run_id"]}, params=ask, headers=csrf(browser)
        ).json()
        assert sorted(compared["differing"]["params.lr"]) == ["0.1", "0.2"] and compared["metrics"]["loss"]["differs"]
        assert compared["job"]["state"] == ["succeeded"] * 2
        until(lambda: browser.get(f"api/v1/jobs/{job}/tasks/0/notebook", params=ask).status_code == 200, "it is rendered")
        rendered = browser.get(f"api/v1/jobs/{job}/tasks/0/notebook", params=ask)
        assert "trained with 0.1" in rendered.text
        assert rendered.headers["Content-Security-Policy"] == "sandbox"
    owner = {path.owner() for path in (running.site.project / ".lossi").rglob("*")}
    assert owner == {running.site.user}


def test_pages_answer(running: Portal, job: str) -> None:
    with running.client() as browser:
        for path in ("", f"jobs/{job}", f"jobs/{job}/tasks/0/log", "api/v1/jobs", "api/v1/runs"):
            answer = browser.get(path, params={"project": str(running.site.project)})
            assert answer.status_code == 200, (path, answer.text)


# -- the process comes and goes ---------------------------------------------------------------------------------------


def test_a_session_outlives_the_process_and_restart_txt_brings_a_new_one(running: Portal) -> None:
    with running.client() as browser:
        token = csrf(browser)
        for end in (lambda: running.restart("sys"), lambda: running.server.end(running.apps["sys"])):
            (before,) = running.server.processes(running.apps["sys"])
            end()
            # Passenger removes an idle process from its pool before ending it; it notices a death only by a failed answer.
            until(lambda: browser.get("api/v1/health").status_code == 200, "another process answers")
            answer = browser.post(
                "api/v1/jobs/preview",
                json={"notebook": "train.ipynb"},
                params={"project": str(running.site.project)},
                headers=token,
            )
            assert answer.status_code == 200, answer.text
            until(lambda gone=before: not Path(f"/proc/{gone}").exists(), "the old process has ended")
            assert running.server.processes(running.apps["sys"]) != [before]


def test_an_idle_process_ends_and_nothing_is_lost(site: Site, installed: Installation, slurm: OwnCluster) -> None:
    with portal(site, installed, slurm.root / "portal-idle", idle_s=1) as running, running.client() as browser:
        token = csrf(browser)
        app = running.apps["sys"]
        until(lambda: not running.server.processes(app), "it is ended")
        answer = browser.post(
            "api/v1/jobs/preview", json={"notebook": "train.ipynb"}, params={"project": str(site.project)}, headers=token
        )
        assert answer.status_code == 200, answer.text


# -- when it cannot start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mount", "why"),
    [
        ("bare", "No module named &#x27;lossi&#x27;"),
        ("gone", "is missing or you may not run it"),
        ("old", "is Python 3.9, Lossi needs 3.11 or later"),
    ],
)
def test_a_portal_that_cannot_start_explains_itself(running: Portal, mount: str, why: str) -> None:
    with running.client(mount) as browser:
        page = browser.get("any/page?x=1")
        assert page.status_code == 503 and page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert why in page.text and "What to do" in page.text and "lossi install" in page.text and "restart.txt" in page.text
        assert "Traceback" not in page.text and "default-src 'none'" in page.headers["Content-Security-Policy"]
        problem = browser.get("api/v1/session")
        assert (problem.status_code, problem.headers["Content-Type"]) == (503, "application/problem+json")
        assert problem.json()["hint"] and browser.head("").content == b""


def test_a_restart_picks_up_a_new_environment(running: Portal, installed: Installation) -> None:
    with running.client("bare") as browser:
        assert browser.get("").status_code == 503
        named = running.apps["bare"].root / "environment"
        named.write_text(f"{os.path.relpath(installed.python, named.parent)}\n")
        running.restart("bare")
        assert browser.get("").status_code == 200
        named.unlink()
        running.restart("bare")
        assert browser.get("").status_code == 503
