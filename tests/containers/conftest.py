"""One environment that was really built, and registries on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import host
import pytest
from built_environment import built_environment, why_not
from local_registry import registry

__all__ = ["built_environment"]


@pytest.fixture
def host_path() -> str:
    """What builds and runs images starts many programs of the machine."""
    return host.PATH


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty registry."""
    if reason := why_not():
        pytest.skip(reason)
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
