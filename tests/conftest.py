"""What all tests share: surroundings of their own (see `host`), so that no test sees or touches the user's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import host
import pytest
from hypothesis import HealthCheck, settings

BUILDING: pytest.StashKey[subprocess.Popen[bytes]] = pytest.StashKey()

for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        # As in a shell's background or under nohup: what the tests start would inherit it, and could not trap or die of the signal.
        signal.signal(ignored, lambda *_: None)

pytest.register_assert_rewrite("scheduler_contract", "scheduler_jobs")

# How long an example takes says how busy the machine is, no more.
settings.register_profile(
    "lossi", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("lossi")


def pytest_configure(config: pytest.Config) -> None:
    """Tests run in an environment of their own; the process that only hands them out to others leaves its own to these."""
    if config.getoption("numprocesses", None) is None:
        host.isolate()


@pytest.fixture
def host_path(request: pytest.FixtureRequest) -> str:
    """The PATH of the test: basic programs, and those that its ``host`` markers name."""
    names = [name for marker in request.node.iter_markers("host") for name in marker.args]
    if missing := [name for name in names if not host.which(name)]:
        pytest.skip(f"this machine has no {', '.join(missing)}: tests/provision.sh installs what tests need")
    return host.path(tuple(names))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, host_path: str) -> Iterator[Path]:
    """An empty home folder with Lossi's state, cache and configuration inside, and the rest of the environment of the test."""
    folder = tmp_path.with_name(f"{tmp_path.name}.home")  # tmp_path is empty when a test begins
    folder.mkdir()
    before = dict(os.environ)
    os.environ.update(host.variables(folder), PATH=host_path)
    yield folder
    os.environ.clear()
    os.environ.update(before)


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
            [sys.executable, "-c", code],
            env={**os.environ, "PATH": host.PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what is still being built, in its own way: it has mounted things."""
    building = session.config.stash.get(BUILDING, None)
    if building and building.poll() is None:
        building.send_signal(signal.SIGINT)
        building.wait(120)
