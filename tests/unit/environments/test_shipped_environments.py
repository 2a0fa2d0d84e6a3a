"""The shipped catalogue fits its schema and its recipes."""

from __future__ import annotations

import configparser
import json
import re
import stat
from pathlib import Path

import pytest
import yaml

from lossi import environments

ROOT = Path(__file__).parents[3]
CONTAINERS = ROOT / "containers"
VARIANTS = [
    pytest.param(environment.name, architecture, accelerator, id=f"{environment.name}-{architecture}-{accelerator}")
    for environment in environments.load().environments
    if environment.source == "shipped"
    for architecture, images in environment.variants.items()
    for accelerator in images
]


def test_package_contains_the_catalogue() -> None:
    assert environments.shipped_file().resolve() == (CONTAINERS / "catalog.yml").resolve()


def test_schema_is_that_of_the_models() -> None:
    written = json.loads((CONTAINERS / "catalog.schema.json").read_text("utf-8"))
    assert written == environments.schema(), "run `python -m lossi.environments > containers/catalog.schema.json`"


def test_catalogue_fits_its_schema_and_a_wrong_one_does_not() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(environments.schema())
    data = yaml.safe_load((CONTAINERS / "catalog.yml").read_text("utf-8"))
    assert list(validator.iter_errors(data)) == []
    for wrong in (
        {"environments": {"Bad Name": data["environments"]["python"]}},
        {"environments": {"a": {"local": {"python": "auto"}}}},
        {"environments": {"a": {"title": "A", "frameworks": {"python": 3.1}}}},
        {"environments": {"a": {"title": "A", "variants": {"x86": {}}}}},
        {"environment": {}},
    ):
        assert list(validator.iter_errors(wrong)), wrong


@pytest.mark.parametrize(("name", "architecture", "accelerator"), VARIANTS)
def test_variant_has_a_recipe_with_locked_requirements_and_no_digest(name: str, architecture: str, accelerator: str) -> None:
    environment = environments.load().get(name)
    variant = environment.variant(architecture, accelerator)
    assert variant is not None and variant.digest is None and variant.sif is None
    recipe = Path(str(variant.recipe))
    assert recipe.resolve() == CONTAINERS / name / f"Containerfile.{accelerator}"
    text = recipe.read_text("utf-8")
    assert (
        variant.image is not None
        and f"localhost/lossi/{name}:" in text
        and variant.image.endswith(f"-{architecture}-{accelerator}")
    )
    copied = re.findall(r"requirements[\w-]*\.txt", text.partition("COPY ")[2].partition(" /opt/")[0])
    assert copied and "--require-hashes" in text
    locks = "".join((recipe.parent / file).read_text("utf-8") for file in copied)
    for package in ("ipykernel", "papermill", "jupyterlab"):
        assert re.search(rf"^{package}==", locks, re.MULTILINE), package
    promised = {**environment.frameworks, **variant.frameworks}
    for package, version in promised.items():
        from_base = "ARG BASE=rocm/" in text and package in ("torch", "torchvision", "tensorflow")
        assert from_base or re.search(rf"^{package}=={re.escape(version)} ", locks, re.MULTILINE), f"{package}=={version}"


def test_every_line_of_a_lock_is_pinned_and_hashed_and_names_no_host() -> None:
    locks = sorted(CONTAINERS.glob("*/requirements*.txt"))
    assert len(locks) >= 6
    for lock in locks:
        assert lock.with_suffix(".in").exists()
        text = lock.read_text("utf-8")
        assert "://" not in text and "--index" not in text, lock
        for requirement in re.split(r"\n(?=\S)", text.strip()):
            assert re.match(r"[a-z0-9._-]+(\[[\w,-]+\])?==\S+", requirement), requirement[:80]
            assert "--hash=sha256:" in requirement, requirement[:80]


def test_every_recipe_belongs_to_a_variant() -> None:
    used = {
        Path(str(variant.recipe)).resolve()
        for environment in environments.load().environments
        for images in environment.variants.values()
        for variant in images.values()
    }
    assert used == set(CONTAINERS.glob("*/Containerfile.*"))
    for folder in {recipe.parent for recipe in used}:
        assert (folder / "README.md").exists()


def test_one_version_of_mlflow_everywhere() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    version = environments.MLFLOW_VERSION
    assert f"mlflow == {version}" in setup["options.extras_require"]["environment"]
    assert f"mlflow=={version}" in (CONTAINERS / "contract.in").read_text()
    for environment in environments.load().environments:
        assert environment.frameworks.get("mlflow", version) == version


def test_lock_script_is_executable() -> None:
    assert (CONTAINERS / "lock.sh").stat().st_mode & stat.S_IXUSR
