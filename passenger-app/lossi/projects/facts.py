"""The facts of a task, each declared once: the table ``tasks``, answers, filters, comparisons and docs follow from `TaskFacts`.

docs/developer/adding-a-fact.md walks through an example. Pure.
"""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lossi.contract.records import TaskError

Source = Literal["scheduler", "runner", "request"]


@dataclass(frozen=True)
class Fact:
    """What is declared of a fact besides its name, type and description.

    Attributes
    ----------
    unit
        Of its values; ``share`` is 0 to 1, ``time`` ISO 8601 in UTC.
    sources
        Whose value counts; the first that has one: the scheduler (`TaskView.facts`), the runner (the exit record), the job's
        request. None: `jobs.state.reconcile` works it out.
    attempts
        What becomes of the scheduler's figures of several attempts.
    shown
        Where it appears, besides filters and the answer about its task: in comparisons, or even where room is short.
    """

    unit: Literal["", "s", "MiB", "share", "percent", "h", "J", "time", "JSON"] = ""
    sources: tuple[Source, ...] = ()
    attempts: Literal["last", "sum", "max"] = "last"
    shown: Literal["", "compared", "brief"] = ""


_ALLOCATED: tuple[Source, ...] = ("scheduler", "request")
_MEASURED: tuple[Source, ...] = ("scheduler", "runner")


class TaskFacts(BaseModel):
    """What is known of one task: a row of the table ``tasks``. Columns and comparisons keep this order."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    task: int
    state: Annotated[str, Fact(shown="brief")]
    scheduler_state: str = Field(default="", description="The scheduler's own state.")
    reason: Annotated[str, Fact(shown="compared")] = ""
    host: Annotated[str | None, Fact(sources=("runner",))] = Field(
        default=None, description="Where it ran; the first of several nodes."
    )
    attempt: int = Field(default=1, description="Counts from 1; more if the scheduler started it again.")
    partition: Annotated[str | None, Fact(sources=_ALLOCATED, shown="brief")] = None
    account: Annotated[str | None, Fact(sources=_ALLOCATED, shown="compared")] = None
    qos: Annotated[str | None, Fact(sources=_ALLOCATED, shown="compared")] = None
    nodes: Annotated[int | None, Fact(sources=_ALLOCATED, shown="compared")] = None
    node_list: Annotated[str | None, Fact(sources=("scheduler",), shown="compared")] = None
    cpus: Annotated[int | None, Fact(sources=_ALLOCATED, shown="compared")] = Field(
        default=None, description="Cores over all nodes: allocated, or requested while it waits."
    )
    memory_mb: Annotated[float | None, Fact("MiB", _ALLOCATED, shown="compared")] = Field(
        default=None, description="Memory over all nodes: allocated, or requested."
    )
    gpus: Annotated[int | None, Fact(sources=_ALLOCATED, shown="compared")] = Field(
        default=None, description="GPUs over all nodes: allocated, or requested."
    )
    gpu_type: Annotated[str | None, Fact(sources=("scheduler", "runner", "request"), shown="compared")] = None
    gpu_driver: Annotated[str | None, Fact(sources=("runner",))] = None
    restarts: Annotated[int | None, Fact(shown="compared")] = Field(
        default=None, description="How often the scheduler started it again."
    )
    submitted: Annotated[str | None, Fact("time")] = None
    eligible: Annotated[str | None, Fact("time", ("scheduler",))] = Field(
        default=None, description="When it could have started; the wait counts from here."
    )
    started: Annotated[str | None, Fact("time")] = None
    ended: Annotated[str | None, Fact("time")] = None
    wait_s: Annotated[float | None, Fact("s", shown="brief")] = Field(
        default=None, description="From when it could start to its start."
    )
    elapsed_s: Annotated[float | None, Fact("s", _MEASURED, "sum", "brief")] = Field(
        default=None, description="Over all attempts."
    )
    time_limit_s: Annotated[float | None, Fact("s", _ALLOCATED, shown="compared")] = None
    time_efficiency: Annotated[float | None, Fact("share", shown="compared")] = Field(
        default=None, description="Elapsed time of the last attempt over the time limit, 0 to 1."
    )
    cpu_s: Annotated[float | None, Fact("s", _MEASURED, "sum", "compared")] = Field(
        default=None, description="User and system time."
    )
    cpu_efficiency: Annotated[float | None, Fact("share", shown="brief")] = Field(
        default=None, description="CPU time over elapsed time × cores, 0 to 1."
    )
    max_rss_mb: Annotated[float | None, Fact("MiB", _MEASURED, "max", "compared")] = Field(
        default=None, description="Greatest resident memory."
    )
    memory_efficiency: Annotated[float | None, Fact("share", shown="brief")] = Field(
        default=None, description="Greatest memory over memory allocated, 0 to 1."
    )
    gpu_hours: Annotated[float | None, Fact("h", ("scheduler",), "sum", "brief")] = Field(
        default=None, description="Cards × hours of all attempts."
    )
    gpu_utilisation: Annotated[float | None, Fact("percent", _MEASURED, shown="brief")] = Field(
        default=None, description="Mean over GPUs and time, percent."
    )
    gpu_memory_mb: Annotated[float | None, Fact("MiB", _MEASURED, shown="compared")] = Field(
        default=None, description="Greatest sum over the task's GPUs."
    )
    billing: Annotated[float | None, Fact(sources=("scheduler",), attempts="sum", shown="compared")] = Field(
        default=None, description="The scheduler's billing units × hours."
    )
    energy_j: Annotated[float | None, Fact("J", ("scheduler",), "sum", "compared")] = Field(
        default=None, description="Energy that its nodes used."
    )
    exit_code: int | None = None
    signal: int | None = None
    error: Annotated[TaskError | None, Fact("JSON")] = Field(
        default=None, description="What the program itself said when it failed."
    )
    notes: Annotated[list[str], Fact("JSON")] = Field(
        default=[], description="What the user should know, such as a kernel that was replaced."
    )
    tracking_error: str = Field(default="", description="Not empty: why the tracking of the task is incomplete.")
    final: bool = Field(default=False, description="Whether nothing of this will change any more.")


FACTS: dict[str, Fact] = {
    name: next((item for item in field.metadata if isinstance(item, Fact)), Fact())
    for name, field in TaskFacts.model_fields.items()
}
"""Name → what is declared of it."""

SCHEDULER_FACTS: dict[str, Fact] = {name: fact for name, fact in FACTS.items() if "scheduler" in fact.sources}
"""Those of `TaskView.facts`."""


def shown_in(*places: str) -> list[str]:
    """Return the facts that appear in one of these places (`Fact.shown`)."""
    return [name for name, fact in FACTS.items() if fact.shown in places]


def sql_type(name: str) -> str:
    """Return the type of a column of the table ``tasks``: INTEGER, REAL or TEXT."""
    annotation = TaskFacts.model_fields[name].annotation
    kind = (typing.get_args(annotation) or (annotation,))[0]
    return {int: "INTEGER", bool: "INTEGER", float: "REAL"}.get(kind, "TEXT")


def sql_columns() -> str:
    """Return the columns of the table ``tasks`` as a CREATE statement lists them."""
    lines = []
    for name, field in TaskFacts.model_fields.items():
        rule = " NOT NULL" if field.is_required() or field.default is not None else ""
        if rule and not field.is_required():
            rule += f" DEFAULT {_literal(field.default)}"
        lines.append(f"    {name} {sql_type(name)}{rule},\n")
    return "".join(lines)


def _literal(value: object) -> str:
    if isinstance(value, int):
        return str(int(value))
    return "'" + (value if isinstance(value, str) else json.dumps(value)) + "'"
