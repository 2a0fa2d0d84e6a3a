"""Merged layers of an image, compared with the same changes in a real folder."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from small_image import Entry, Image, archive, file, folder, hard_link, link

from lossi.environments.images import oci_layout, sif, trees
from lossi.environments.images.trees import Folder, Leaf
from lossi.errors import InvalidInput


def tree(*layers: list[Entry]) -> Folder:
    root = Folder()
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(archive(layer)), mode="r|") as stream:
            oci_layout.apply(root, stream)
    return root


def paths(root: Folder) -> list[str]:
    return [path for path, _ in trees.lines(root)]


def same(one: Folder, other: Folder) -> bool:
    equal = trees.tree_hash(one) == trees.tree_hash(other)
    assert equal == (trees.differences(one, other) == [])
    return equal


def test_whiteouts_remove_only_from_layers_below() -> None:
    base = [folder("a"), file("a/x", "1"), file("a/y", "2"), folder("a/b"), file("a/b/z", "3")]
    assert paths(tree(base, [file("a/.wh.x")])) == ["a", "a/b", "a/b/z", "a/y"]
    # In either order, what the layer itself brings stays.
    assert paths(tree(base, [file("a/.wh.x"), file("a/x", "new")])) == paths(tree(base, [file("a/x", "new"), file("a/.wh.x")]))
    assert paths(tree(base, [file("a/new"), file("a/.wh..wh..opq")])) == ["a", "a/new"]
    assert paths(tree(base, [file("a/.wh.b"), file("a/b", "now a file")])) == ["a", "a/b", "a/x", "a/y"]
    assert paths(tree(base, [file(".wh.a")])) == []
    assert paths(tree(base, [file(".wh.never-there")])) == paths(tree(base))


def test_hard_links_lead_to_files_of_their_layer_or_below() -> None:
    base = [file("a", "1", 0o755)]
    assert same(tree(base, [hard_link("b", "a")]), tree([file("a", "1", 0o755), file("b", "1", 0o755)]))
    assert same(
        tree([*base, hard_link("b", "./a"), hard_link("c", "b")]), tree([*base, file("b", "1", 0o755), file("c", "1", 0o755)])
    )
    # Renamed in a layer: linked to, and the old name taken away.
    assert same(tree(base, [hard_link("b", "a"), file(".wh.a")]), tree([file("b", "1", 0o755)]))


def test_entries_below_a_link_follow_it() -> None:
    base = [folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), link("up", "../../usr"), link("loop", "loop")]
    assert "usr/lib/x" in paths(tree(base, [file("lib/x")]))
    assert "usr/x" in paths(tree(base, [file("up/x")]))
    assert "loop/x" in paths(tree(base, [file("loop/x")]))  # leads nowhere: it becomes a folder
    assert "lib/x" in paths(tree(base, [folder("lib"), file("lib/x")]))  # a folder of its own replaces the link


def test_path_type_content_target_and_execute_permission_are_compared() -> None:
    base = tree([folder("a"), file("a/x", "1"), link("l", "a")])
    for other in (
        [folder("a"), file("a/x", "2"), link("l", "a")],
        [folder("a"), file("a/x", "1", 0o755), link("l", "a")],
        [folder("a"), file("a/x", "1"), link("l", "b")],
        [folder("a"), file("a/x", "1"), file("l", "a")],
        [folder("a"), link("l", "a")],
        [folder("a"), file("a/x", "1"), link("l", "a"), folder("b")],
    ):
        assert not same(base, tree(other))
    assert same(base, tree([folder("a", 0o700), file("a/x", "1", 0o600), link("l", "a")]))


def test_only_additions_of_apptainer_and_the_machine_are_left_out() -> None:
    base = tree([file("x")])
    added = [
        folder("proc"),
        folder("var"),
        folder("var/tmp"),
        folder("etc"),
        file("etc/hosts", "1"),
        file("etc/resolv.conf", "1"),
    ]
    added += [folder(".singularity.d"), file(".singularity.d/runscript"), link("singularity", "x"), link(".exec", "x")]
    assert same(base, tree([file("x"), *added]))
    for name in ("etc/passwd", "var/tmp/x", "proc/x", "opt/singularity", ".singularity.e"):
        assert not same(base, tree([file("x"), file(name)]))
    assert same(base, tree([file("x"), Entry("dev/null", kind=tarfile.CHRTYPE)]))


NAMES = st.sampled_from(["a", "b", "c", ".wh", "é", "with space"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(
    st.tuples(PATHS, st.sampled_from(["file", "executable", "folder", "link", "remove"]), st.text("xy", max_size=2)), max_size=12
)


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=4))
def test_layers_of_random_changes_make_the_changed_folder(layers: list[list[tuple[str, str, str]]]) -> None:
    """Each list of changes is made in a folder and written as a layer of new and changed files, and whiteouts of removed ones."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root"
        root.mkdir()
        written, before = [], Folder()
        for steps in layers:
            for path, what, content in steps:
                _change(root / path, what, content)
            now = trees.read_folder(root)
            written.append(list(_layer(before, now, "", root)))
            before = now
        assert same(tree(*written), before)


def _change(path: Path, what: str, content: str) -> None:
    import shutil

    for parent in list(path.parents)[::-1]:
        if parent.is_symlink() or parent.is_file():
            return
    if path.is_dir() and not path.is_symlink():
        if what == "folder":
            return
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if what == "remove":
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(content or "nowhere")
    else:
        path.write_text(content)
        path.chmod(0o755 if what == "executable" else 0o644)


def _layer(before: Folder, now: Folder, prefix: str, root: Path) -> list[Entry]:
    """Return the changes as a builder writes them."""
    entries: list[Entry] = []
    for name in before.children.keys() - now.children.keys():
        entries.append(file(f"{prefix}.wh.{name}"))
    for name, node in now.children.items():
        old, path = before.children.get(name), f"{prefix}{name}"
        if isinstance(node, Folder):
            if not isinstance(old, Folder):
                entries.append(folder(path))
            below = _layer(old if isinstance(old, Folder) else Folder(), node, f"{path}/", root)
            entries += below
        elif node != old:
            if node.kind == "link":
                entries.append(link(path, node.content))
            else:
                entries.append(file(path, (root / path).read_text(), 0o755 if node.executable else 0o644))
    return entries


def test_invalid_layout_is_refused(tmp_path: Path) -> None:
    for content in ("", "{}", '{"manifests": []}', '{"manifests": [{"digest": "../../etc/passwd"}]}', "[1]"):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(InvalidInput, match="damaged"):
            oci_layout.read(tmp_path)


@given(st.binary(max_size=300))
@settings(max_examples=50)
def test_file_that_is_not_a_sif_is_refused(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(InvalidInput):
            sif.file_system_offset(Path(file.name))


def test_image_of_an_architecture_is_found_in_an_index() -> None:
    entries = [{"digest": f"sha256:{name}", "platform": {"os": "linux", "architecture": name}} for name in ("amd64", "arm64")]
    assert oci_layout.manifest_of({"manifests": entries}, "aarch64") == "sha256:arm64"
    assert oci_layout.manifest_of({"manifests": entries[:1]}, "aarch64") is None


def test_layout_has_architecture_labels_and_size(tmp_path: Path) -> None:
    layout = Image([[file("a")]], architecture="arm64", labels={"x": "y"}).write(tmp_path / "image")
    assert (layout.architecture, layout.labels) == ("aarch64", {"x": "y"}) and layout.size > 0
    assert isinstance(oci_layout.image_tree(layout).children["a"], Leaf)
