"""What all tests share: a home of their own, so that no test sees or touches the user's."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

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
    """Whichever test comes first builds the image (tests/containers), which may take longer than any other test."""
    for item in items:
        if "built_environment" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(2400))
