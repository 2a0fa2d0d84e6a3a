"""Environments as kernels of an existing Jupyter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lossi import environments
from lossi.environments import Environment, kernelspec
from lossi.errors import NotSupported


def environment(**entry: object) -> Environment:
    return Environment.model_validate({"name": "ml", "title": "Title {x}", "source": "site", "file": "/f", "line": 1, **entry})


def in_image(folder: Path, accelerator: str = "none", **entry: object) -> dict[str, object]:
    (folder / "usr").mkdir(parents=True)
    chosen = environment(variants={"x86_64": {accelerator: {"sif": str(folder)}}}, **entry)
    resolved = environments.resolve(chosen, target="apptainer", accelerator=accelerator, architecture="x86_64")
    return {**kernelspec.kernelspec(chosen, resolved, [folder.parent]), "name": kernelspec.kernel_name(resolved)}


def test_a_local_python_is_started_with_its_variables(home: Path) -> None:
    chosen = environment(local={"python": sys.executable}, variables={"OMP_NUM_THREADS": "1"})
    spec = kernelspec.kernelspec(chosen, environments.resolve(chosen, target="local"))
    assert spec["argv"] == [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert spec["env"] == {"OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}


def test_container_sees_home_connection_file_and_binds(tmp_path: Path) -> None:
    spec = in_image(tmp_path / "image", "cuda", variables={"A": "1"})
    argv = spec["argv"]
    assert isinstance(argv, list) and argv[:2] == ["/bin/sh", "-c"] and "--nv" in argv
    at = argv.index(str(tmp_path / "image"))
    assert argv[2:6] == [kernelspec.HERE, "lossi", "--bind", "{connection_file}"] and str(tmp_path) not in argv[2]
    assert argv[at - 2 : at] == ["--bind", f"{tmp_path}:{tmp_path}"]
    assert argv[at + 1 :] == ["env", "A=1", "python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert spec["env"] == {"APPTAINER_BIND": "${HOME}"} and spec["name"] == "lossi-ml-cuda"


def test_path_with_a_placeholder_of_jupyter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="part of a kernel"):
        in_image(tmp_path / "{connection_file}")


def test_kernel_is_written_where_jupyter_looks_and_replaced(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTER_DATA_DIR", raising=False)
    assert kernelspec.install({"argv": ["1"]}, "lossi-ml") == home / ".local/share/jupyter/kernels/lossi-ml"
    kernelspec.install({"argv": ["2"]}, "lossi-ml", tmp_path)
    folder = kernelspec.install({"argv": ["3"]}, "lossi-ml", tmp_path)
    assert folder == tmp_path / "share/jupyter/kernels/lossi-ml"
    assert json.loads((folder / "kernel.json").read_text()) == {"argv": ["3"]}
    assert (folder / "kernel.json").stat().st_mode & 0o777 == 0o644
