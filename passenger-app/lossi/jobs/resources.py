"""What a task requests: cores, memory, GPUs, time, and where in the cluster. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lossi.contract import records
from lossi.units import parse_memory, parse_time

MOST_MEMORY_MB = 2**40
MOST_TIME_S = 366 * 86400


def _from_text(parse: Callable[[str], int]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value, json_schema_input_type=int | str)


def _word(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:+,-]{0,127}", value):
        raise ValueError("use only letters, digits and _ . : + , -, and begin with a letter, a digit or _")
    return value


Word = Annotated[str | None, AfterValidator(_word)]


def _constraint(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_\[\]()&|*:.=-]{1,128}", value):
        raise ValueError("write names of features joined by & and |")
    return value


Constraint = Annotated[str | None, AfterValidator(_constraint)]


class Resources(BaseModel):
    """What each task of a job requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cpus: int = Field(default=1, ge=1, le=65536, description="Cores; per node, as are memory and GPUs.")
    memory: Annotated[int, _from_text(parse_memory), Field(ge=1, le=MOST_MEMORY_MB)] | None = Field(
        default=None, description="Memory: `8G`, `500M` or a number of MiB; unset: the scheduler's default."
    )
    gpus: int = Field(default=0, ge=0, le=4096, description="GPUs.")
    gpu_type: Word = Field(default=None, description="Type of GPU, in the scheduler's terms, such as `a100`.")
    time: Annotated[int, _from_text(parse_time), Field(ge=1, le=MOST_TIME_S)] | None = Field(
        default=None,
        description="Time limit: text in Slurm's format (`1:30:00`, `2-00:00:00`, `30` = minutes) or with a unit (`2h`), or seconds.",
    )
    nodes: int = Field(default=1, ge=1, le=65536, description="Nodes.")
    partition: Word = Field(default=None, description="Partition.")
    account: Word = Field(default=None, description="Account to charge.")
    qos: Word = Field(default=None, description="Quality of service.")
    constraint: Constraint = Field(
        default=None, description="Features that the nodes must have, in Slurm's format: `a100&nvlink`."
    )

    def record(self) -> records.Resources:
        """Return the form that ``spec.json`` has (MiB, seconds)."""
        values = self.model_dump()
        return records.Resources(memory_mb=values.pop("memory"), time_limit_s=values.pop("time"), **values)
