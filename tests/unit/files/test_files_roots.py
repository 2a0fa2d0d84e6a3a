"""Users name paths only below the allowed folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from lossi.errors import Forbidden, NotFound
from lossi.files import roots


@pytest.fixture
def area(tmp_path: Path) -> Path:
    (tmp_path / "allowed" / "sub dir?%20").mkdir(parents=True)
    (tmp_path / "allowed-not").mkdir()
    return tmp_path


def test_relative_absolute_and_odd_paths_inside(area: Path) -> None:
    allowed = roots.Roots([area / "allowed"])
    folder = area / "allowed" / "sub dir?%20"
    assert allowed.resolve(str(folder)) == folder
    assert allowed.resolve("sub dir?%20") == folder
    assert allowed.resolve(".", base=folder) == folder
    assert allowed.resolve("../sub dir?%20/.", base=folder) == folder


@pytest.mark.parametrize("text", ["..", "/etc/passwd", "../allowed-not", "~root", "/no/such/thing", "sub dir?%20/../../x"])
def test_outside_is_forbidden_whether_or_not_it_exists(area: Path, home: Path, text: str) -> None:
    allowed = roots.Roots([area / "allowed"])
    if text == "~root":
        assert not allowed.allows(Path("/root"))
    with pytest.raises(Forbidden, match="outside"):
        allowed.resolve(text)


def test_link_outside_is_forbidden_and_link_inside_is_resolved(area: Path) -> None:
    (area / "allowed" / "out").symlink_to("/etc")
    (area / "allowed" / "in").symlink_to("sub dir?%20")
    allowed = roots.Roots([area / "allowed"])
    with pytest.raises(Forbidden):
        allowed.resolve("out/passwd")
    assert allowed.resolve("in") == area / "allowed" / "sub dir?%20"


def test_missing_inside_is_not_found(area: Path) -> None:
    allowed = roots.Roots([area / "allowed"])
    for text in ("nothing", "", "a\0b", "~no-such-user-here"):
        with pytest.raises(NotFound):
            allowed.resolve(text)


def test_root_reached_through_a_link(area: Path) -> None:
    (area / "alias").symlink_to(area / "allowed")
    assert roots.Roots([area / "alias"]).allows(area / "allowed" / "sub dir?%20")


def test_default_is_home_temporary_folder_and_project(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.delenv("OOD_ALLOWLIST_PATH", raising=False)
    project = tmp_path_factory.mktemp("elsewhere")
    assert roots.default().allows(home / "x")
    assert roots.default().allows(tmp_path / "tmp" / "x")
    assert not roots.default().allows(project)
    assert roots.default(project).allows(project / "x")


def test_site_roots_and_the_portals_allowlist(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site.yml"
    site.write_text(f"roots: [{tmp_path}/scratch]\n")
    monkeypatch.setenv("LOSSI_SITE", str(site))
    assert roots.default().allows(tmp_path / "scratch" / "x")
    assert not roots.default().allows(home)
    monkeypatch.setenv("OOD_ALLOWLIST_PATH", f"{tmp_path}/scratch/a:{home}")
    assert roots.default().allows(tmp_path / "scratch" / "a" / "x")
    assert not roots.default().allows(tmp_path / "scratch" / "x")
    assert not roots.default().allows(home)
    site.unlink()
    assert roots.default().allows(home)
    assert not roots.default(tmp_path / "other").allows(tmp_path / "other")
