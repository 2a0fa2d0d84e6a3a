"""The Jupyter app's form.js in a real browser, on a page as Open OnDemand makes it."""

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

from lossi.ood import forms

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")

PATH = "/pun/sys/dashboard/batch_connect/sys/lossi-jupyter/session_contexts/new"
OWN = {
    "environments": [
        {"name": "mine", "title": "<img src=x onerror=alert(1)> Mine", "source": "user"},
        {"name": "torch", "title": "Twice", "source": "user"},
        {"name": "of-project", "title": "Of a project", "source": "project"},
    ]
}


def page(form: dict[str, Any]) -> str:
    """Return the form as HTML, and jQuery's one function that is needed."""
    parts = []
    for name in ["cluster", *form["form"]]:
        attribute = form["attributes"][name]
        key = f'id="batch_connect_session_context_{name}"'
        options = [[one, one] for one in form["cluster"]] if name == "cluster" else attribute.get("options")
        if options:
            inside = "".join(f'<option value="{html.escape(one[1])}">{html.escape(one[0])}</option>' for one in options)
            parts.append(f"<select {key}>{inside}</select>")
        else:
            parts.append(f'<input {key} value="{html.escape(str(attribute.get("value", "")))}">')
    script = (TREE / "ood-apps" / "jupyter" / "form.js").read_text()
    ready = "var $ = function () { return { ready: function (f) { setTimeout(f, 0); } }; };"
    return f"<!doctype html><form>{''.join(parts)}</form><script>{ready}(function(){{\n{script}\n}}())</script>"


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    jupyter_site.write(home)
    shown = page(forms.current()).encode()
    answers = {PATH: ("text/html", shown), "/pun/sys/lossi/api/v1/environments": ("application/json", json.dumps(OWN).encode())}

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


def test_the_page_knows_the_portal_adds_own_environments_and_takes_a_links_values(address: str) -> None:
    query = "?environment=mine&partition=mahti--small&cores=7&folder=%2Fa%3Cb&gpu_type=no-such&submit=1"
    values = "Object.fromEntries([...document.querySelectorAll('[id^=batch_connect]')].map((e) => [e.id.slice(30), e.value]))"
    with chromium.chromium() as browser:
        browser.open(address + PATH + query)
        browser.wait_for("Mine")
        browser.run("new Promise((done) => setTimeout(done, 50))")
        told = browser.run(values)
        options = browser.run(
            "[...document.getElementById('batch_connect_session_context_environment').options].map((o) => o.text)"
        )
        images = browser.run("document.images.length")
    assert told["portal_origin"] == address
    assert (told["environment"], told["partition"], told["cores"], told["folder"]) == ("mine", "mahti--small", "7", "/a<b")
    assert told["gpu_type"] == "none", "what is not offered is not chosen"
    assert options[-1] == "<img src=x onerror=alert(1)> Mine (yours)" and len(options) == 4 and images == 0
