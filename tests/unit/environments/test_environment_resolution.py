"""Resolving environments."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import environments
from lossi.errors import InvalidInput, NotSupported, Unavailable

WriteCatalog = Callable[[str], Path]
DIGEST = "sha256:" + "0123456789abcdef" * 4
MACHINE = platform.machine()


def test_automatic_python_is_the_one_that_runs_lossi(home: Path) -> None:
    resolved = environments.resolve(environments.load().get("sklearn"))
    assert (resolved.kind, resolved.python, resolved.variant, resolved.prefix) == ("local", sys.executable, "local", [])
    assert resolved.mlflow_version == environments.MLFLOW_VERSION
    assert resolved.packages_sha256 is not None and len(resolved.packages_sha256) == 64
    assert environments.lacking(resolved) == ()


def test_packages_are_those_that_the_interpreter_itself_reports(home: Path) -> None:
    from lossi.environments import interpreter

    python = interpreter.describe(sys.executable)
    code = "import importlib.metadata as m; print('\\n'.join(f\"{d.metadata['Name']}=={d.version}\" for d in m.distributions()))"
    lines = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    reported = {interpreter.normalised(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert dict(python.packages) == reported


def make_venv(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


def test_venv_folder_is_resolved_to_its_python_without_following_the_link(
    home: Path, user_catalog: WriteCatalog, tmp_path: Path
) -> None:
    venv = make_venv(tmp_path / "a venv with $(id) in it")
    user_catalog(f"environments: {{own: {{title: Own, local: {{python: '{venv}'}}}}}}")
    resolved = environments.resolve(environments.load().get("own"))
    assert resolved.python == str(venv / "bin" / "python")
    assert environments.lacking(resolved) == ("ipykernel", "mlflow", "papermill")


def test_newly_installed_package_changes_hash_and_cache_key(home: Path, user_catalog: WriteCatalog, tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "venv")
    user_catalog(f"environments: {{own: {{title: Own, local: {{python: {venv}}}}}}}")
    environment = environments.load().get("own")
    before = environments.resolve(environment)
    packages = next(venv.glob("lib/python*/site-packages"))
    (packages / "mlflow-3.17.2.dist-info").mkdir()
    after = environments.resolve(environment)
    assert (before.mlflow_version, after.mlflow_version) == (None, "3.17.2")
    assert before.packages_sha256 != after.packages_sha256
    assert environments.cache_key(before) != environments.cache_key(after)
    # A .pth file adds a folder to the search path: the kept answer must not hide it.
    (tmp_path / "more" / "Odd_Name-1.0.dist-info").mkdir(parents=True)
    (packages / "more.pth").write_text(str(tmp_path / "more"))
    assert environments.resolve(environment).packages_sha256 != after.packages_sha256


def test_packages_on_a_pythonpath_of_the_catalogue_count(home: Path, user_catalog: WriteCatalog, tmp_path: Path) -> None:
    (tmp_path / "layer" / "mlflow-3.17.2.dist-info").mkdir(parents=True)
    venv = make_venv(tmp_path / "venv")
    user_catalog(f"environments: {{own: {{title: O, local: {{python: {venv}}}, variables: {{PYTHONPATH: {tmp_path}/layer}}}}}}")
    assert environments.resolve(environments.load().get("own")).mlflow_version == "3.17.2"


def test_unwritable_cache_does_not_matter(home: Path) -> None:
    (home / "cache").write_text("a file where the cache folder should be")
    assert environments.resolve(environments.load().get("sklearn")).mlflow_version


def test_broken_cache_is_rewritten(home: Path) -> None:
    good = environments.resolve(environments.load().get("sklearn"))
    (kept,) = (home / "cache").rglob("*.json")
    kept.write_text('{"stamp": []}')
    assert environments.resolve(environments.load().get("sklearn")) == good


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no Python at"),
        ("not executable", "no permission to execute"),
        ("#!/bin/sh\necho oh no >&2; exit 3\n", "oh no"),
        ("#!/no/such/interpreter\n", "cannot start"),
        ('#!/bin/sh\necho \'{"version": [3, 8, 1], "machine": "x", "path": []}\'\n', "is Python 3.8.1"),
        ("#!/bin/sh\necho nonsense\n", "does not work as a Python"),
    ],
)
def test_broken_interpreters_are_explained(user_catalog: WriteCatalog, tmp_path: Path, content: str | None, message: str) -> None:
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o644 if content == "not executable" else 0o755)
    user_catalog(f"environments: {{own: {{title: Own, local: {{python: {python}}}}}}}")
    if content == "not executable" and os.geteuid() == 0:
        message = "no permission to execute"  # root too: no execute bit at all
    with pytest.raises((Unavailable, NotSupported), match=message) as caught:
        environments.resolve(environments.load().get("own"))
    assert caught.value.hint


def test_missing_image_has_a_hint_how_to_build_it(home: Path) -> None:
    with pytest.raises(NotSupported) as caught:
        environments.resolve(environments.load().get("pytorch"))
    assert f"no image for {MACHINE}-none" in caught.value.what
    assert f"lossi env build pytorch --variant {MACHINE}-none" in caught.value.hint
    assert "lossi env add my-pytorch" in caught.value.hint


def test_unknown_variant_lists_the_known_ones(home: Path) -> None:
    catalog = environments.load()
    with pytest.raises(NotSupported, match="x86_64-none, aarch64-none"):
        environments.resolve(catalog.get("sklearn"), target="apptainer", accelerator="cuda")
    with pytest.raises(NotSupported, match="has no local Python"):
        environments.resolve(catalog.get("pytorch"), target="local")
    with pytest.raises(NotSupported, match="a Python of this machine only"):
        environments.resolve(catalog.get("python"), target="apptainer")


@pytest.mark.parametrize("words", [{"target": "slurm"}, {"accelerator": "cudda"}, {"architecture": "$(id)"}])
def test_unknown_targets_accelerators_and_architectures_are_refused(home: Path, words: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="is not known"):
        environments.resolve(environments.load().get("sklearn"), **words)


def entry(**variant: object) -> str:
    return f"environments: {{own: {{title: Own, local: {{python: auto}}, variants: {{{MACHINE}: {{none: {variant}}}}}}}}}"


def test_local_is_preferred_to_a_pinned_image_without_a_sif(user_catalog: WriteCatalog) -> None:
    user_catalog(entry(image="registry.example:5000/g/x:1.2", digest=DIGEST))
    environment = environments.load().get("own")
    assert environments.resolve(environment).kind == "local"
    pinned = environments.resolve(environment, target="apptainer")
    # Apptainer refuses a tag beside a digest.
    assert pinned.prefix[-1] == f"docker://registry.example:5000/g/x@{DIGEST}"
    assert (pinned.image, pinned.digest, pinned.sif, pinned.python) == ("registry.example:5000/g/x:1.2", DIGEST, None, "python3")


def test_sif_is_preferred_if_apptainer_is_installed(
    user_catalog: WriteCatalog, sif: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sif(architecture=b"02" if MACHINE == "x86_64" else b"04")
    user_catalog(entry(sif=str(path)))
    environment = environments.load().get("own")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert environments.resolve(environment).kind == "local"
    assert [way.usable for way in environments.ways(environment)] == [True, False]
    runtime = tmp_path / "bin" / "apptainer"
    runtime.parent.mkdir()
    runtime.write_text("#!/bin/sh\n")
    runtime.chmod(0o755)
    resolved = environments.resolve(environment)
    assert (resolved.kind, resolved.sif, resolved.prefix[-1]) == ("apptainer", str(path), str(path))
    assert [way.usable for way in environments.ways(environment)] == [True, True]


def test_replaced_sif_changes_the_cache_key(user_catalog: WriteCatalog, sif: Callable[..., Path]) -> None:
    path = sif(architecture=b"02" if MACHINE == "x86_64" else b"04")
    user_catalog(entry(sif=str(path)))
    environment = environments.load().get("own")
    first = environments.cache_key(environments.resolve(environment, target="apptainer"))
    path.write_bytes(path.read_bytes() + b"more")
    assert environments.cache_key(environments.resolve(environment, target="apptainer")) != first


def test_unusable_sif_is_explained(user_catalog: WriteCatalog, sif: Callable[..., Path], tmp_path: Path) -> None:
    other = sif("other.sif", b"04" if MACHINE == "x86_64" else b"02")
    (tmp_path / "text.sif").write_text("not an image")
    for path, error, message in (
        (other, InvalidInput, "is for (aarch64|x86_64), not for"),
        (tmp_path / "no.sif", Unavailable, "there is no image at"),
        (tmp_path / "text.sif", InvalidInput, "is not a SIF image"),
        (tmp_path, InvalidInput, "holds no root filesystem"),
    ):
        user_catalog(entry(sif=str(path)))
        with pytest.raises(error, match=message):
            environments.resolve(environments.load().get("own"), target="apptainer")


def test_local_python_is_not_offered_for_another_architecture(home: Path) -> None:
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"
    with pytest.raises(NotSupported, match=f"runs on {MACHINE}, not on {other}"):
        environments.resolve(environments.load().get("sklearn"), architecture=other)


def test_environment_with_only_a_recipe_has_a_hint_how_to_build_it(home: Path, user_catalog: WriteCatalog) -> None:
    user_catalog("environments: {own: {title: Own, variants: {x86_64: {none: {recipe: Containerfile.none}}}}}")
    with pytest.raises(NotSupported) as caught:
        environments.resolve(environments.load().get("own"), architecture="x86_64")
    assert "lossi env build own --variant x86_64-none" in caught.value.hint and "None" not in str(caught.value)
