"""What a task asks for: cores, memory, GPUs, time, and where in the cluster. Pure; touches nothing."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lossi import units
from lossi.contract import records

MOST_MEMORY_MB = 2**40
MOST_TIME_S = 366 * 86400


def _from_text(parser: Any) -> BeforeValidator:
    def convert(value: Any) -> Any:
        return parser(value) if isinstance(value, str) else value

    return BeforeValidator(convert, json_schema_input_type=int | str)


def _word(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:+,-]{0,127}", value):
        raise ValueError("letters, digits and _ . : + , - only, not beginning with a sign")
    return value


Word = Annotated[str | None, AfterValidator(_word)]


def _constraint(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_\[\]()&|*:.=-]{1,128}", value):
        raise ValueError("names of features joined by & and |")
    return value


Constraint = Annotated[str | None, AfterValidator(_constraint)]


class Resources(BaseModel):
    """What each task of a job asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cpus: int = Field(default=1, ge=1, le=65536, description="Cores; of each node, as are memory and GPUs.")
    memory: Annotated[int, _from_text(units.parse_memory), Field(ge=1, le=MOST_MEMORY_MB)] | None = Field(
        default=None, description="Memory: `8G`, `500M` or a number of MiB; unset: what the scheduler gives by default."
    )
    gpus: int = Field(default=0, ge=0, le=4096, description="GPUs.")
    gpu_type: Word = Field(default=None, description="Type of GPU as the scheduler names it, such as `a100`.")
    time: Annotated[int, _from_text(units.parse_time), Field(ge=1, le=MOST_TIME_S)] | None = Field(
        default=None,
        description="Time limit: text as Slurm reads it (`1:30:00`, `2-00:00:00`, `30` = minutes, `2h`) or a number of seconds.",
    )
    nodes: int = Field(default=1, ge=1, le=65536, description="Nodes.")
    partition: Word = Field(default=None, description="Partition.")
    account: Word = Field(default=None, description="Account that pays.")
    qos: Word = Field(default=None, description="Quality of service.")
    constraint: Constraint = Field(
        default=None, description="Features that the nodes must have, as Slurm writes them: `a100&nvlink`."
    )

    def record(self) -> records.Resources:
        """Return the form in which they lie in ``spec.json`` (MiB, seconds)."""
        values = self.model_dump()
        return records.Resources(memory_mb=values.pop("memory"), time_limit_s=values.pop("time"), **values)
