"""Recipe, labels and catalogue of an image; what cannot work is refused before anything is started."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import lossi
from lossi import environments
from lossi.environments.images import build, pipeline, programs, record, registry
from lossi.errors import Conflict, InvalidInput, LossiError, NotFound, NotSupported, Unavailable

WriteCatalog = Callable[[str], Path]
DIGEST = "sha256:" + "1" * 64
MACHINE = platform.machine()


def image(sif: Path | None, **changes: object) -> record.Image:
    values = {
        "architecture": MACHINE,
        "accelerator": "none",
        "image": "registry.example/sklearn:1",
        "digest": DIGEST,
        "frameworks": {},
    }
    return record.Image(**{**values, "sif": sif, **changes})  # type: ignore[arg-type]


def test_site_catalogue_gets_the_shipped_entry_with_the_image_but_no_recipe(
    site_catalog: WriteCatalog, sif: Callable[..., Path]
) -> None:
    path = site_catalog("# ours\nenvironments:\n  mine: {title: Mine, local: {python: auto}}\n")
    shipped = environments.load().get("sklearn")
    place = record.place(shipped)
    assert place == record.Place(path, "sklearn", False)
    built = image(sif(), frameworks={"scikit-learn": "1.9.2", "mlflow": "3.17.2"})
    recorded = record.record(place, shipped, built)
    assert recorded and recorded.source == "site" and recorded.title == shipped.title and recorded.local == shipped.local
    variant = recorded.variant(MACHINE, "none")
    assert variant and (variant.digest, variant.frameworks) == (DIGEST, {"scikit-learn": "1.9.2"})
    assert "recipe" not in path.read_text() and path.read_text().startswith("# ours\n")
    assert environments.load().problems == ()
    # The recipe is still known, and a second image replaces the first.
    assert build.recipe(recorded).file == Path(environments.shipped_file()).parent / "sklearn" / "Containerfile.none"
    again = record.record(record.place(recorded), recorded, image(sif("2.sif"), digest=None, image="localhost/lossi/sklearn:1"))
    variant = again.variant(MACHINE, "none") if again else None
    assert variant and (variant.digest, variant.sif) == (None, str(sif("2.sif")))


def test_without_a_site_catalogue_the_user_gets_an_own_name(home: Path, sif: Callable[..., Path]) -> None:
    shipped = environments.load().get("sklearn")
    place = record.place(shipped)
    assert place == record.Place(environments.user_file(), "my-sklearn", True)
    recorded = record.record(place, shipped, image(sif()))
    assert recorded and recorded.local is None and recorded.variant_names() == [f"{MACHINE}-none"]
    assert environments.load().problems == ()
    # A second one goes to the same place, from either name.
    assert record.place(shipped) == record.place(recorded) == place


def test_taken_name_is_refused(site_catalog: WriteCatalog) -> None:
    site_catalog("environments:\n  my-sklearn: {title: Mine, local: {python: auto}}\n")
    with pytest.raises(Conflict, match="taken"):
        record.place(environments.load().get("sklearn"), own=True)
    with pytest.raises(InvalidInput, match="exclude each other"):
        record.place(environments.load().get("sklearn"), own=True, file=Path("x"))


def test_file_outside_the_catalogue_is_written_but_not_listed(home: Path, tmp_path: Path, sif: Callable[..., Path]) -> None:
    shipped = environments.load().get("sklearn")
    place = record.place(shipped, file=tmp_path / "elsewhere.yml")
    assert record.record(place, shipped, image(sif())) is None
    assert yaml.safe_load(place.file.read_text())["environments"]["sklearn"]["variants"][MACHINE]["none"]["digest"] == DIGEST
    assert place.file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["sklearn", "pytorch", "tensorflow"])
def test_labels_describe_the_image(home: Path, name: str) -> None:
    environment = environments.load().get(name)
    locks = set()
    for variant in environment.variant_names():
        recipe = build.recipe(environment, variant)
        labels = build.labels(recipe, base="registry.example/python:3.12")
        assert (labels["org.lossi.environment"], labels["org.lossi.variant"]) == (name, variant)
        assert json.loads(labels["org.lossi.frameworks"])["mlflow"] == environments.MLFLOW_VERSION
        assert labels["org.opencontainers.image.base.name"] == "registry.example/python:3.12"
        assert labels["org.opencontainers.image.version"] == lossi.__version__
        assert f'version="{lossi.__version__}"' in recipe.file.read_text()
        locks.add((recipe.accelerator, labels["org.lossi.lock-sha256"]))
    assert len({lock for _, lock in locks}) == len({accelerator for accelerator, _ in locks}), "each recipe has its own lock"


def test_impossible_builds_are_refused_with_a_hint(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = environments.load()
    foreign = "aarch64" if MACHINE == "x86_64" else "x86_64"
    recipe = build.recipe(load.get("sklearn"), f"{foreign}-none")
    with pytest.raises(NotSupported, match=f"the variant is {foreign}"):
        build.run_builder(recipe, tmp_path)
    with pytest.raises(InvalidInput, match="not a variant"):
        build.recipe(load.get("sklearn"), "cuda")
    with pytest.raises(NotFound, match="Python of this machine only"):
        build.recipe(load.get("python"))
    with pytest.raises(InvalidInput, match="not your home"):
        build.build_image(load.get("sklearn"))
    here = build.recipe(load.get("sklearn"))
    for wrong in ("no value", "=x", "-x=y"):
        with pytest.raises(InvalidInput, match="not a build argument"):
            build.run_builder(here, tmp_path, arguments=[wrong])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="neither podman nor buildah"):
        build.run_builder(here, tmp_path)
    with pytest.raises(Unavailable, match="no Apptainer"):
        build.build_image(load.get("sklearn"), target=pipeline.Target(sif_folder=tmp_path / "sif"))
    with pytest.raises(Unavailable, match="no skopeo"):
        build.build_image(load.get("sklearn"), push="registry.example/x", target=pipeline.Target(sif=False))


@pytest.mark.parametrize(
    ("reference", "http", "remote"),
    [
        ("127.0.0.1:5000/a/b:1", True, True),
        ("localhost:5000/a", True, True),
        ("localhost/lossi/sklearn:1", True, False),
        ("registry.example/a", False, True),
        ("127.0.0.1.evil.example/a", False, True),
        ("localhost.evil.example:80/a", False, True),
    ],
)
def test_plain_http_is_for_this_machine_only(reference: str, http: bool, remote: bool) -> None:
    assert (registry.speaks_http(reference), registry.is_remote(reference)) == (http, remote)


@pytest.mark.parametrize("text", ["", "-rf /", "A/B", "a@sha256:1", "a b", "registry.example/a@latest", "docker://", "a\nb"])
def test_invalid_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not an image reference"):
        registry.parse_reference(text)


def test_interrupt_ends_a_program_and_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    script = f"sleep 300 & echo $! > {mark}; echo started; wait"

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        programs.run(["sh", "-c", script], "cannot", say=interrupt)
    child = Path(f"/proc/{mark.read_text().strip()}/stat")
    end = time.monotonic() + 300
    while _lives(child):
        assert time.monotonic() < end, "it runs on"
        time.sleep(0.02)


def _lives(child: Path) -> bool:
    try:
        return child.read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("line", "error", "meaning"),
    [
        ("Error: writing blob: storing: no space left on device", "Unavailable", "no room left"),
        ("Error: cannot set up namespace using newuidmap: should have setuid", "Unavailable", "subordinate ids"),
        ("FATAL: dial tcp: lookup registry.example: no such host", "Unavailable", "does not answer"),
        ('level=fatal msg="reading manifest 1: manifest unknown"', "NotFound", "no such image"),
        ("http: server gave HTTP response to HTTPS client", "InvalidInput", "plain HTTP"),
        ("exec /bin/sh: exec format error", "NotSupported", "another architecture"),
        ("something quite different", "Unavailable", "something quite different"),
    ],
)
def test_last_lines_of_a_program_are_explained(line: str, error: str, meaning: str) -> None:
    with pytest.raises(LossiError, match=meaning) as caught:
        programs.run(
            [sys.executable, "-c", f"import sys; print('before', file=sys.stderr); sys.exit({line!r})"], "cannot build x"
        )
    assert type(caught.value).__name__ == error and caught.value.what == "cannot build x" and caught.value.hint
