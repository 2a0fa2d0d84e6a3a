"""A registry on 127.0.0.1 (Debian's docker-registry) with its images in a folder, for the time of a block."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import host

PROGRAM = "docker-registry"


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Start one and yield its address as it stands in references, ``127.0.0.1:PORT``."""
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{candidate.getsockname()[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "config.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/images}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        program = str(host.which(PROGRAM))
        child = subprocess.Popen([program, "serve", str(settings)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _wait(f"http://{address}/v2/", child)
        yield address
    finally:
        child.terminate()
        child.wait(300)


def _wait(url: str, child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while True:
        assert child.poll() is None, "the registry ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < end, "the registry does not answer"
            time.sleep(0.05)
