"""The form.js of the apps in a real browser, on a page like Open OnDemand's."""

from __future__ import annotations

import html
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import jupyter_site
import pytest
from batch_connect import TREE

from lossi.ood import apps

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")

PATH = "/pun/sys/dashboard/batch_connect/sys/lossi-{}/session_contexts/new"
OWN = {
    "environments": [
        {"name": "mine", "title": "<img src=x onerror=alert(1)> Mine", "source": "user"},
        {"name": "torch", "title": "Twice", "source": "user"},
        {"name": "of-project", "title": "Of a project", "source": "project"},
    ]
}
VALUES = "Object.fromEntries([...document.querySelectorAll('[id^=batch_connect]')].map((e) => [e.id.slice(30), e.value]))"


def page(app: str) -> str:
    """Return an app's form as HTML, with the one function of jQuery that it needs."""
    form: dict[str, Any] = apps.get(app).form()
    parts = []
    for name in ["cluster", *form["form"]]:
        attribute = form["attributes"][name]
        key = f'id="batch_connect_session_context_{name}"'
        options = [[cluster, cluster] for cluster in form["cluster"]] if name == "cluster" else attribute.get("options")
        if options:
            inside = "".join(f'<option value="{html.escape(option[1])}">{html.escape(option[0])}</option>' for option in options)
            parts.append(f"<select {key}>{inside}</select>")
        else:
            parts.append(f'<input {key} value="{html.escape(str(attribute.get("value", "")))}">')
    script = (TREE / "ood-apps" / app / "form.js").read_text()
    ready = "var $ = function () { return { ready: function (f) { setTimeout(f, 0); } }; };"
    return f"<!doctype html><form>{''.join(parts)}</form><script>{ready}(function(){{\n{script}\n}}())</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Page]:
    with chromium.chromium() as running:
        yield running


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    jupyter_site.write(home)
    answers = {PATH.format(app): ("text/html", page(app).encode()) for app in apps.APPS}
    answers["/pun/sys/lossi/api/v1/environments"] = ("application/json", json.dumps(OWN).encode())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = answers.get(self.path.partition("?")[0], ("text/plain", b""))
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_page_sets_the_portal_adds_own_environments_and_fills_in_a_links_values(browser: chromium.Page, address: str) -> None:
    query = "?environment=mine&queue=mahti--small&cores=7&folder=%2Fa%3Cb&gpu_type=no-such&submit=1"
    browser.open(address + PATH.format("jupyter") + query)
    browser.wait_for("Mine")
    browser.run("new Promise((done) => setTimeout(done, 50))")
    values = browser.run(VALUES)
    options = browser.run("[...document.getElementById('batch_connect_session_context_environment').options].map((o) => o.text)")
    images = browser.run("document.images.length")
    assert values["portal_origin"] == address
    assert (values["environment"], values["queue"], values["cores"], values["folder"]) == ("mine", "mahti--small", "7", "/a<b")
    assert values["gpu_type"] == "none", "a value that is not offered is not chosen"
    assert options[-1] == "<img src=x onerror=alert(1)> Mine (yours)" and len(options) == 4 and images == 0


def test_a_link_fills_in_mlflows_project_and_submits_nothing(browser: chromium.Page, address: str) -> None:
    page = address + PATH.format("mlflow-session")
    for query, store, cores in (
        ("", "", "2"),
        ("?store=%2Fscratch%2Fa%20project%3Cb%3E%22%27", "/scratch/a project<b>\"'", "2"),
        ("?store=relative&cores=3&submit=1", "", "3"),
        ("?store=%2Fone&store=%2Ftwo", "/one", "2"),
    ):
        browser.open(page + query)
        browser.run("new Promise((done) => setTimeout(done, 50))")
        values = browser.run(VALUES)
        assert (values["store"], values["cores"]) == (store, cores)
        assert browser.run("document.images.length") == 0 and browser.run("location.href") == page + query


@pytest.mark.parametrize("app", ["jupyter", "mlflow-session"])
def test_an_entered_number_outlives_a_partition_with_a_lower_limit(browser: chromium.Page, address: str, app: str) -> None:
    browser.open(address + PATH.format(app))
    browser.run("new Promise((done) => setTimeout(done, 50))")

    def chosen(field: str, value: int, most: int) -> str:
        """Choose another partition, for which Open OnDemand's page sets a limit and a value; return the value afterwards."""
        name = f"batch_connect_session_context_{field}"
        return str(
            browser.run(
                f"(() => {{ const field = document.getElementById('{name}'); field.max = {most}; field.value = {value};"
                " document.getElementById('batch_connect_session_context_queue').dispatchEvent(new Event('change', {bubbles: true}));"
                " return field.value; })()"
            )
        )

    hours = int(browser.run(VALUES)["hours"])
    assert chosen("hours", 1, most=1) == "1" and chosen("hours", 72, most=72) == str(hours) != "72"
    assert chosen("memory_gb", 2, most=2) == "2" and chosen("memory_gb", 4096, most=4096) == "4"


@pytest.mark.parametrize("app", apps.APPS)
def test_an_entered_number_stays_when_the_page_raises_it_to_the_limit_of_another_partition(
    browser: chromium.Page, address: str, app: str
) -> None:
    browser.open(address + PATH.format(app))
    # What Open OnDemand's page does for a chosen partition, and what the user types.
    move = """((name, most) => { const hours = document.getElementById('batch_connect_session_context_hours');
      if (most) { hours.min = 1; hours.max = most; hours.value = most; } else { hours.value = 30; }
      document.getElementById('batch_connect_session_context_' + name).dispatchEvent(new Event('change', { bubbles: true }));
      return hours.value; })"""
    assert browser.run(f"{move}('queue', 72)") == "2", "the form's default"
    assert browser.run(f"{move}('queue', 1)") == "1"
    assert browser.run(f"{move}('queue', 72)") == "2"
    assert browser.run(f"{move}('hours', 0)") == "30"
    assert (browser.run(f"{move}('queue', 24)"), browser.run(f"{move}('queue', 72)")) == ("24", "30")


def test_the_first_enabled_environment_is_chosen_if_the_page_chose_none(browser: chromium.Page, address: str) -> None:
    browser.open(address + PATH.format("jupyter"))
    hide = """new Promise((done) => { const select = document.getElementById('batch_connect_session_context_environment');
      select.add(new Option('', ''), 0); select.options[1].disabled = true; select.value = '';
      select.dispatchEvent(new Event('change', { bubbles: true }));
      setTimeout(() => done([select.selectedIndex, select.value === select.options[2].value]), 50); })"""
    assert browser.run(hide) == [2, True]
