"""The child process that executes a notebook with the environment's papermill; never imports mlflow.

``python runner.pyz notebook <events>`` imports papermill while the runner still unpacks the code, reads one line of JSON (its
order) from standard input, and reports one JSON object per line on the descriptor ``events``:
``start`` (cells, notes), ``cell`` (cell, first_line), ``cell_done``, ``error`` (t), ``end`` (error | null, signal).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from .plain import TRACEBACK_LIMIT, plain
from .reporting import Log, Reporter
from .writing import explained

OPTIONAL = ("boto3", "pyarrow", "pyarrow.fs", "gcsfs", "azure", "azure.datalake", "azure.storage", "github")
"""What papermill tries to import for storage that is not used here: half of its import time."""


def main(arguments: List[str]) -> int:
    """Execute the notebook of the order on standard input; return the exit code."""
    report = Reporter(int(arguments[0]))
    log = Log(sys.stdout)
    stop: Dict[str, Any] = {}
    signal.signal(signal.SIGTERM, lambda *_: stop.setdefault("at", time.monotonic()))
    signal.signal(signal.SIGINT, lambda *_: stop.setdefault("at", time.monotonic()))
    problem: Optional[Dict[str, Any]] = None
    try:
        papermill_parts()
    except ImportError as error:
        problem = failure("ImportError", f"the environment cannot run notebooks: {error} (it needs papermill and ipykernel)")
    line = sys.stdin.buffer.readline()
    if not line:
        return 3  # the runner could not prepare the task: it knows why
    order = json.loads(line)
    if problem is None:
        problem = executed(order, report, log, stop)
    if problem is not None:
        log.write(f"{problem.get('traceback') or problem['name'] + ': ' + problem['message']}\n")
    report.send("end", error=problem, signal=stop.get("kernel_signal"))
    return 0 if problem is None else 1


def papermill_parts() -> Any:
    """Import papermill without what it would only need for remote storage, and return its module.

    Raises
    ------
    ImportError
        When the environment does not have it.
    """
    blocked = [name for name in OPTIONAL if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import papermill
        import papermill.execute

        from . import engine
    finally:
        for name in blocked:
            sys.modules.pop(name, None)
    assert engine
    return papermill


def executed(order: Mapping[str, Any], report: Reporter, log: Log, stop: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Execute one notebook; return what went wrong, None when nothing did.

    Parameters
    ----------
    order
        ``notebook``, ``output``, ``parameters``, ``cwd`` (paths), ``name`` (for people), ``language``, ``kernel`` (or null),
        ``grace_s``.
    report, log
        Where events and what cells print go to.
    stop
        Gets ``at`` from the signal handler; the engine adds its own way to stop.
    """
    from papermill.exceptions import PapermillExecutionError

    from . import engine, kernels

    try:
        os.chdir(order["cwd"])
        notes: List[str] = []
        language = str(order["language"]).lower()
        parameters = json.loads(Path(order["parameters"]).read_bytes().decode("utf-8", "surrogatepass"))
        kernels.refuse(language, bool(parameters))
        kernel, note = kernels.chosen(kernels.available(), order.get("kernel"), language)
        if note:
            notes.append(note)
            log.write(f"lossi: {note}\n")
        engine.run(order, parameters, kernel=kernel, language=language, notes=notes, report=report, log=log, stop=stop)
    except PapermillExecutionError as error:
        return failure(
            str(error.ename), str(error.evalue), cell=stop.get("cell"), traceback="\n".join(str(line) for line in error.traceback)
        )
    except engine.Stopped as error:
        return failure("Stopped", str(error), cell=stop.get("cell"))
    except engine.KernelDied as error:
        return failure("DeadKernelError", str(error), cell=stop.get("cell"))
    except kernels.Refused as error:
        return failure("KernelError", str(error))
    except OSError as error:
        return failure(type(error).__name__, explained(error))
    except Exception as error:  # noqa: BLE001 - whatever papermill or the notebook's form does wrong ends this task only
        import traceback

        return failure(type(error).__name__, str(error), cell=stop.get("cell"), traceback=traceback.format_exc())
    return None


def failure(name: str, message: str, *, cell: Optional[int] = None, traceback: str = "") -> Dict[str, Any]:
    """Return a `TaskError` as JSON: plain text, the traceback's end."""
    return {
        "name": plain(name)[:200],
        "message": plain(message)[:4000],
        "cell": cell,
        "traceback": plain(traceback)[-TRACEBACK_LIMIT:],
    }
