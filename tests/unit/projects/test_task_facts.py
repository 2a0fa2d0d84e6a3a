"""The facts of a task follow from one declaration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lossi.contract.records import Resources, TaskExit
from lossi.projects import facts
from lossi.projects.facts import FACTS

GENERATE = Path(__file__).parents[3] / "docs" / "generate.py"

WITH_ONE_MORE = '''
import importlib.util, json, sqlite3, sys
from pathlib import Path

name = "lossi.projects.facts"
spec = importlib.util.find_spec(name)
declared = """
    water_l: Annotated[float | None, Fact("J", ("scheduler", "runner"), "sum", "brief")] = Field(default=None, description="Cooling.")
    exit_code: int | None = None
"""
source = Path(spec.origin).read_text().replace("\\n    exit_code: int | None = None\\n", declared)
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
exec(compile(source, spec.origin, "exec"), module.__dict__)

from lossi import projects
from lossi.contract.records import PreparedJob
from lossi.jobs import Task
from lossi.jobs.schedulers import TaskView
from lossi.jobs.state import reconcile, table
from lossi.projects import index
from lossi.tracking.query import columns, comparison, filters

old = Path(sys.argv[1])
project = projects.init(old)
schema = index.SCHEMA.replace("    water_l REAL,\\n", "")
assert schema != index.SCHEMA
with sqlite3.connect(project.index) as connection:
    connection.executescript(schema)

job = PreparedJob("j", "n", "script", str(old), "me", "2024-01-01T00:00:00Z")
view, folder = TaskView("running", facts={"water_l": 2.5}), reconcile.TaskFolder()
state = reconcile.task_state(folder, view, None, now=1_700_000_000.0, submitted=None, patience=reconcile.Patience())
row = reconcile.task_row(job, 0, None, folder, view, state)
with index.writing(project) as connection:
    table.apply(connection, [table.Change(table.job_row(job, None, "queued", "", ""), [row])])
with index.reading(project) as connection:
    kept = connection.execute("SELECT job_id, task, state, water_l FROM tasks").fetchone()

spec = importlib.util.spec_from_file_location("generate", sys.argv[2])
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
[condition] = filters.parse_filter("job.water_l > 2")
print(json.dumps({
    "answer": Task.model_validate(dict(kept)).water_l,
    "document": Task.model_json_schema()["properties"]["water_l"]["description"],
    "filter": [condition.reference.key, condition.value],
    "order": filters.parse_order_by(["job.water_l DESC"])[0].reference.key,
    "column": columns.select_columns(["job.water_l"]).names,
    "all columns": ["job", "water_l"] in [list(name) for name in columns.select_columns(["job.*"]).names],
    "comparison": "water_l" in comparison.JOB_FACTS,
    "terminal": "water_l" in module.shown_in("brief"),
    "docs": [line for line in generate.facts().splitlines() if "water" in line],
}))
'''


def test_a_declared_fact_is_in_index_answer_filter_columns_comparison_and_docs(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    command = [sys.executable, "-c", WITH_ONE_MORE, str(tmp_path / "project"), str(GENERATE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "answer": 2.5,
        "document": "Cooling.",
        "filter": ["water_l", 2],
        "order": "water_l",
        "column": [["job", "water_l"]],
        "all columns": True,
        "comparison": True,
        "terminal": True,
        "docs": ["| `water_l` | J | scheduler, runner | sum | yes | Cooling. |"],
    }


def test_every_source_has_the_facts_that_name_it() -> None:
    from lossi.jobs.schedulers.slurm.records import AccountingRow

    worked_out = {"gpu_hours", "gpu_utilisation", "gpu_memory_mb"}  # in slurm/accounts.py, from several fields
    kinds = {"scheduler": AccountingRow, "runner": TaskExit, "request": Resources}
    for name, fact in FACTS.items():
        for source in fact.sources:
            missing = name not in kinds[source].__dataclass_fields__
            assert missing == (source == "scheduler" and name in worked_out), f"{name} from {source}"


@pytest.mark.parametrize(
    ("name", "kind"), [("task", "INTEGER"), ("final", "INTEGER"), ("energy_j", "REAL"), ("host", "TEXT"), ("notes", "TEXT")]
)
def test_a_type_becomes_that_of_its_column(name: str, kind: str) -> None:
    assert facts.sql_type(name) == kind
