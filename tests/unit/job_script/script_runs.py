"""Scripts of jobs with a real program in the runner's place, and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.jobs.submit import script
from lossi.jobs.submit.script import Header

JOB_ID = "01aryz6s41tsv4rrffq69g5fav"
SHELLS = ("dash", "bash")

LEAVES_RECORD = """
import json, os, sys
task = sys.argv[sys.argv.index("--task") + 1]
print("argv", sys.argv[1:]); print("PATH" in os.environ, os.environ["HOME"], flush=True)
exit = {"task": int(task), "state": "succeeded", "exit_code": 0}
open(f"tasks/{task}/exit.json", "w").write(json.dumps(exit))
"""


def make(
    directory: Path, program: str, *, tasks: int = 3, argv: list[str] | None = None, kind: str = "local", **more: Any
) -> Path:
    """Write a script whose runner is a Python program."""
    text = script.render(Header(JOB_ID, directory, tasks, argv or [sys.executable, "-c", program], kind, **more))
    path = directory / records.SCRIPT
    path.write_bytes(script.encoded(text))
    return path


def run(shell: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, str(path)], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=300
    )


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def exit_record(directory: Path, task: int = 0) -> records.TaskExit:
    return records.load(records.TaskExit, directory / "tasks" / str(task) / records.EXIT)


NAME = f"lossi-{JOB_ID}"
SAYS_ENVIRONMENT = "import json, os; json.dump(dict(os.environ), open('seen', 'w'))\n" + LEAVES_RECORD


def seen(directory: Path) -> dict[str, str]:
    variables: dict[str, str] = json.loads((directory / "seen").read_text())
    return variables


def wait_for(path: Path) -> None:
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)
