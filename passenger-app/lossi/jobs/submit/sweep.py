"""Sweeps: from a grid, a list, random draws or a CSV table to one set of parameters per task. Pure.

A combination has only the swept parameters; `task_parameters` adds the fixed ones. The order of combinations is part of the contract:
task n is always the same combination, whenever and wherever a sweep is expanded.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from lossi.errors import InvalidInput

Row = dict[str, JsonValue]
Rows = list[Row]
Values = Annotated[list[JsonValue], Field(min_length=1)]

_FROZEN = ConfigDict(frozen=True, extra="forbid", strict=True)


class Range(BaseModel):
    """A range to draw from: both ends included for ``int``; ``loguniform`` is uniform in the logarithm."""

    model_config = _FROZEN

    distribution: Literal["uniform", "loguniform", "int"] = Field(description="How to draw.")
    low: float = Field(allow_inf_nan=False, description="Smallest value.")
    high: float = Field(allow_inf_nan=False, description="Largest value.")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low <= self.high:
            raise ValueError(f"low ({self.low:g}) must not be greater than high ({self.high:g})")
        if self.distribution == "loguniform" and self.low <= 0:
            raise ValueError("loguniform needs a low greater than 0")
        if self.distribution == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("int needs whole numbers as low and high")
        if not math.isfinite(self.high - self.low):
            raise ValueError("the range is too wide")
        return self

    def draw(self, source: random.Random) -> float | int:
        """Return one value."""
        if self.distribution == "int":
            return source.randint(int(self.low), int(self.high))
        if self.distribution == "loguniform":
            drawn = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = source.uniform(self.low, self.high)
        return min(max(drawn, self.low), self.high)  # rounding must not leave the range


class Choice(BaseModel):
    """Values to draw from, all equally likely."""

    model_config = _FROZEN

    choice: Values = Field(description="The values.")

    def draw(self, source: random.Random) -> JsonValue:
        """Return one value."""
        return self.choice[source.randrange(len(self.choice))]


def _distribution(value: Any) -> str:
    return "choice" if isinstance(value, Choice) or (isinstance(value, dict) and "choice" in value) else "range"


Distribution = Annotated[Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choice")], Discriminator(_distribution)]


class Grid(BaseModel):
    """Every value of each parameter with every value of the others; the last parameter changes fastest."""

    model_config = _FROZEN

    grid: dict[str, Values] = Field(min_length=1, description="Values by parameter.")

    @property
    def names(self) -> list[str]:
        """The swept parameters."""
        return list(self.grid)

    def total(self) -> int:
        """Return the number of combinations without making them."""
        return math.prod(len(values) for values in self.grid.values())

    def combinations(self) -> Iterator[Row]:
        """Yield the combinations in their order."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


class List(BaseModel):
    """Explicit combinations; a parameter missing from one of them takes the fixed value or the notebook's default."""

    model_config = _FROZEN

    list: Annotated[Rows, Field(min_length=1)] = Field(description="One object of parameters per task.")

    @property
    def names(self) -> Sequence[str]:
        """The swept parameters, in the order in which they first appear."""
        return tuple({name: None for row in self.list for name in row})

    def total(self) -> int:
        """Return the number of combinations."""
        return len(self.list)

    def combinations(self) -> Iterator[Row]:
        """Yield the combinations in their order."""
        yield from self.list


class Random(BaseModel):
    """Random combinations: the same seed draws the same ones, and adding a parameter does not change the others."""

    model_config = _FROZEN

    random: dict[str, Distribution] = Field(min_length=1, description="What to draw from, by parameter.")
    samples: int = Field(default=10, ge=1, description="Number of combinations.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed.")

    @property
    def names(self) -> Sequence[str]:
        """The swept parameters."""
        return tuple(self.random)

    def total(self) -> int:
        """Return the number of combinations."""
        return self.samples

    def combinations(self) -> Iterator[Row]:
        """Yield the combinations in their order."""
        # A text seed is hashed with SHA-512, the same in every process and version of Python since 3.2 (random.seed).
        sources = {name: random.Random(f"{self.seed}:{name}") for name in self.random}  # noqa: S311 no secret
        for _ in range(self.samples):
            yield {name: distribution.draw(sources[name]) for name, distribution in self.random.items()}


class Csv(BaseModel):
    """Combinations as a table: parameter names in the first row, one combination in each other row, fields as in RFC 4180.

    Values are text, read as the types that the notebook declares; for scripts and commands, text that is JSON is that value and any
    other text is a string.
    """

    model_config = _FROZEN

    csv: str = Field(min_length=1, description="The table as text.")

    @property
    def names(self) -> Sequence[str]:
        """The swept parameters."""
        return tuple(self._table()[0])

    def total(self) -> int:
        """Return the number of combinations."""
        return len(self._table()[1])

    def combinations(self) -> Iterator[Row]:
        """Yield the combinations in their order; all values are text."""
        names, rows = self._table()
        for row in rows:
            yield dict(zip(names, row, strict=True))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        limit = csv.field_size_limit(len(self.csv) + 1)
        try:
            rows = [row for row in csv.reader(io.StringIO(self.csv.removeprefix("\ufeff"), newline=""), strict=True) if row]
        except csv.Error as error:
            raise InvalidInput("cannot read the CSV table", why=str(error), hint="quote fields with double quotes") from None
        finally:
            csv.field_size_limit(limit)
        if len(rows) < 2:
            raise InvalidInput(
                "the CSV table has no combinations",
                hint="the first row holds parameter names, each further row the values of one task",
            )
        names = [name.strip() for name in rows[0]]
        if "" in names or len(set(names)) < len(names):
            raise InvalidInput("the CSV table's first row has an empty or repeated name", hint="give each column its own name")
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(names):
                raise InvalidInput(
                    f"row {number} of the CSV table has {len(row)} fields instead of {len(names)}",
                    hint="quote values that contain commas",
                )
        return names, rows[1:]


KINDS = ("grid", "list", "random", "csv")


def _kind(value: Any) -> str | None:
    return next((kind for kind in KINDS if (kind in value if isinstance(value, dict) else hasattr(value, kind))), None)


Sweep = Annotated[
    Annotated[Grid, Tag("grid")] | Annotated[List, Tag("list")] | Annotated[Random, Tag("random")] | Annotated[Csv, Tag("csv")],
    Discriminator(
        _kind, custom_error_type="sweep_kind", custom_error_message="a sweep needs one of the keys grid, list, random and csv"
    ),
]
