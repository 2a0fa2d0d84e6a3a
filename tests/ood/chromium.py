"""Debian's Chromium, driven over its debugging pipe: open pages, look at them, click, take pictures. No driver, no port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host

PROGRAM = host.which("chromium") or host.which("chromium-browser")
OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]


class Page:
    """One tab."""

    def __init__(self, to: int, from_: int) -> None:
        self._to, self._from, self._buffer, self._number = to, from_, b"", 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def size(self, width: int, height: int = 900) -> None:
        """Resize the window, in CSS pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def open(self, url: str, **headers: str) -> int:
        """Open an address and return the final status; ``headers`` are sent with all requests from now on."""
        self._call("Network.setExtraHTTPHeaders", headers=headers)
        self._events.clear()
        failed = self._call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._events), f"{url} is loaded")
        documents = [
            event["params"]["response"]["status"]
            for event in self._events
            if event["method"] == "Network.responseReceived" and event["params"]["type"] == "Document"
        ]
        return int(documents[-1])

    def failures(self) -> list[str]:
        """Return failed requests and the browser's complaints, for example about the content security policy."""
        problems = []
        for event in self._events:
            params = event["params"]
            if event["method"] == "Network.responseReceived" and params["response"]["status"] >= 400:
                problems.append(f"{params['response']['status']} {params['response']['url']}")
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                problems.append(params["entry"]["text"])
            if event["method"] == "Runtime.exceptionThrown":
                problems.append(str(params["exceptionDetails"].get("text")))
        return problems

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; waits for a promise."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """The visible text."""
        return str(self.run("document.body.innerText"))

    def click(self, words: str) -> None:
        """Follow the first link with this text and wait for its page."""
        self._events.clear()
        clicked = self.run(
            f"(() => {{ const a = [...document.querySelectorAll('a')].find((a) => a.textContent.trim() === {json.dumps(words)});"
            " if (a) a.click(); return Boolean(a); })()"
        )
        assert clicked, f"no link {words!r} in:\n{self.text}"
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._events), f"what {words!r} leads to")

    def submit(self, script: str) -> None:
        """Run code that leads to another page, and wait for that page."""
        self._events.clear()
        self.run(script)
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._events), "the next page")

    def wait_until(self, expression: str) -> None:
        """Wait until an expression of the page is true."""
        self._until(lambda: self.run(f"Boolean({expression})"), expression)

    def wait_for(self, words: str) -> None:
        """Wait until the page shows a text."""

        def shown() -> bool:
            # Between two pages there is no document.
            with contextlib.suppress(AssertionError):
                return words in self.text
            return False

        self._until(shown, f"{words!r} is shown")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def picture(self, path: Path) -> None:
        """Save the window as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _until(self, look: Any, what: str) -> None:
        end = time.monotonic() + host.PATIENCE_S
        while not look():
            assert time.monotonic() < end, f"not within {host.PATIENCE_S} s: {what}"
            self._receive(0.05)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params, **({"sessionId": self._session} if self._session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + host.PATIENCE_S
        while time.monotonic() < end:
            for answer in self._receive(1):
                if answer.get("id") == number:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    result: dict[str, Any] = answer["result"]
                    return result
        raise AssertionError(f"Chromium does not answer {method}")

    def _receive(self, patience_s: float) -> list[dict[str, Any]]:
        """Read a message; keep events, return answers."""
        if not select.select([self._from], [], [], patience_s)[0]:
            return []
        piece = os.read(self._from, 1 << 20)
        assert piece, "Chromium has ended"
        *messages, self._buffer = (self._buffer + piece).split(b"\0")
        parsed = [json.loads(message) for message in messages]
        self._events += [message for message in parsed if "method" in message]
        return [message for message in parsed if "method" not in message]


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """Start a browser with a profile of its own and one empty tab; it ends with the block."""
    assert PROGRAM, "no Chromium on this machine"
    profile = tempfile.mkdtemp(prefix="lossi-chromium-")
    ours_out, theirs_in = os.pipe()[::-1]
    ours_in, theirs_out = os.pipe()
    # It reads from descriptor 3 and writes to 4.
    redirected = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    browser = subprocess.Popen(
        ["bash", "-c", redirected, PROGRAM, *OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": profile},
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_out)
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        os.close(ours_in)
        shutil.rmtree(profile, ignore_errors=True)
