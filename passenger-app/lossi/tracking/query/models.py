"""Answers about runs, used by REST and the command line as they are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lossi.tracking.query.values import Cell

View = Literal["active", "deleted", "all"]


class Frozen(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class Answer(Frozen):
    """State of the store, in every answer from it."""

    stale: bool = Field(default=False, description="The store is locked: this is its last committed state, which may be old.")
    read_only_revision: str | None = Field(
        None,
        description="Schema revision of the store, if this Lossi does not know it: what can be read is shown, nothing is written.",
    )


class RunTable(Answer):
    """Runs as columns of equal length; row i of every column is the same run."""

    columns: dict[str, list[Cell]] = Field(
        description="Column → values: `run_id`, `run_name`, `experiment_id`, `status`, `start_time` and `end_time` "
        "(milliseconds since 1970), `params.<key>`, `metrics.<key>` (last value), `tags.<key>`, `job.<column>`."
    )
    total: int = Field(description="Runs that match, on all pages.")
    next_cursor: str | None = Field(default=None, description="The `cursor` of the next page; null on the last one.")


class Experiment(Frozen):
    """An experiment: a named group of runs."""

    experiment_id: str
    name: str
    artifact_location: str | None = None
    lifecycle_stage: str = "active"
    creation_time: int | None = Field(default=None, description="Milliseconds since 1970.")
    last_update_time: int | None = Field(default=None, description="Milliseconds since 1970.")
    tags: dict[str, str | None] = {}
    runs: int = Field(default=0, description="Runs that are not deleted.")


class Experiments(Answer):
    """The experiments of a project, newest first."""

    items: list[Experiment]


class MetricSummary(Frozen):
    """One metric of one run. Steps are the first at which the value was reached."""

    last: Cell = None
    last_step: int | None = None
    min: Cell = Field(default=None, description="Smallest value that is not NaN.")
    min_step: int | None = None
    max: Cell = Field(default=None, description="Largest value that is not NaN.")
    max_step: int | None = None
    count: int = Field(default=0, description="Points logged.")


class DatasetInput(Frozen):
    """A dataset that a run logged as its input (`mlflow.log_input`)."""

    name: str
    digest: str
    context: str | None = None
    source_type: str | None = None


class LoggedModel(Frozen):
    """A model that a run logged."""

    model_id: str
    name: str
    model_type: str | None = None


class RunDetail(Answer):
    """Everything known about one run."""

    run_id: str
    run_name: str | None = None
    experiment_id: str | None = None
    experiment: str | None = Field(default=None, description="Name of the experiment.")
    status: str | None = None
    start_time: int | None = Field(default=None, description="Milliseconds since 1970.")
    end_time: int | None = Field(default=None, description="Milliseconds since 1970.")
    user_id: str | None = None
    lifecycle_stage: str | None = None
    artifact_uri: str | None = None
    params: dict[str, str | None] = {}
    tags: dict[str, str | None] = {}
    metrics: dict[str, MetricSummary] = {}
    datasets: list[DatasetInput] = []
    models: list[LoggedModel] = []
    job: dict[str, Cell] | None = Field(default=None, description="Facts of the run's task: the columns `job.…`.")


class ComparedRun(Frozen):
    """One run of a comparison."""

    run_id: str
    run_name: str | None = None
    experiment: str | None = None
    status: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    job_id: str | None = None
    task: int | None = None


class ComparedMetric(Frozen):
    """One metric of all runs of a comparison; each list has one entry per run, in the order of `runs`."""

    last: list[Cell]
    last_step: list[int | None]
    min: list[Cell]
    min_step: list[int | None]
    max: list[Cell]
    max_step: list[int | None]
    differs: bool = Field(description="Whether the last values differ.")


class Warning(Frozen):
    """A reason other than the parameters why results may differ."""

    code: Literal["environment", "gpu_type", "gpu_driver", "architecture", "code"]
    message: str
    facts: list[str] = Field(description="The columns of `differing` that this is about.")


class Comparison(Answer):
    """Runs side by side: what differs and what is equal."""

    runs: list[ComparedRun]
    differing: dict[str, list[Cell]] = Field(
        description="Facts (`commit`, `environment`, `gpu_type`, …), `params.<key>`, `tags.<key>`, `data.<name>` (revision) and "
        "`datasets.<name>` (digest) that differ between runs; one value per run, null if the run has none."
    )
    equal: dict[str, Cell] = Field(description="The same, for what is equal in all runs.")
    metrics: dict[str, ComparedMetric]
    job: dict[str, list[Cell]] = Field(
        default={},
        description="Facts of the runs' tasks from the scheduler and the runner (`state`, `partition`, `wait_s`, `elapsed_s`, "
        "`gpu_hours`, `cpu_efficiency`, …): one value per run; facts that no run has are left out.",
    )
    warnings: list[Warning]


class Series(Frozen):
    """The history of one metric in one run, in the order of x; all lists are of equal length."""

    run_id: str
    key: str
    points: int = Field(description="Points logged.")
    exact: bool = Field(
        description="Every point is included, without `min`, `max` and `count`; otherwise each entry is one bucket."
    )
    x: list[int] = Field(description="Step, or milliseconds since 1970, of the last point in the bucket.")
    last: list[Cell] = Field(description="Value of the last point in the bucket.")
    min: list[Cell] | None = Field(default=None, description="Smallest value in the bucket that is not NaN.")
    max: list[Cell] | None = Field(default=None, description="Largest value in the bucket that is not NaN.")
    count: list[int] | None = Field(default=None, description="Points in the bucket.")


class Histories(Answer):
    """Histories of metrics of many runs."""

    x: Literal["step", "time"]
    buckets: int = Field(description="Most entries of one series.")
    series: list[Series]
