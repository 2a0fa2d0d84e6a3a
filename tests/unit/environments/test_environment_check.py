"""`check` with real Pythons: this installation's, bare ones and broken ones."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lossi import environments
from lossi.contract.records import ResolvedEnvironment
from lossi.environments import image_contract


def local(python: str | Path) -> ResolvedEnvironment:
    return ResolvedEnvironment("own", "local", str(python), variant="local")


@pytest.mark.slow
def test_python_of_this_installation_fulfils_the_contract(home: Path) -> None:
    catalog = environments.load()
    environment = catalog.get("sklearn")
    checks = environments.check(environments.resolve(environment), frameworks=environment.frameworks)
    assert [(check.name, check.ok) for check in checks] == [
        ("Python 3.9 or later", True),
        ("ipykernel", True),
        ("papermill", True),
        ("mlflow", True),
        ("mlflow opens SQLite", True),
        ("Python kernel", True),
        ("scikit-learn", True),
    ]
    assert next(check.detail for check in checks if check.name == "mlflow") == environments.MLFLOW_VERSION
    assert not any(check.remedy for check in checks)


def test_bare_venv_lacks_packages_and_every_fault_has_a_remedy(home: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "a venv"], check=True)
    python = tmp_path / "a venv" / "bin" / "python"
    checks = environments.check(local(python), frameworks={"torch": "2.11.0"})
    faults = {check.name: check for check in checks if not check.ok}
    assert list(faults) == ["ipykernel", "papermill", "mlflow", "mlflow opens SQLite", "Python kernel", "torch"]
    assert "No module named 'papermill'" in faults["papermill"].detail
    assert faults["mlflow"].remedy == f"'{python}' -m pip install mlflow=={environments.MLFLOW_VERSION}"
    assert all(check.remedy for check in faults.values())


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no /usr/bin/python3 on this machine")
def test_remedy_for_a_system_python_is_a_venv(home: Path) -> None:
    checks = environments.check(local("/usr/bin/python3"))
    fault = next((check for check in checks if not check.ok), None)
    if fault is None:
        pytest.skip("the system's Python has everything")
    assert "-m venv" in fault.remedy


def test_skinny_mlflow_is_not_enough(home: Path, tmp_path: Path) -> None:
    """The real package without the module that mlflow-skinny cannot import."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mlflow.store.tracking.sqlalchemy_store'] = None\n")
    resolved = ResolvedEnvironment("own", "local", sys.executable, variant="local", variables={"PYTHONPATH": str(tmp_path)})
    faults = {check.name for check in environments.check(resolved) if not check.ok}
    assert {"mlflow", "mlflow opens SQLite"} <= faults
    assert "papermill" not in faults


@pytest.mark.parametrize(
    ("content", "name", "detail"),
    [
        ("#!/bin/sh\necho oh no >&2\nexit 7\n", "start", "exit code 7: oh no"),
        ("#!/bin/sh\nkill -9 $$\n", "start", "exit code -9"),
        ("#!/bin/sh\nexit 0\n", "start", "exit code 0"),
        ("#!/no/such/program\n", "start", "No such file"),
    ],
)
def test_python_that_does_not_start_is_one_fault(home: Path, tmp_path: Path, content: str, name: str, detail: str) -> None:
    python = tmp_path / "python"
    python.write_text(content)
    python.chmod(0o755)
    (fault,) = environments.check(local(python))
    assert (fault.name, fault.ok) == (name, False)
    assert detail in fault.detail
    assert fault.remedy


def test_hanging_python_is_a_fault_after_the_time_limit(home: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 9999\n")
    python.chmod(0o755)
    (fault,) = environments.check(local(python), time_limit_s=0.5)
    assert "no answer within" in fault.detail


def test_old_pythons_can_parse_the_contract_script() -> None:
    """A Python that is too old must be able to read the script to say so."""
    ast.parse(Path(image_contract.__file__).read_text("utf-8"), feature_version=(3, 5))


def test_container_without_runtime_is_one_fault(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("apptainer") is None
    (fault,) = environments.check(
        ResolvedEnvironment("own", "apptainer", "python3", prefix=["apptainer", "exec", "/a.sif"], sif="/a.sif")
    )
    assert (fault.name, fault.ok) == ("container runtime", False)
    assert fault.remedy
