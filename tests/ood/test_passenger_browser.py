"""The portal under the real Passenger in a real browser, wide and narrow: what a user sees and follows, and what untrusted content cannot do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from chromium import Page
from installation import Installation
from passenger import why_not
from portal import Portal, csrf, finished, notebook, portal
from real_cluster import OwnCluster
from slurm_site import Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine"),
]

SIZES = {"wide": 1280, "narrow": 400}
ACTS = (
    "x: int = 1",
    "from IPython.display import HTML\nprint('x is', x)\nHTML('<script>document.title = \"acted\"; "
    'fetch("/pun/sys/lossi/api/v1/session").then(() => {document.body.innerText = "acted"})</script><b>bold words</b>\')',
)


@pytest.fixture(scope="module")
def running(slurm: OwnCluster, installed: Installation) -> Iterator[Portal]:
    site = Site(slurm)
    site.write("acts.ipynb", notebook(*ACTS))
    site.write("fails.py", "print('nearly there')\nraise ValueError('the data has no column \"label\"')\n")
    with portal(site, installed, slurm.root / "portal-browser") as started:
        yield started


@pytest.fixture(scope="module")
def jobs(running: Portal) -> Iterator[dict[str, str]]:
    """One job that succeeds, one that fails, one that takes all GPUs and two that wait, all submitted from the web process."""
    ask = {"project": str(running.site.project)}
    all_gpus = {"partition": "gpu", "nodes": 2, "gpus": 4, "gpu_type": "a100", "time": 900}
    sent = {}
    with running.client() as browser:
        requests: dict[str, dict[str, Any]] = {
            "good": {"notebook": "acts.ipynb"},
            "failed": {"script": "fails.py"},
            "endless": {"command": ["sleep", "900"], "resources": all_gpus},
            "next": {"command": ["true"], "resources": all_gpus},
            "waiting": {"command": ["true"], "after": [{"job": "endless"}]},
        }
        for name, body in requests.items():
            for other in body.get("after", []):
                other["job"] = sent[other["job"]]
            answer = browser.post("api/v1/jobs", json={"name": f"job-{name}", **body}, params=ask, headers=csrf(browser))
            assert answer.status_code == 201, answer.text
            sent[name] = answer.json()["id"]
        assert finished(browser, sent["good"], running.site.project)["state"] == "succeeded"
        assert finished(browser, sent["failed"], running.site.project)["state"] == "failed"
    yield sent
    with running.client() as browser:  # other tests of this cluster need its GPUs
        for name in ("endless", "next", "waiting"):
            browser.post(f"api/v1/jobs/{sent[name]}/cancel", json={}, params=ask, headers=csrf(browser))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium.chromium() as page:
        yield page


def pictured(page: Page, name: str) -> None:
    """Save a picture if LOSSI_TEST_PICTURES names a folder."""
    if folder := os.environ.get("LOSSI_TEST_PICTURES"):
        page.picture(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("width", SIZES.values(), ids=SIZES)
def test_links_lead_to_jobs_reasons_logs_and_runs(running: Portal, jobs: dict[str, str], browser: Page, width: int) -> None:
    browser.size(width)
    assert browser.open(running.page()) == 200
    browser.wait_for("Expected start")
    text = browser.text
    for words in (
        "Open OnDemand",
        "job-good",
        "succeeded",
        "job-failed",
        "failed",
        "job-next",
        "queued",
        "It waits for another job",
    ):
        assert words in text, text
    assert (browser.failures(), browser.overflow()) == ([], 0)
    pictured(browser, f"start-{width}")
    browser.click("job-failed")
    assert 'the data has no column "label"' in browser.text and "What to do" in browser.text
    assert (browser.failures(), browser.overflow()) == ([], 0)
    pictured(browser, f"job-{width}")
    browser.click("Log")
    assert "nearly there" in browser.text
    assert (browser.failures(), browser.overflow()) == ([], 0)
    pictured(browser, f"log-{width}")
    browser.open(running.page(f"jobs/{jobs['waiting']}"))
    assert "waits for another job" in browser.text
    pictured(browser, f"waiting-{width}")
    browser.open(running.page(job=jobs["good"]))
    assert "Runs of job-good" in browser.text
    browser.open(f"{running.address('sys')}/nothing")
    assert "Not Found" in browser.text and browser.overflow() == 0
    browser.open(f"{running.address('gone')}/")
    assert "Lossi cannot start" in browser.text and browser.overflow() == 0
    pictured(browser, f"gone-{width}")


def test_a_page_sends_a_write_with_the_sessions_token(running: Portal, browser: Page) -> None:
    browser.open(running.page())
    status = browser.run(
        "fetch('api/v1/session').then((a) => a.json()).then((s) => fetch('api/v1/jobs/preview' + location.search, {method: 'POST',"
        " headers: {'Content-Type': 'application/json', 'X-CSRF-Token': s.csrf_token}, body: '{\"notebook\": \"acts.ipynb\"}'}))"
        ".then((a) => a.status)"
    )
    assert status == 200


def test_the_scripts_of_an_output_notebook_do_nothing(running: Portal, jobs: dict[str, str], browser: Page) -> None:
    browser.size(1280)
    assert browser.open(running.page(f"api/v1/jobs/{jobs['good']}/tasks/0/notebook")) in (200, 202)
    browser.wait_for("bold words")
    assert "x is 1" in browser.text
    assert browser.run("document.title") != "acted" and "acted" not in browser.text.replace("'acted'", "").replace('"acted"', "")
    assert browser.run("window.origin") == "null"
    pictured(browser, "notebook")


def test_the_reference_works_below_the_mount(running: Portal, browser: Page) -> None:
    assert browser.open(f"{running.address('dev')}/api/v1/docs/") == 200
    browser.wait_for("Submit a job")
    assert browser.failures() == []
