"""The dashboard's widget: its partial rendered by real Ruby, its script in a real browser with the real app."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import chromium
import host
import pytest
from chromium import Page
from installation import Installation
from passenger import why_not
from portal import Portal, portal
from real_cluster import OwnCluster
from slurm_site import Site

TREE = Path(__file__).resolve().parents[2]
PLUGIN = TREE / "ood-apps" / "dashboard-plugin" / "lossi"
PARTIAL = PLUGIN / "views" / "widgets" / "_lossi.html.erb"
SCRIPT = TREE / "passenger-app" / "public" / "static" / "widget.js"
RUBY = host.which("ruby")

# The partial may use no helper of the view that renders it: the stub has none.
RENDER = """
require 'erb'
view = Object.new
puts view.instance_eval(ERB.new(File.read(ARGV[0]), trim_mode: '-').src)
"""
# The dashboard's strictest policy with csp_enabled: true.
POLICY = (
    "default-src 'self'; font-src 'self' data:; img-src 'self' data:; object-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'"
)
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Dashboard</title><link rel="icon" href="data:,"></head>
<body><h1>Dashboard</h1>{widget}<p>the end of the page</p></body></html>"""
HOSTILE = '<img src=x onerror="document.title=1">'

with_ruby = pytest.mark.skipif(RUBY is None, reason="no Ruby on this machine")
in_browser = [
    pytest.mark.root,
    with_ruby,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine"),
]


def rendered() -> str:
    """Return the partial as Ruby renders it without Rails."""
    assert RUBY
    argv = [RUBY, "-W2", "-e", RENDER, str(PARTIAL)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env={"LANG": "C"})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@with_ruby
def test_the_partial_needs_nothing_and_runs_no_inline_script() -> None:
    text = rendered()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert scripts == [""] and 'src="/pun/sys/lossi/static/widget.js" defer' in text
    assert SCRIPT.is_file(), "the portal's server serves it from the app's public folder"
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", text)
    assert 'data-lossi-widget="/pun/sys/lossi"' in text and '<a href="/pun/sys/lossi/">Open Lossi</a>' in text
    assert text.count("<div") == text.count("</div>")


def test_the_partial_reads_nothing_in_the_dashboards_process() -> None:
    code = re.findall(r"<%[-=]?\s*(?!#)(.*?)-?%>", PARTIAL.read_text("ascii"))
    assert {line.strip() for line in code} == {"app = '/pun/sys/lossi'", "app"}


def test_plugin_has_what_the_dashboard_loads_and_nothing_else() -> None:
    assert [path.relative_to(PLUGIN).as_posix() for path in PLUGIN.rglob("*") if path.is_file()] == [
        "views/widgets/_lossi.html.erb"
    ]


@pytest.fixture(scope="module")
def running(slurm: OwnCluster, installed: Installation) -> Iterator[Portal]:
    """The portal of a user with a single, empty project, and pages that hold the widget: of the app, and of one that cannot start."""
    site = Site(slurm)
    state = slurm.projects / "widget-state"
    state.mkdir()
    slurm.give(state, site.user)
    site.env["XDG_STATE_HOME"] = str(state)
    site.lossi("project", "init")
    strict = ['<Location "/pun/sys/dashboard">', f'  Header always set Content-Security-Policy "{POLICY}"', "</Location>"]
    with portal(site, installed, slurm.root / "portal-widget", settings=strict) as started:
        folder = started.server.folder / "htdocs" / "pun" / "sys" / "dashboard"
        folder.mkdir(parents=True)
        widget = rendered()
        (folder / "index.html").write_text(PAGE.format(widget=widget))
        (folder / "gone.html").write_text(PAGE.format(widget=widget.replace("/pun/sys/lossi", "/pun/sys/gone")))
        (folder / "absent.html").write_text(PAGE.format(widget=widget.replace("/pun/sys/lossi", "/pun/sys/absent")))
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium.chromium() as page:
        yield page


class TestInTheDashboard:
    pytestmark = in_browser

    def test_jobs_appear_with_their_state_and_lead_to_their_page(self, running: Portal, browser: Page) -> None:
        dashboard = f"{running.server.url}/pun/sys/dashboard/index.html"
        assert browser.open(dashboard) == 200
        browser.wait_for("No jobs yet")
        assert browser.failures() == []
        site = running.site
        job = site.submit("-n", HOSTILE, "--", "true")
        over = ("COMPLETED", "FAILED")
        # Not refreshed since it was submitted: the index says that it waits.
        site.cluster.wait(lambda: site.cluster.job(site.user, site.slurm_id(job)).get("JobState") in over, "it has ended")
        browser.open(dashboard)
        browser.wait_for("succeeded")
        assert HOSTILE in browser.text and "the end of the page" in browser.text
        assert (browser.failures(), browser.run("document.title")) == ([], "Dashboard")
        assert site.project.name in browser.text
        browser.click(HOSTILE)
        assert browser.run("location.pathname") == f"/pun/sys/lossi/jobs/{job['id']}"
        assert browser.failures() == []

    @pytest.mark.parametrize("name", ["gone", "absent"])
    def test_without_a_working_app_the_page_keeps_the_link(self, running: Portal, browser: Page, name: str) -> None:
        browser.open(f"{running.server.url}/pun/sys/dashboard/{name}.html")
        if name == "gone":  # its files exist all the same
            browser.wait_for("Recent jobs cannot be shown here: it answers with status 5")
        assert "Open Lossi" in browser.text and "the end of the page" in browser.text

    def test_answers_become_text_and_links_lead_only_into_the_app(self, running: Portal, browser: Page) -> None:
        browser.open(f"{running.server.url}/pun/sys/dashboard/index.html")
        browser.wait_for("Recent runs")
        job = {"id": "1", "name": HOSTILE, "state": HOSTILE, "why": HOSTILE, "project": "/p", "project_name": HOSTILE}
        job |= {"tasks": 2, "done": 1, "runs": 2, "created": "nonsense", "active": False}
        job |= {"page": "javascript:alert(1)", "runs_page": "https://elsewhere.example/pun/sys/lossi/"}
        answer = json.dumps(json.dumps({"items": [job], "projects": 1}))
        stub = f"new Response({answer}, {{headers: {{'Content-Type': 'application/json'}}}})"
        browser.run(
            f"(() => {{ window.fetch = async () => {stub}; const box = document.createElement('div'); box.id = 'box';"
            " box.dataset.lossiWidget = '/pun/sys/lossi'; document.body.append(box); })()"
        )
        browser.run(SCRIPT.read_text())
        browser.wait_for(HOSTILE)
        assert browser.run("document.querySelectorAll('#box a, #box img').length") == 0
        assert browser.run("document.title") == "Dashboard"
