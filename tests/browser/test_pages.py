"""The pages of `lossi serve` in a real browser: what a person sees after opening the link."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import host
import pytest

from lossi import projects
from lossi.api import security

CHROMIUM = host.which("chromium") or host.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
]


@pytest.fixture
def portal(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real server on a free port; yields its address."""
    monkeypatch.setenv("LOSSI_ALLOW_LOCAL_SCHEDULER", "true")
    folder = tmp_path / "my <b>project"
    folder.mkdir()
    projects.init(folder)
    argv = [sys.executable, "-m", "lossi", "serve", "--port", "0"]
    server = subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    for line in server.stdout:
        if address := re.search(r"(http://127\.0\.0\.1:\d+)/\?code=", line):
            break
    else:
        raise AssertionError("the server printed no link")
    yield address[1]
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=300)


@pytest.fixture
def seen(portal: str, tmp_path: Path) -> Callable[[str], str]:
    """Open a path through a one-time link and return what the browser makes of the page."""

    def open_in_browser(path: str) -> str:
        assert CHROMIUM is not None
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        url = f"{portal}{path}{'&' if '?' in path else '?'}code={security.new_code()}"
        done = subprocess.run([CHROMIUM, *OPTIONS, profile, "--dump-dom", url], capture_output=True, text=True, timeout=120)
        return done.stdout

    return open_in_browser


def test_link_opens_the_start_page(seen: Callable[[str], str]) -> None:
    page = seen("/")
    assert "Recent jobs" in page and "lossi run NOTEBOOK.ipynb" in page
    assert "my &lt;b&gt;project" in page and "<b>project" not in page


def test_without_the_code_a_page_says_what_to_do(portal: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    argv = [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'other'}", "--dump-dom", portal + "/"]
    page = subprocess.run(argv, capture_output=True, text=True, timeout=120).stdout
    assert "Authentication required" in page and "lossi serve --link" in page


def test_reference_page_works_without_the_internet(home: Path, tmp_path: Path) -> None:
    """In the portal's auth mode, where the browser is already authenticated."""
    import threading

    from werkzeug.serving import make_server

    from lossi.app import create_app

    assert CHROMIUM is not None
    server = make_server("127.0.0.1", 0, create_app(security.AuthMode(secret="s" * 32)), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/api/v1/docs/"
        argv = [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", address]
        page = subprocess.run(argv, capture_output=True, text=True, timeout=120).stdout
    finally:
        server.shutdown()
        thread.join()
    assert "/api/v1/runs/compare" in page and "Submit a job" in page
