"""What all tests share: a home of their own, so that no test sees or touches the user's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

BUILDING: pytest.StashKey[subprocess.Popen[bytes]] = pytest.StashKey()

for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        # As in a shell's background or under nohup: what the tests start would inherit it, and could not trap or die of the signal.
        signal.signal(ignored, lambda *_: None)

pytest.register_assert_rewrite("scheduler_contract")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder with Lossi's state, cache and configuration inside."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name, place in (("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")):
        monkeypatch.setenv(name, str(folder / place))
    monkeypatch.setenv("LOSSI_SITE", str(folder / "no-site.yml"))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the image (tests/containers) come last: it is built meanwhile, which may take longer than any other test."""
    for item in items:
        if needs_image(item):
            item.add_marker(pytest.mark.timeout(2400))
    items.sort(key=needs_image)


def needs_image(item: pytest.Item) -> bool:
    return "built_environment" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build the image, where it is wanted; the fixture waits for it, or builds it when that failed."""
    if session.config.option.collectonly or not any(map(needs_image, session.items)):
        return
    import built_environment

    if not built_environment.why_not():
        code = f"import sys; sys.path[:] = {sys.path!r}; import built_environment; built_environment.build()"
        session.config.stash[BUILDING] = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what is still being built, in its own way: it has mounted things."""
    building = session.config.stash.get(BUILDING, None)
    if building and building.poll() is None:
        building.send_signal(signal.SIGINT)
        building.wait(120)
