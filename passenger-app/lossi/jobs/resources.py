"""What a task asks for: cores, memory, GPUs, time, and where in the cluster. Pure; touches nothing."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lossi.contract import records

MOST_MEMORY_MB = 2**40
MOST_TIME_S = 366 * 86400

_MEMORY = re.compile(r"(?i)\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)(?:i?b)?\s*")
_MEBIBYTES = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}
_TIME = re.compile(
    r"\s*(?:(?P<days>[0-9]{1,9})-(?P<dh>[0-9]{1,9})(?::(?P<dm>[0-9]{1,9})(?::(?P<ds>[0-9]{1,9}))?)?"
    r"|(?P<parts>[0-9]{1,9}(?::[0-9]{1,9}){0,2}))\s*"
)
_SUFFIXED = re.compile(r"(?i)\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([smhd])\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_memory(text: str) -> int:
    """Return MiB for ``8G``, ``500M``, ``1.5GiB``; a plain number is MiB, as for Slurm's ``--mem``. Rounded up.

    Units are powers of 1,024 with or without ``B`` or ``iB``, as Slurm reads them.

    Raises
    ------
    ValueError
        When it is not an amount of memory greater than zero.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory: write 8G, 500M or a number of MiB")
    return math.ceil(float(match[1]) * _MEBIBYTES[match[2].lower()])


def parse_time(text: str) -> int:
    """Return seconds for a time limit as Slurm's ``--time`` reads it, or with a unit (``90s``, ``30m``, ``2h``, ``1d``).

    Slurm's forms: ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes`` and
    ``days-hours:minutes:seconds`` (sbatch(1)).

    Raises
    ------
    ValueError
        When it is none of these.
    """
    suffixed = _SUFFIXED.fullmatch(text)
    if suffixed:
        return math.ceil(float(suffixed[1]) * _SECONDS[suffixed[2].lower()])
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time limit: write 30 (minutes), 1:30:00, 2-00:00:00 or 2h")
    if match["days"] is not None:
        return ((int(match["days"]) * 24 + int(match["dh"])) * 60 + int(match["dm"] or 0)) * 60 + int(match["ds"] or 0)
    parts = [int(part) for part in match["parts"].split(":")]
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)


def format_time(seconds: int) -> str:
    """Return ``[days-]hours:minutes:seconds``, which `parse_time` and Slurm read back as the same limit."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


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
    memory: Annotated[int, _from_text(parse_memory), Field(ge=1, le=MOST_MEMORY_MB)] | None = Field(
        default=None, description="Memory: `8G`, `500M` or a number of MiB; unset: what the scheduler gives by default."
    )
    gpus: int = Field(default=0, ge=0, le=4096, description="GPUs.")
    gpu_type: Word = Field(default=None, description="Type of GPU as the scheduler names it, such as `a100`.")
    time: Annotated[int, _from_text(parse_time), Field(ge=1, le=MOST_TIME_S)] | None = Field(
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
