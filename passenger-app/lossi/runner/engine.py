"""The papermill engine: per-cell progress, atomic saving, a kernel on unix sockets, and an orderly stop.

Imported only in the notebook child, after papermill. Subclasses papermill's own engine, manager and client, so that
notebooks behave as papermill defines it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.execute import execute_notebook
from papermill.translators import PythonTranslator, papermill_translators

from ..contract.text import printable
from .errors import explained
from .kernels import KernelError
from .reporting import Log, Reporter
from .writing import write

SAVE_EVERY_S = 1.0
SAVE_SHARE = 0.1
"""Saving takes at most this share of the time; a notebook of 50 MB is saved about every ten seconds."""
START_TIMEOUT_S = 180
SOCKET_FOLDER_LIMIT = 94
"""Bytes of the path of the socket folder: 107 (sockaddr_un, unix(7)) less ``/k<pid>-<number>``."""
FIRST_LINE_LIMIT = 120
STOP_RESERVE_S = 2.0
"""Part of the grace period that is kept for saving after the kernel was interrupted."""


class KernelDied(Exception):
    """The kernel's process died while a cell ran, or did not start."""


class Stopped(Exception):
    """The task was told to stop."""


def run(
    order: Mapping[str, Any],
    parameters: Dict[str, Any],
    *,
    kernel: str,
    language: str,
    notes: List[str],
    report: Reporter,
    log: Log,
    stop: Dict[str, Any],
) -> None:
    """Execute the notebook; its output is saved whatever happens.

    Raises
    ------
    papermill.exceptions.PapermillExecutionError
        When a cell failed.
    KernelDied, Stopped
        When the kernel died, or the task was told to stop.
    OSError
        When the notebook cannot be read, or its output cannot be written at the end.
    """
    papermill_engines.register("lossi", Engine)
    if language == "python":  # papermill looks for the kernel's name before the language
        papermill_translators.register("python", ExactPython)
        papermill_translators.register(kernel, ExactPython)
    elif language == "r":
        register_r(kernel)
    journal_facts = {"order": order, "notes": notes, "report": report, "log": log, "stop": stop}
    try:
        execute_notebook(
            order["notebook"].replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            None,  # the journal writes the output
            parameters,
            engine_name="lossi",
            kernel_name=kernel,
            language=language,
            progress_bar=False,
            stdout_file=log,
            stderr_file=log,
            start_timeout=START_TIMEOUT_S,
            journal_facts=journal_facts,
        )
    finally:
        journal = stop.get("journal")
        if journal is not None:
            journal.close()
    if "at" in stop:
        raise Stopped("stopped before the notebook ended")


def register_r(kernel: str) -> None:
    """Let R notebooks take parameters through our own translator."""
    from . import r_translator

    r_translator.register()
    translator = papermill_translators.find_translator("R", "R")
    papermill_translators.register("r", translator)
    papermill_translators.register(kernel, translator)


class ExactPython(PythonTranslator):  # type: ignore[misc]
    """Writes parameters as Python literals of exactly the same values; no formatter changes the text."""

    @classmethod
    def translate(cls, val: Any) -> str:
        """Return a literal; ``repr`` escapes what is not printable, including U+0085 and lone surrogates."""
        if isinstance(val, float) and not math.isfinite(val):
            return f"float('{val}')"
        if isinstance(val, dict):
            return "{" + ", ".join(f"{key!r}: {cls.translate(value)}" for key, value in val.items()) + "}"
        if isinstance(val, list):
            return "[" + ", ".join(cls.translate(value) for value in val) + "]"
        return repr(val)

    @classmethod
    def codify(cls, parameters: Mapping[str, Any], comment: str = "Parameters") -> str:
        """Return the injected cell."""
        return "".join([f"# {comment}\n", *(f"{name} = {cls.translate(value)}\n" for name, value in parameters.items())])


class Journal(NotebookExecutionManager):  # type: ignore[misc]
    """Saves the executed notebook and reports each cell to the runner."""

    def __init__(self, nb: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(nb, output_path=None, progress_bar=False, log_output=False, autosave_cell_every=0)
        self.order, self.report, self.log, self.stop = facts["order"], facts["report"], facts["log"], facts["stop"]
        self.notes: List[str] = facts["notes"]
        self.path = Path(self.order["output"])
        self.numbers = code_cell_numbers(nb)
        self.running: Any = None
        self.problem: Optional[OSError] = None
        self._dirty = False
        self._saved = 0.0
        self._took = 0.0
        self.stop["journal"] = self

    def save(self, **_: Any) -> None:
        """Save, unless a save was a moment ago; `tick` and `close` catch up."""
        self._dirty = True
        self.tick()

    def tick(self) -> None:
        """Save if a change is due."""
        if self._dirty and time.monotonic() - self._saved >= max(SAVE_EVERY_S, self._took / SAVE_SHARE):
            self._write(durable=False)

    def close(self) -> None:
        """Save durably.

        Raises
        ------
        OSError
            When it cannot be written.
        """
        self._write(durable=True)
        if self.problem is not None:
            raise self.problem

    def notebook_start(self, **kwargs: Any) -> None:
        """Report the number of cells."""
        super().notebook_start(**kwargs)
        self.nb.metadata.papermill["input_path"] = self.order["name"]
        self.nb.metadata.papermill["output_path"] = self.path.name
        self.report.send("start", cells=max(self.numbers.values(), default=0), notes=self.notes)

    def cell_start(self, cell: Any, cell_index: Optional[int] = None, **kwargs: Any) -> None:
        """Report the cell; start none after a request to stop."""
        if "at" in self.stop:
            raise Stopped("stopped between two cells")
        if cell_index in self.numbers:
            number, line = self.numbers[cell_index], first_line(cell.source)
            self.stop["cell"] = number
            self.report.send("cell", cell=number, first_line=line)
            self.log.write(f"[cell {number}/{max(self.numbers.values())}] {line}\n")
            self.running = cell
        super().cell_start(cell, cell_index, **kwargs)

    def cell_exception(self, cell: Any, cell_index: Optional[int] = None, **kwargs: Any) -> None:
        """Report the time of failure, before the kernel shuts down and MLflow ends its open run."""
        self.report.send("error", t=time.time())
        super().cell_exception(cell, cell_index, **kwargs)

    def cell_complete(self, cell: Any, cell_index: Optional[int] = None, **kwargs: Any) -> None:
        """Report that a cell ended."""
        if cell.metadata.papermill["status"] == self.PENDING:
            return  # it never started
        super().cell_complete(cell, cell_index, **kwargs)
        if cell_index in self.numbers:
            self.report.send("cell_done", cell=self.numbers[cell_index])

    def died(self, message: str) -> None:
        """Write into the running cell why the kernel died."""
        from nbformat.v4 import new_output

        cell = self.running
        if cell is None:
            return
        cell.outputs.append(
            new_output("error", ename="DeadKernelError", evalue=message, traceback=[f"DeadKernelError: {message}"])
        )
        self.cell_exception(cell)

    def _write(self, *, durable: bool) -> None:
        from nbformat.v4 import writes

        began = time.monotonic()
        try:
            saved = storable(self.nb)
            write(self.path, (writes(saved) + "\n").encode("utf-8", "backslashreplace"), durable=durable)
            self._dirty, self.problem = False, None
        except OSError as error:
            if self.problem is None:
                self.log.write(f"lossi: {self.path.name} could not be saved: {explained(error)}\n")
            self.problem = error
        self._saved = time.monotonic()
        self._took = self._saved - began


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, with a kernel on unix sockets in a private folder instead of open ports."""

    def create_kernel_manager(self) -> Any:
        """Use sockets for Python kernels: no other user can connect, and no two kernels race for a port."""
        manager = super().create_kernel_manager()
        folder = os.environ.get("JUPYTER_RUNTIME_DIR", "")
        if self.nb_man.order["language"].lower() == "python" and 0 < len(os.fsencode(folder)) <= SOCKET_FOLDER_LIMIT:
            manager.transport = "ipc"
            manager.ip = os.path.join(folder, f"k{os.getpid()}")
        return manager

    def papermill_execute_cells(self) -> None:
        """Execute the cells; find out why a kernel died before its process is cleaned up."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        try:
            super().papermill_execute_cells()
        except DeadKernelError as error:
            message = self._why_dead()
            self.nb_man.died(message)
            raise KernelDied(message) from error

    async def _async_check_alive(self) -> None:
        """Called about once a second while a cell runs."""
        self.nb_man.tick()
        stopped = self.nb_man.stop.get("at")
        if stopped is not None and time.monotonic() - stopped > max(0.5, self.nb_man.order["grace_s"] - STOP_RESERVE_S):
            self.shutdown_kernel = "immediate"
            raise DeadKernelError("the kernel did not react to the interrupt")
        await super()._async_check_alive()

    def _on_stop(self, *_: Any) -> None:
        """Interrupt the running cell once: a second interrupt would disturb the handling of the first."""
        if "at" not in self.nb_man.stop:
            self.nb_man.stop["at"] = time.monotonic()
            process = self._process()
            if process is not None and process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGINT)  # jupyter_client makes each kernel a session leader
                except OSError:
                    pass

    def _process(self) -> Any:
        return getattr(getattr(self.km, "provisioner", None), "process", None)

    def _why_dead(self) -> str:
        process = self._process()
        code = None if process is None else process.poll()
        if code is None:
            return "the kernel did not react to the interrupt and was killed"
        if code < 0:
            self.nb_man.stop["kernel_signal"] = -code
            hint = ", probably because it ran out of memory" if -code == signal.SIGKILL else ""
            return f"the kernel was killed by signal {-code} ({signal.Signals(-code).name}){hint}"
        return f"the kernel ended with exit code {code}"


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's nbclient engine with our journal and client."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, journal_facts: Mapping[str, Any], **options: Any) -> Any:
        """Execute a notebook whose parameters are already injected."""
        journal = Journal(nb, journal_facts)
        journal.notebook_start()
        try:
            client = Client(
                journal,
                kernel_name=kernel_name,
                startup_timeout=options["start_timeout"],
                stdout_file=options["stdout_file"],
                stderr_file=options["stderr_file"],
                timeout=None,
            )
            try:
                client.execute()
            except RuntimeError as error:
                if "Kernel died" in str(error) or "Kernel didn't respond" in str(error):
                    raise KernelError(f"the kernel {kernel_name!r} did not start: see the log ({error})") from error
                raise
        finally:
            journal.notebook_complete()
        return journal.nb


def code_cell_numbers(nb: Any) -> Dict[int, int]:
    """Return cell index → 1-based number among the user's code cells; the injected cell has its predecessor's."""
    numbers: Dict[int, int] = {}
    number = 0
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            if "injected-parameters" not in cell.metadata.get("tags", []):
                number += 1
            numbers[index] = max(number, 1)
    return numbers


def first_line(source: str) -> str:
    """Return a cell's first line that is not blank, and not a comment if there is code."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    first = next((line for line in lines if not line.startswith("#")), lines[0] if lines else "")
    return printable(first)[:FIRST_LINE_LIMIT]


def storable(nb: Any) -> Any:
    """Make the parameters that papermill repeats in the metadata fit JSON and UTF-8; return the notebook."""
    parameters = nb.metadata.get("papermill", {}).get("parameters")
    if parameters:
        nb.metadata.papermill["parameters"] = _storable(parameters)
    return nb


def _storable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    return value
