"""The same notebook run by papermill and as the script made from it: MLflow must hold the same metrics."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lossi import notebooks

pytestmark = pytest.mark.slow

DEMO = Path(notebooks.__file__).parents[1] / "demo" / "project" / "train_digits.ipynb"
MEASURED = ("fit_seconds",)
"""Metrics that are times."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store; making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = "import sys; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as S; S(sys.argv[1], sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{path}", str(path.parent / "artifacts")], check=True, capture_output=True
    )
    return path


def metrics(argv: list[str], store: Path, folder: Path) -> list[tuple[str, int, float]]:
    """Run a command that logs into a copy of the store; return what it logged: (key, step, value)."""
    folder.mkdir()
    database = folder / "mlflow.db"
    database.write_bytes(store.read_bytes())
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "IPYTHONDIR": str(folder / "ipython"),
    }
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT key, step, CASE is_nan WHEN 1 THEN 'NaN' ELSE value END FROM metrics ORDER BY key, step, timestamp"
        ).fetchall()
        assert connection.execute("SELECT DISTINCT status FROM runs").fetchall() == [("FINISHED",)]
    return [row for row in rows if row[0] not in MEASURED]


def both(path: Path, values: dict[str, str], store: Path, tmp_path: Path) -> tuple[list[Any], list[Any]]:
    """Return the metrics of the notebook and of its script."""
    script = tmp_path / "converted.py"
    script.write_text(notebooks.script(notebooks.read(path)).text, "utf-8")
    options = [text for name, value in values.items() for text in ("-p", name, value)]
    notebook_argv = [sys.executable, "-m", "papermill", "--no-progress-bar", str(path), str(tmp_path / "out.ipynb"), *options]
    flags = [text for name, value in values.items() for text in (f"--{name}", value)]
    by_notebook = metrics(notebook_argv, store, tmp_path / "by-notebook")
    return by_notebook, metrics([sys.executable, str(script), *flags], store, tmp_path / "by-script")


@pytest.mark.parametrize("values", [{}, {"classifier": "forest", "complexity": "0.1", "seed": "3"}])
def test_real_training_logs_the_same_metrics(store: Path, tmp_path: Path, values: dict[str, str]) -> None:
    by_notebook, by_script = both(DEMO, values, store, tmp_path)
    assert {"accuracy", "macro_f1", "test_accuracy"} <= {row[0] for row in by_notebook}
    assert by_script == by_notebook


def test_notebook_with_magics_logs_the_same_metrics(store: Path, tmp_path: Path, saved: Any) -> None:
    path = saved(
        "%load_ext autoreload\n%autoreload 2\n%matplotlib inline\nimport asyncio, mlflow",
        ("rate: float = 0.5  # of learning\nsteps = 3\nderived = steps * 10", "parameters"),
        "files = !printf 'a\\nb\\n'\nword = 'abc'\nlength = !printf \"$word\" | wc -c\n%env LOSSI_FACTOR=4",
        "import os\nfactor = int(os.environ['LOSSI_FACTOR'])\nasync def measured(step):\n    await asyncio.sleep(0)\n    return rate * step * factor",
        "run = mlflow.start_run()\nfor step in range(steps):\n    mlflow.log_metric('value', await measured(step), step=step)",
        "%%time\nmlflow.log_metrics({'files': len(files), 'length': int(length[0]), 'derived': derived})",
        "%%capture shown\nprint('12345')\nmlflow.log_metric('inside', 1)",
        "mlflow.log_metric('shown', len(shown.stdout))",
        "%time mlflow.log_metric('timed', sum(range(10)))\nmlflow.log_metric('nan', float('nan'))",
        ("mlflow.log_metric('skipped', 1)", "skip-execution"),
        "%%bash\ntrue",
        "mlflow.end_run()\ndisplay(run.info.status)\nmlflow?",
    )
    by_notebook, by_script = both(path, {"rate": "0.25", "steps": "4"}, store, tmp_path)
    assert ("value", 3, 3.0) in by_notebook
    assert {row[0] for row in by_notebook} == {"value", "files", "length", "derived", "inside", "shown", "timed", "nan"}
    assert by_script == by_notebook
