"""Containers as ordinary users have them: a sweep on Slurm in the SIF that was really built, and an image of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from built_environment import BuiltEnvironment, built_environment, registry, why_not
from real_cluster import RealCluster
from slurm_site import Site
from small_image import Image, file, folder

from lossi.environments.images import registry as images

__all__ = ["built_environment"]

TRAIN = """\
import argparse, json, os, sys
import mlflow, sklearn
from sklearn.linear_model import Ridge
parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float)
alpha = parser.parse_args().alpha
with mlflow.start_run():
    model = Ridge(alpha=alpha).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    mlflow.log_metric("slope", float(model.coef_[0]))
    mlflow.set_tag("inside", json.dumps([sys.prefix, sklearn.__version__, os.path.exists("/.singularity.d")]))
"""


@pytest.mark.slow
def test_a_sweep_runs_in_the_image_of_the_catalogue(slurm: RealCluster, built_environment: BuiltEnvironment) -> None:
    site = Site(slurm)
    catalog: Path = built_environment.catalog(site.file.with_suffix(".catalog.yml"))
    site.file.write_text(site.file.read_text() + yaml.safe_dump({"catalogs": [str(catalog)]}))
    site.write("train.py", TRAIN)
    job = site.submit("train.py", "-g", "alpha=0.1,1.0", "--env", "sklearn", "--memory", "1G")
    site.until(job["id"], "succeeded")
    assert [task["state"] for task in site.until_accounted(job["id"])] == ["succeeded", "succeeded"]
    runs = site.lossi("runs", "list")["columns"]["run_id"]
    assert len(runs) == 2
    for run in runs:
        tags = site.lossi("runs", "show", run)["tags"]
        assert tags["lossi.image_digest"] == built_environment.digest
        assert json.loads(tags["inside"]) == ["/usr/local", "1.9.1", True]


@pytest.mark.host("skopeo")
def test_ordinary_user_pulls_into_the_own_catalogue(slurm: RealCluster, tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    site, user = Site(slurm), slurm.users[0]
    layers = [
        [folder("usr"), file("usr/locked", "1", 0o000), file("usr/tool", "2", 0o755)],
        [file("usr/.wh.tool"), file("usr/new")],
    ]
    layout = Image(layers).write(tmp_path / "image")
    with registry(tmp_path / "registry") as address:
        reference = f"{address}/tests/own:1"
        digest = images.push(layout, reference, say=None)
        pull = ("env", "pull", "sklearn", "--variant", "x86_64-none", "--image", reference, "--sif-folder", site.project / "sif")
        pulled = site.lossi(*pull)
        assert (pulled["environment"], pulled["digest"], pulled["listed"]) == ("my-sklearn", digest, True)
        verified = site.lossi("env", "verify", "my-sklearn", "--variant", "x86_64-none")
        assert verified["same"] and verified["sif_tree"] == pulled["tree"]
    assert [path.suffix for path in (site.project / "sif").iterdir()] == [".sif"]
    assert not (slurm.home(user) / ".apptainer" / "cache").exists()
