"""Small images through a real registry, skopeo and Apptainer: pushed, pulled by digest, converted, compared, recorded."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from built_environment import why_not
from small_image import Image, file, folder, hard_link, link

from lossi import environments
from lossi.environments.images import convert, oci_layout, pipeline, pull, registry, trees, verify
from lossi.errors import Conflict, Forbidden, InvalidInput, LossiError, NotFound, NotSupported, Unavailable

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the small images are for x86_64"),
]

LAYERS = (
    (
        *(folder(name) for name in ("usr", "usr/bin", "usr/lib", "etc", "opt", "opt/app", "opt/old", "opt/old/deep", "locked")),
        link("lib", "usr/lib"),
        link("absolute", "/usr/lib"),
        link("nowhere", "no/such/file"),
        file("usr/bin/tool", "#!/bin/sh\n", 0o755),
        file("usr/lib/libé one.so", "ünïcode"),
        file("etc/hosts", "127.0.0.1 localhost\n"),
        file("etc/secret", "x", 0o000),
        file("opt/app/kept", "1"),
        file("opt/app/changed", "old"),
        file("opt/app/gone", "2"),
        file("opt/old/a", "3"),
        file("opt/old/deep/b", "4"),
        file("opt/becomes-a-folder", "5"),
        hard_link("opt/app/twin", "usr/bin/tool"),
    ),
    (
        folder("opt/app"),
        file("opt/app/.wh.gone"),
        file("opt/app/changed", "new", 0o755),
        folder("opt/old"),
        file("opt/old/.wh..wh..opq"),
        file("opt/old/c", "6"),
        folder("opt/becomes-a-folder"),
        file("opt/becomes-a-folder/inside", "7"),
        file("lib/through-a-link", "8"),
        hard_link("opt/app/third", "opt/app/changed"),
    ),
)
ENVIRONMENT = """\
# the site's catalogue
environments:
  small:  # ours
    title: Small
    frameworks: {numpy: "2.0"}
    variants:
      x86_64:
        none:
          image: localhost/small:1  # not yet in a registry
      aarch64:
        none: {image: "localhost/small:1"}
"""


@pytest.fixture
def site(home: Path, tmp_path: Path) -> Path:
    """A site with one environment and a folder for SIF files; returns its catalogue."""
    catalog = tmp_path / "catalog.yml"
    catalog.write_text(ENVIRONMENT)
    (home / "no-site.yml").write_text(yaml.safe_dump({"catalogs": [str(catalog)], "sif_folder": str(tmp_path / "sif")}))
    return catalog


@pytest.fixture
def pushed(address: str, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Put an image into the registry and return its reference and digest."""

    def push(image: Image, name: str) -> tuple[str, str]:
        layout = image.write(tmp_path / f"push-{name}")
        reference = f"{address}/tests/{name}:1"
        return reference, registry.push(layout, reference, say=None)

    return push


def pull_small(reference: str, variant: str | None = None) -> pipeline.Ready:
    return pull.pull_image(environments.load().get("small"), variant, image=reference)


def test_sif_has_the_files_of_the_layers_and_is_recorded_with_its_digest(
    site: Path, pushed: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    reference, digest = pushed(Image(LAYERS, labels={"org.lossi.frameworks": '{"numpy": "2.1"}'}), "layers")
    ready = pull_small(reference)
    assert (ready.digest, ready.catalog, ready.listed) == (digest, str(site), True)
    entry = environments.load().get("small").variant("x86_64", "none")
    assert entry and (entry.image, entry.digest, entry.sif) == (reference, digest, ready.sif)
    assert entry.frameworks == {"numpy": "2.1"}
    text = site.read_text()
    assert all(comment in text for comment in ("# the site's catalogue", "# ours", "# not yet in a registry"))
    assert [path.name for path in (tmp_path / "sif").iterdir()] == [Path(str(ready.sif)).name]
    assert not list(Path(os.environ["HOME"]).glob("**/*apptainer*"))
    comparison = verify.verify_image(environments.load().get("small"))
    assert comparison.same and comparison.differences == [] and comparison.sif_tree == ready.tree
    # What the comparison rests on, said once in full.
    tree = dict(trees.lines(trees.sif_tree(Path(str(ready.sif)), tmp_path)))
    assert {
        "usr/lib/through-a-link",
        "opt/old/c",
        "opt/becomes-a-folder/inside",
        "opt/app/third",
        "usr/lib/libé one.so",
    } <= tree.keys()
    assert not {"opt/app/gone", "opt/old/a", "opt/old/deep", "opt/app/.wh.gone"} & tree.keys()
    assert tree["opt/app/twin"] == tree["usr/bin/tool"] and tree["opt/app/third"] == tree["opt/app/changed"]


def test_changed_sif_is_found_and_nothing_of_it_is_run(
    site: Path, pushed: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    reference, _digest = pushed(Image(LAYERS), "changed")
    ready = pull_small(reference)
    rest = (
        file("usr/bin/tool", "#!/bin/sh\nevil\n", 0o755),
        file("opt/app/kept", "1", 0o755),
        file("opt/new"),
        file("opt/app/.wh.third"),
        link("absolute", "/tmp"),
    )
    other = Image((*LAYERS, rest)).write(tmp_path / "other")
    work = tmp_path / "work"
    work.mkdir()
    convert.build(f"oci:{other.folder}", Path(str(ready.sif)), work, "cannot tamper", say=None)
    comparison = verify.verify_image(environments.load().get("small"))
    assert not comparison.same and comparison.image_tree == ready.tree != comparison.sif_tree
    listed = "\n".join(comparison.differences)
    assert all(
        path in listed for path in ("/usr/bin/tool", "/opt/app/kept", "/opt/new", "/opt/app/third", "/absolute: link to /usr/lib")
    )
    assert len(comparison.differences) == 5
    # On the command line: exit code 1, and what to do.
    argv = [sys.executable, "-m", "lossi", "env", "verify", "small"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1 and "they differ" in done.stdout and "/opt/new is in the SIF only" in done.stdout


def test_failed_pull_changes_nothing(
    site: Path, pushed: Callable[..., tuple[str, str]], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "tmp"
    work.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(work))
    good, _ = pushed(Image(LAYERS), "good")
    arm, _ = pushed(Image(LAYERS, architecture="arm64"), "arm")
    other, _ = pushed(Image(LAYERS, labels={"org.lossi.environment": "pytorch"}), "pytorch")
    absent = f"{good.rpartition(':')[0]}@sha256:{'0' * 64}"
    for reference, error, message in (
        (arm, NotSupported, "for aarch64, not for x86_64"),
        (other, InvalidInput, "its labels say so"),
        (absent, NotFound, "no such image"),
        (f"{address}/no/such:1", NotFound, "no such image"),
        ("127.0.0.1:9/x:1", Unavailable, "does not answer"),
        ("-rf /", InvalidInput, "not an image reference"),
        ("localhost/lossi/small:1", NotFound, "no registry is known"),
    ):
        with pytest.raises(error, match=message):
            pull_small(reference)
    with pytest.raises(NotFound, match="no variant"):
        pull_small(good, "x86_64-cuda")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no Apptainer"):
        pull_small(good)
    assert site.read_text() == ENVIRONMENT
    assert list((tmp_path / "sif").iterdir()) == [] and list(work.iterdir()) == []


def test_content_that_does_not_match_the_digest_is_refused(site: Path, tmp_path: Path, address: str) -> None:
    from local_registry import registry as another

    layout = Image(LAYERS).write(tmp_path / "image")
    evil = Image(((*LAYERS[0], file("evil")),)).write(tmp_path / "evil")
    with another(tmp_path / "kept") as place:
        digest = registry.push(layout, f"{place}/tests/image:1", say=None)
        for blob in (tmp_path / "kept").glob(f"images/**/{digest.removeprefix('sha256:')}/data"):
            shutil.copy(evil.folder / "blobs" / "sha256" / evil.digest.removeprefix("sha256:"), blob)
        with pytest.raises(LossiError) as caught:
            pull_small(f"{place}/tests/image@{digest}")
    assert isinstance(caught.value, Conflict | NotFound), caught.value
    assert site.read_text() == ENVIRONMENT


def test_conversion_does_not_start_without_room(
    site: Path, pushed: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lossi.files import space

    reference, _ = pushed(Image(LAYERS), "room")
    real = space.space
    monkeypatch.setattr(space, "space", lambda path: real(path).__class__(path, 10, 100, None, None))
    with pytest.raises(Unavailable, match="there is no room"):
        pull_small(reference)


def test_full_disk_and_missing_subordinate_ids_are_explained(tmp_path: Path) -> None:
    from lossi.environments.images import programs

    for line, error, message in (
        ("FATAL: write /x: no space left on device", Unavailable, "no room"),
        ("Error: cannot find newuidmap: exec", Unavailable, "subordinate ids"),
        ('time=x level=fatal msg="unauthorized: authentication required"', Forbidden, "requires a login"),
    ):
        with pytest.raises(error, match=message):
            programs.run(["sh", "-c", 'echo "$1" >&2; exit 3', "sh", line], "cannot")


def test_image_can_be_recorded_in_the_users_catalogue(site: Path, pushed: Callable[..., tuple[str, str]]) -> None:
    reference, digest = pushed(Image(LAYERS), "own")
    ready = pull.pull_image(environments.load().get("small"), image=reference, target=pipeline.Target(own=True))
    assert ready.environment == "my-small" and ready.catalog == str(environments.user_file()) and ready.listed
    assert site.read_text() == ENVIRONMENT
    resolved = environments.resolve(environments.load().get("my-small"))
    assert (resolved.kind, resolved.digest, resolved.sif) == ("apptainer", digest, ready.sif)


def test_pull_prints_json_and_needs_a_folder_for_sif_files(
    home: Path, pushed: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    reference, digest = pushed(Image(LAYERS), "json")
    argv = [sys.executable, "-m", "lossi", "env", "pull", "sklearn", "--json", "--image", reference]
    refused = subprocess.run(argv, capture_output=True, text=True)
    assert refused.returncode == 2 and "not your home" in json.loads(refused.stderr)["hint"]
    done = subprocess.run([*argv, "--sif-folder", str(tmp_path / "sif")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["environment"], answer["digest"], answer["listed"]) == ("my-sklearn", digest, True)


def test_damaged_layout_is_refused(tmp_path: Path) -> None:
    layout = Image(LAYERS).write(tmp_path / "image")
    assert trees.tree_hash(oci_layout.image_tree(layout)) == trees.tree_hash(
        oci_layout.image_tree(oci_layout.read(layout.folder))
    )
    blob = layout.folder / "blobs" / "sha256" / layout.layers[0].removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidInput, match="does not match"):
        oci_layout.image_tree(layout)
