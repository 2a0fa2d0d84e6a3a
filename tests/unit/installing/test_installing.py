"""A bundle is installed, upgraded, rolled back and removed, in folders of the test."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import installing
from lossi.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from lossi.installing import Installed, Places, Plan, state, versions

Install = Callable[..., Installed]
Planned = Callable[..., Plan]
Write = Callable[[str, str], Path]


def tree(folder: Path) -> dict[str, str]:
    """Return everything below a folder: path → mode and kind, or the target of a link."""
    entries = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            kind = stat.S_IMODE(path.lstat().st_mode)
            entries[str(path.relative_to(folder))] = str(path.readlink()) if path.is_symlink() else f"{kind:o} {path.is_dir()}"
    return entries


def test_everything_is_installed_where_open_ondemand_looks(install: Install, places: Places) -> None:
    install()
    assert (places.apps / "lossi" / "manifest.yml").read_text() == "name: Lossi\n"
    assert (places.apps / "lossi-jupyter" / "environment").read_text() == "/usr/bin/python3\n"
    assert (places.apps / "lossi-jupyter" / "template" / "environment").read_text() == "/usr/bin/python3\n"
    assert (places.config / "plugins/lossi/views/widgets/_lossi.html.erb").is_file()
    assert (places.config / "apps/dashboard/views/widgets/_lossi.html.erb").is_file()
    assert (places.config / "apps/myjobs/templates/lossi-sweep/manifest.yml").is_file()
    assert (places.config / "apps/dashboard/projects/lossi-starter/.ondemand/manifest.yml").is_file()


def test_modes_do_not_follow_the_umask(install: Install, places: Places) -> None:
    before = os.umask(0o077)
    try:
        folder = install().folder
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE((folder / path).stat().st_mode) for path in state.inventory(folder)}
    executable = {path for path, mode in modes.items() if mode == 0o755}
    assert executable == {"apps/lossi/bin/python", "apps/lossi-jupyter/template/script.sh", "bin/lossi"}
    assert {mode for path, mode in modes.items() if path not in executable} == {0o644}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o755 for path in (folder, *folder.rglob("*")) if path.is_dir())
    assert stat.S_IMODE(places.config.stat().st_mode) == 0o755


def test_installing_again_changes_nothing(install: Install, planned: Planned, places: Places) -> None:
    first = install()
    assert installing.diff(planned(), installing.current(places)) == []
    assert planned().name == first.name


def test_an_upgrade_keeps_the_previous_version_and_rollback_restores_it(
    install: Install, planned: Planned, places: Places, write: Write
) -> None:
    old = install("1.0")
    running = Path(os.path.realpath(places.apps / "lossi"))  # where a running portal has its files
    write("portal/manifest.yml", "name: Lossi 2\n")
    write("ood-apps/new/manifest.yml", "name: New\n")
    (change,) = [change for change in installing.diff(planned("2.0"), old) if change.path == "apps/lossi/manifest.yml"]
    assert (change.kind, change.lines()[-2:]) == ("changed", ["-name: Lossi", "+name: Lossi 2"])
    install("2.0")
    assert (places.apps / "lossi" / "manifest.yml").read_text() == "name: Lossi 2\n"
    assert (running / "manifest.yml").read_text() == "name: Lossi\n"
    assert (places.apps / "lossi-new").is_dir()
    assert installing.rollback(places).version == "1.0"
    assert (places.apps / "lossi" / "manifest.yml").read_text() == "name: Lossi\n"
    assert not os.path.lexists(places.apps / "lossi-new")
    assert installing.rollback(places).version == "2.0"
    assert (places.apps / "lossi-new").is_dir()


@pytest.mark.parametrize(("keep_days", "kept"), [(0, ["2.0", "3.0"]), (30, ["1.0", "2.0", "3.0"])])
def test_versions_and_environments_stay_while_a_queued_job_may_start_in_them(
    source: Path, places: Places, write: Write, keep_days: int, kept: list[str]
) -> None:
    (places.environments / "forgotten" / "bin").mkdir(parents=True)
    for number in (1, 2, 3):
        write("portal/manifest.yml", f"name: {number}\n")
        python = places.environments / f"{number}.0" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to("/usr/bin/python3")
        components = installing.components(source, places)
        installing.apply(installing.plan(components, places, version=f"{number}.0", python=python), places, keep_days)
    assert sorted(path.name[:3] for path in places.versions.iterdir()) == kept
    assert sorted(path.name for path in places.environments.iterdir()) == kept


def test_the_days_of_an_unused_version_count_from_the_upgrade(install: Install, places: Places, write: Write) -> None:
    for number in (1, 2):
        write("portal/manifest.yml", f"name: {number}\n")
        install(f"{number}.0")
    for folder in places.versions.iterdir():
        os.utime(folder, (1, 1))  # installed long ago
    for number in (3, 4):
        write("portal/manifest.yml", f"name: {number}\n")
        install(f"{number}.0")
    assert sorted(path.name[:3] for path in places.versions.iterdir()) == ["2.0", "3.0", "4.0"]


def test_the_apps_name_their_environment_by_a_relative_path(source: Path, write: Write, places: Places) -> None:
    python = places.environments / "1.0" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/usr/bin/python3")
    components = installing.components(source, places)
    installing.apply(installing.plan(components, places, version="1.0", python=python), places)
    named = (places.apps / "lossi" / "environment").read_text().rstrip("\n")
    assert not Path(named).is_absolute()
    assert (places.apps / "lossi" / named).resolve() == python.resolve()
    assert (places.apps / "lossi-jupyter/template/environment").read_text() == "/opt/lossi/environments/1.0/bin/python\n"
    assert python.is_symlink()


def test_uninstalling_leaves_the_host_as_it_was(tmp_path: Path, install: Install, places: Places, write: Write) -> None:
    before = tree(tmp_path / "host")
    install("1.0")
    write("portal/manifest.yml", "name: 2\n")
    install("2.0")
    assert installing.uninstall(places) is None
    assert tree(tmp_path / "host") == before
    with pytest.raises(NotFound):
        installing.uninstall(places)


def test_files_of_others_in_our_folders_stay(install: Install, places: Places) -> None:
    install()
    mine = places.config / "plugins" / "mine"
    mine.mkdir()
    installing.uninstall(places)
    assert mine.is_dir()
    assert not places.home.exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_files_of_others_are_never_touched(tmp_path: Path, install: Install, places: Places, kind: str) -> None:
    there = places.apps / "lossi-jupyter"
    if kind == "folder":
        there.mkdir()
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to("/srv/lossi/current/apps/lossi-jupyter")
    before = tree(tmp_path / "host")
    with pytest.raises(Conflict, match="lossi-jupyter was not put there by Lossi"):
        install()
    assert tree(tmp_path / "host") == before
    install(without=["lossi-jupyter"])
    installing.uninstall(places)
    assert tree(tmp_path / "host") == before


def test_a_home_with_something_else_in_it_is_refused(install: Install, places: Places) -> None:
    (places.home / "lib").mkdir(parents=True)
    with pytest.raises(Conflict, match="contains something else"):
        install()
    assert [path.name for path in places.home.iterdir()] == ["lib"]


def test_edited_files_are_shown_restored_and_kept(install: Install, planned: Planned, places: Places) -> None:
    first = install()
    (places.apps / "lossi" / "manifest.yml").write_text("name: Ours\n")
    (places.apps / "lossi" / "note.txt").write_text("mine\n")
    (places.apps / "lossi-jupyter" / "manifest.yml").unlink()
    (places.apps / "lossi-jupyter" / "form.json").write_text("{}")  # written by Lossi itself
    edited = {edit.path: edit.kind for edit in installing.edits(first)}
    assert edited == {
        "apps/lossi/manifest.yml": "edited",
        "apps/lossi/note.txt": "added",
        "apps/lossi-jupyter/manifest.yml": "removed",
    }
    changes = installing.diff(planned(), first)
    assert {change.path for change in changes if change.kind == "restored"} == set(edited)
    second = install()
    assert installing.edits(second) == []
    assert (places.edits / first.folder.name / "apps/lossi/manifest.yml").read_text() == "name: Ours\n"
    assert (places.edits / first.folder.name / "apps/lossi/note.txt").read_text() == "mine\n"
    assert installing.uninstall(places) == places.edits, "edits of a person are kept"
    assert [path.name for path in places.home.iterdir()] == ["edits"]


def test_a_full_disk_changes_nothing(
    tmp_path: Path, install: Install, places: Places, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("1.0")
    before = tree(tmp_path / "host")
    write("portal/manifest.yml", "name: 2\n")
    written = versions._write

    def full(path: Path, content: bytes, mode: int) -> None:
        written(path, content, mode)
        if path.name == "manifest.yml":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(versions, "_write", full)
    with pytest.raises(Unavailable, match="full"):
        install("2.0")
    assert tree(tmp_path / "host") == before


def test_a_link_that_cannot_be_made_changes_nothing(
    tmp_path: Path, install: Install, places: Places, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("1.0")
    before = tree(tmp_path / "host")
    write("portal/manifest.yml", "name: 2\n")
    write("ood-apps/new/manifest.yml", "name: New\n")
    write("ood-apps/other/manifest.yml", "name: Other\n")
    link = Path.symlink_to

    def refused(self: Path, target: str) -> None:
        if self.name == "lossi-other":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        link(self, target)

    monkeypatch.setattr(Path, "symlink_to", refused)
    with pytest.raises(Unavailable, match="read-only"):
        install("2.0")
    assert tree(tmp_path / "host") == before


def test_a_second_installation_at_the_same_time_is_refused(install: Install, places: Places) -> None:
    install()
    descriptor = os.open(places.home, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another installation"):
            install()
    finally:
        os.close(descriptor)
    install()


def test_a_world_writable_home_is_refused(tmp_path: Path, install: Install) -> None:
    (tmp_path / "host").chmod(0o777)
    with pytest.raises(Forbidden):
        install()


def test_a_damaged_record_is_named(install: Install, places: Places) -> None:
    record = install().folder / "manifest.json"
    for content in ("", "{}", "[]", '{"format": 99}', "[" * 100_000):
        record.write_text(content)
        with pytest.raises(InvalidInput, match="cannot read the record"):
            installing.current(places)


def test_links_below_a_folder_that_is_a_link_itself(tmp_path: Path, source: Path, write: Write) -> None:
    (tmp_path / "elsewhere" / "deep" / "sys").mkdir(parents=True)
    apps = tmp_path / "host" / "var/www/ood/apps"
    apps.mkdir(parents=True)
    (apps / "sys").symlink_to(tmp_path / "elsewhere" / "deep" / "sys")
    places = Places.below(tmp_path / "host")
    components = installing.components(source, places)
    installing.apply(installing.plan(components, places, version="1.0", python=Path("/usr/bin/python3")), places)
    assert (apps / "sys" / "lossi" / "manifest.yml").is_file()
    assert places.is_ours(apps / "sys" / "lossi")


def test_a_source_with_a_loop_of_links_is_refused(source: Path, planned: Planned) -> None:
    (source / "portal" / "again").symlink_to(source / "portal")
    with pytest.raises(InvalidInput):
        planned()


def test_an_unknown_component_is_named(planned: Planned) -> None:
    with pytest.raises(InvalidInput, match="no component nothing"):
        planned(without=["nothing"])


def test_a_custom_home_is_found_again(tmp_path: Path, source: Path, write: Write, places: Places) -> None:
    elsewhere = Places.below(tmp_path / "host", home=Path("/appl/lossi"))
    components = installing.components(source, elsewhere)
    installing.apply(installing.plan(components, elsewhere, version="1.0", python=Path("/usr/bin/python3")), elsewhere)
    assert Places.below(tmp_path / "host") == elsewhere
    assert Places.below(tmp_path / "host", home=Path("/opt/lossi")) == places
    installing.uninstall(elsewhere)
    (places.apps / "lossi").symlink_to("/nowhere/current/apps/lossi")
    assert Places.below(tmp_path / "host") == places
