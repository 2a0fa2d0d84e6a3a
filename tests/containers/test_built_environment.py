"""The environment that was really built: what is in it, that SIF and registry agree, and that a sweep on Slurm runs in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from built_environment import VARIANT, BuiltEnvironment, registry

from lossi import environments
from lossi.environments.images import registry as images, verify


@pytest.fixture
def offered(built_environment: BuiltEnvironment, home: Path, tmp_path: Path) -> BuiltEnvironment:
    """A site that offers it."""
    catalog = built_environment.catalog(tmp_path / "catalog.yml")
    (home / "no-site.yml").write_text(yaml.safe_dump({"catalogs": [str(catalog)]}))
    return built_environment


def test_environment_has_what_tasks_need_and_the_catalogue_promises(offered: BuiltEnvironment) -> None:
    resolved = environments.resolve(environments.load().get("sklearn"), target="apptainer")
    assert (resolved.sif, resolved.digest) == (str(offered.sif), offered.digest)
    checks = environments.check(resolved, frameworks={"scikit-learn": "1.9.1"})
    assert [check for check in checks if not check.ok] == []
    assert {"mlflow opens SQLite", "Python kernel", "scikit-learn"} <= {check.name for check in checks}


def test_labels_describe_the_image(offered: BuiltEnvironment) -> None:
    done = subprocess.run(["apptainer", "inspect", "--json", str(offered.sif)], capture_output=True, text=True, check=True)
    labels = json.loads(done.stdout)["data"]["attributes"]["labels"]
    assert (labels["org.lossi.environment"], labels["org.lossi.variant"]) == ("sklearn", VARIANT)
    assert json.loads(labels["org.lossi.frameworks"])["scikit-learn"] == "1.9.1"
    assert len(labels["org.lossi.lock-sha256"]) == len(labels["org.lossi.recipe-sha256"]) == 64
    assert labels["org.opencontainers.image.title"] == "Lossi sklearn"
    assert {"org.opencontainers.image.created", "org.opencontainers.image.base.name"} <= labels.keys()


@pytest.mark.slow
def test_sif_and_registry_image_are_the_same(built_environment: BuiltEnvironment, home: Path, tmp_path: Path) -> None:
    with registry(built_environment.images) as address:
        catalog = built_environment.catalog(tmp_path / "catalog.yml", address=address)
        (home / "no-site.yml").write_text(yaml.safe_dump({"catalogs": [str(catalog)]}))
        assert images.resolve_digest(f"{address}/lossi/sklearn", built_environment.digest) == built_environment.digest
        comparison = verify.verify_image(environments.load().get("sklearn"))
    assert comparison.same and comparison.differences == []
    assert comparison.sif_tree == comparison.image_tree == built_environment.tree
