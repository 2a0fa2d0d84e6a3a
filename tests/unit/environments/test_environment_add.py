"""Adding environments to the user's catalogue."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import environments
from lossi.errors import Conflict, InvalidInput, LossiError, Unavailable

WriteCatalog = Callable[[str], Path]


def test_first_entry_creates_the_file(home: Path) -> None:
    added = environments.add("mine", title="Mine", python="auto", description="For me: # not a comment")
    assert (added.name, added.source, added.title, added.description) == ("mine", "user", "Mine", "For me: # not a comment")
    assert environments.user_file().stat().st_mode & 0o777 == 0o600
    assert environments.load().problems == ()
    assert environments.resolve(added).python == sys.executable


COMMENTED = """\
# my environments
environments:
    one:  # the first
        title: "One"
        local: {python: auto}
    # about two
    two:
        title: Two
        description: |
            several

            lines
        local:
            python: auto   # keep me

# the end
format: 1
"""


def test_comments_and_other_entries_stay(user_catalog: WriteCatalog) -> None:
    path = user_catalog(COMMENTED)
    environments.add("three", title="Drei: 'ünï' \"code\"", python="auto")
    entry = """\
    three:
        title: "Drei: 'ünï' \\"code\\""
        local:
            python: auto
"""
    assert path.read_text("utf-8") == COMMENTED.replace("# keep me\n", f"# keep me\n{entry}")
    catalog = environments.load()
    assert catalog.problems == ()
    assert [catalog.get(name).title for name in ("one", "two", "three")] == ["One", "Two", "Drei: 'ünï' \"code\""]


@pytest.mark.parametrize(
    "old",
    [
        "",
        "# only a comment\n",
        "format: 1",
        "environments:\n",
        "environments: {}\n",
        "environments: {one: {title: One, local: {python: auto}}}\n",
        '{"environments": {"one": {"title": "One", "local": {"python": "auto"}}}}',
        "environments:\n  one:\n    title: One\n    local:\n      python: auto",
        "environments:\n  one:\n    title: One\n    local: {python: auto}\n    description: >\n      folded\n      text\n\n\nformat: 1\n",
        "environments:\n  one: &a\n    title: One\n    local: {python: auto}\n",
        "---\nenvironments:\n  one:\n    title: One\n    local: {python: auto}\n...\n",
    ],
)
def test_entry_is_added_to_any_form_of_the_file(user_catalog: WriteCatalog, old: str) -> None:
    path = user_catalog("")
    path.write_text(old, "utf-8")
    environments.add("new", title="New", python="auto")
    environments.add("newer", title="Newer", python="auto")
    catalog = environments.load()
    assert catalog.problems == ()
    assert catalog.get("new").title == "New" and catalog.get("newer").title == "Newer"
    assert ("one" in old) == any(environment.name == "one" for environment in catalog.environments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "sklearn", "python": "auto"}, Conflict, "already"),
        ({"name": "Bad Name", "python": "auto"}, InvalidInput, "cannot be a name"),
        ({"name": "-x", "python": "auto"}, InvalidInput, "cannot be a name"),
        ({"name": "a\nb", "python": "auto"}, InvalidInput, "cannot be a name"),
        ({"name": "mine"}, InvalidInput, "nothing to run"),
        ({"name": "mine", "digest": "sha256:" + "0" * 64}, InvalidInput, "needs an image"),
        ({"name": "mine", "python": "/no/such/python"}, Unavailable, "there is no Python"),
        ({"name": "mine", "sif": "/no/such.sif"}, Unavailable, "there is no image"),
        ({"name": "mine", "image": "-rf /"}, InvalidInput, "not an image reference"),
        ({"name": "mine", "image": "a", "accelerator": "tpu"}, InvalidInput, "is not known"),
        ({"name": "mine", "image": "a", "architecture": "sparc"}, InvalidInput, "is not known"),
        ({"name": "mine", "image": "a", "digest": "sha256:1"}, InvalidInput, "is not a digest"),
        ({"name": "mine", "python": "auto", "title": "two\nlines"}, InvalidInput, "control character"),
    ],
)
def test_invalid_entry_leaves_no_file(home: Path, arguments: dict[str, str], error: type[LossiError], message: str) -> None:
    with pytest.raises(error, match=message):
        environments.add(**{"title": "T", **arguments})  # type: ignore[arg-type]
    assert not environments.user_file().exists()


def test_architecture_is_read_from_the_sif(home: Path, sif: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = sif("my image.sif", architecture=b"04")
    monkeypatch.chdir(path.parent)
    added = environments.add("mine", title="Mine", sif="my image.sif", accelerator="cuda")
    assert added.variant_names() == ["aarch64-cuda"]
    assert added.variant("aarch64", "cuda").sif == str(path)  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match="is for aarch64, not for x86_64"):
        environments.add("other", title="Other", sif=str(path), architecture="x86_64")


@pytest.mark.parametrize("broken", ["environments: [1, 2]\n", "environments:\n  a: [1\n", "- a\n"])
def test_broken_file_is_not_changed(user_catalog: WriteCatalog, broken: str) -> None:
    path = user_catalog(broken)
    with pytest.raises(InvalidInput, match=str(path)):
        environments.add("mine", title="Mine", python="auto")
    assert path.read_text() == broken


def test_name_of_an_invalid_entry_is_taken_too(user_catalog: WriteCatalog) -> None:
    path = user_catalog("environments: {mine: {title: Mine}}\n")
    with pytest.raises(Conflict, match=str(path)):
        environments.add("mine", title="Mine", python="auto")


def test_two_concurrent_additions_keep_both(home: Path) -> None:
    code = "import sys; from lossi import environments; environments.add(sys.argv[1], title='T', python='auto')"
    names = [f"own-{number}" for number in range(4)]
    children = [subprocess.Popen([sys.executable, "-c", code, name]) for name in names]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    catalog = environments.load()
    assert {environment.name for environment in catalog.environments if environment.source == "user"} == set(names)
