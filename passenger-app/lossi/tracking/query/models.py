"""What the questions about runs are answered with; REST and the command line use these models as they are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lossi.tracking.query.values import Cell

View = Literal["active", "deleted", "all"]


class Answer(BaseModel):
    """What every answer from a store says about the store."""

    model_config = ConfigDict(frozen=True)

    stale: bool = Field(
        default=False, description="The store is locked: this is its last committed state, perhaps not the newest one."
    )
    read_only_revision: str | None = Field(
        None,
        description="Schema revision of the store when this Lossi does not know it: what can be read is shown and nothing is written.",
    )


class RunTable(Answer):
    """Runs as columns of equal length: row i of every column belongs to the same run."""

    columns: dict[str, list[Cell]] = Field(
        description="Column name to values: `run_id`, `run_name`, `experiment_id`, `status`, `start_time` and `end_time` "
        "(milliseconds since 1970), `params.<key>`, `metrics.<key>` (last value), `tags.<key>`, `job.<column>`."
    )
    total: int = Field(description="Runs that match, on all pages.")
    next_cursor: str | None = Field(default=None, description="Send it as `cursor` for the next page; null on the last one.")


class Experiment(BaseModel):
    """An experiment: a named group of runs."""

    model_config = ConfigDict(frozen=True)

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


class MetricSummary(BaseModel):
    """What became of one metric in one run. Steps are the first at which the value was reached."""

    model_config = ConfigDict(frozen=True)

    last: Cell = None
    last_step: int | None = None
    min: Cell = Field(default=None, description="Smallest value that is not NaN.")
    min_step: int | None = None
    max: Cell = Field(default=None, description="Greatest value that is not NaN.")
    max_step: int | None = None
    count: int = Field(default=0, description="Points logged.")


class DatasetInput(BaseModel):
    """A dataset that a run says it used (`mlflow.log_input`)."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    context: str | None = None
    source_type: str | None = None


class LoggedModel(BaseModel):
    """A model that a run logged."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    name: str
    model_type: str | None = None


class RunDetail(Answer):
    """Everything known of one run."""

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
    job: dict[str, Cell] | None = Field(default=None, description="Facts of the task that made the run: the columns `job.…`.")


class ComparedRun(BaseModel):
    """One of the runs of a comparison."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    run_name: str | None = None
    experiment: str | None = None
    status: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    job_id: str | None = None
    task: int | None = None


class ComparedMetric(BaseModel):
    """One metric over all runs of a comparison; each list has one entry per run, in the order of `runs`."""

    model_config = ConfigDict(frozen=True)

    last: list[Cell]
    last_step: list[int | None]
    min: list[Cell]
    min_step: list[int | None]
    max: list[Cell]
    max_step: list[int | None]
    differs: bool = Field(description="Whether the last values are not all the same.")


class Warning(BaseModel):
    """Why the numbers of the compared runs may differ for another reason than the parameters."""

    model_config = ConfigDict(frozen=True)

    code: Literal["environment", "gpu_type", "gpu_driver", "architecture", "code"]
    message: str
    facts: list[str] = Field(description="Names of the columns in `differing` that this is about.")


class Comparison(Answer):
    """Runs side by side: what differs and what is equal."""

    runs: list[ComparedRun]
    differing: dict[str, list[Cell]] = Field(
        description="Facts (`commit`, `environment`, `gpu_type`, …), `params.<key>`, `tags.<key>`, `data.<name>` (revision) and "
        "`datasets.<name>` (digest) that are not the same in all runs; one value per run, null where the run has none."
    )
    equal: dict[str, Cell] = Field(description="The same for what is equal in all runs.")
    metrics: dict[str, ComparedMetric]
    job: dict[str, list[Cell]] = Field(
        default={},
        description="What the scheduler and the runner say of the runs' tasks (`state`, `partition`, `wait_s`, `elapsed_s`, "
        "`gpu_hours`, `cpu_efficiency`, …): one value per run; what no run has is left out.",
    )
    warnings: list[Warning]


class Series(BaseModel):
    """The history of one metric in one run, in the order of x; all lists are of equal length."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    key: str
    points: int = Field(description="Points logged.")
    exact: bool = Field(
        description="Every point is here: `min`, `max` and `count` are left out. Otherwise each entry is one bucket."
    )
    x: list[int] = Field(description="Step, or milliseconds since 1970, of the last point in the bucket.")
    last: list[Cell] = Field(description="Value of the last point in the bucket.")
    min: list[Cell] | None = Field(default=None, description="Smallest value in the bucket that is not NaN.")
    max: list[Cell] | None = Field(default=None, description="Greatest value in the bucket that is not NaN.")
    count: list[int] | None = Field(default=None, description="Points in the bucket.")


class Histories(Answer):
    """Histories of metrics of many runs."""

    x: Literal["step", "time"]
    buckets: int = Field(description="The most entries that one series can have.")
    series: list[Series]
