"""MLflow's filter and order_by language, read into conditions and orders that name what went wrong and where.

The language is that of `MlflowClient.search_runs` in MLflow 3.17 (mlflow/utils/search_utils.py): comparisons joined by
AND, over ``metrics.x``, ``params.x``, ``tags.x``, ``attributes.x`` or bare attributes and ``datasets.x``; keys with other
characters than letters, digits and ``_ . - / : @`` stand in backticks or quotes; what stands between the quotes of a value
is the value, there is no escape. Ours besides: ``job.<column>`` for the facts of the task that made the run, and lists
(IN) for all attributes. Pure: touches no store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from lossi.errors import InvalidInput, did_you_mean
from lossi.projects import facts

Kind = Literal["attribute", "metric", "param", "tag", "dataset", "job"]
Value = str | int | float | tuple[str, ...] | None

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
    "job": "job",
}
ALIASES = {"created": "start_time", "Created": "start_time", **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name")}
NUMERIC_ATTRIBUTES = frozenset(("start_time", "end_time"))
ATTRIBUTES = frozenset(("run_id", "run_name", "user_id", "status", "artifact_uri")) | NUMERIC_ATTRIBUTES
DATASET_KEYS = frozenset(("name", "digest", "context"))

_NUMERIC = frozenset((">", ">=", "=", "!=", "<=", "<"))
_TEXT = frozenset(("=", "!=", "LIKE", "ILIKE"))
_LISTS = frozenset(("IN", "NOT IN"))
_NULLS = frozenset(("IS NULL", "IS NOT NULL"))

_WORD = re.compile(r"[^\W\d]\w*")
_KEY = re.compile(r"\w[\w.\-/:@]*")
_BACKTICKS = re.compile(r"`((?:``|[^`])*)`")
# The two forms of strings as MLflow's tokenizer (sqlparse) reads them.
_SINGLE = re.compile(r"'((?:''|\\'|[^'])*)'")
_DOUBLE = re.compile(r'"((?:""|\\"|[^"])*)"')
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
_COMPARATOR = re.compile(
    r"==|>=|<=|!=|<>|=|>|<|(?:NOT\s+(?:LIKE|ILIKE|RLIKE|IN)|LIKE|ILIKE|RLIKE|IN|IS\s+NOT\s+NULL|IS\s+NULL)\b", re.IGNORECASE
)
_SPACE = re.compile(r"\s*")
_DIRECTION = re.compile(r"(?:ASC|DESC)\b", re.IGNORECASE)
_AND = re.compile(r"AND\b", re.IGNORECASE)

MAX_LENGTH = 1_000_000
MAX_CONDITIONS = 200
"""Far below the depth of an expression that SQLite takes (1,000)."""
MAX_PATTERN = 5_000
EXAMPLE = "write for example: metrics.accuracy > 0.9 AND params.model = 'svc'"
_INSTEAD = {
    "==": "write = instead of ==",
    "<>": "write != instead of <>",
    "NOT LIKE": "MLflow's language has no NOT LIKE",
    "NOT ILIKE": "MLflow's language has no NOT ILIKE",
    "RLIKE": "use LIKE with % and _",
}


@dataclass(frozen=True)
class Reference:
    """What a condition or an order speaks of; aliases are already resolved."""

    kind: Kind
    key: str


@dataclass(frozen=True)
class Condition:
    """One comparison. `comparator` is in upper case; `value` is None for IS NULL and IS NOT NULL."""

    reference: Reference
    comparator: str
    value: Value


@dataclass(frozen=True)
class Order:
    """One criterion of an order."""

    reference: Reference
    ascending: bool


def parse_filter(text: str) -> list[Condition]:
    """Read a filter; an empty one has no conditions.

    Raises
    ------
    InvalidInput
        With the place (`position`, 0-based) where the filter stops making sense, and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"the filter is longer than {MAX_LENGTH:,} characters", hint="filter by a tag that the runs share")
    reader = _Reader(text, "filter")
    conditions: list[Condition] = []
    while not reader.at_end():
        if conditions and not reader.take(_AND):
            found = reader.found()
            hint = "only AND can join conditions; ask twice for OR" if found.upper() == "'OR'" else EXAMPLE
            reader.fail(f"expected AND or the end, found {found}", hint)
        conditions.append(_condition(reader))
        if len(conditions) > MAX_CONDITIONS:
            reader.fail(f"more than {MAX_CONDITIONS} conditions", "use IN for lists")
    return conditions


def parse_order_by(clauses: Sequence[str]) -> list[Order]:
    """Read order_by clauses such as ``metrics.accuracy DESC``.

    Raises
    ------
    InvalidInput
        For a clause that is not a name with an optional ASC or DESC, and for a name that comes twice.
    """
    orders: list[Order] = []
    for clause in clauses:
        reader = _Reader(clause, "order_by clause")
        reference, _ = _reference(reader)
        if reference.kind == "dataset":
            reader.fail(
                "runs cannot be ordered by their datasets", "order by an attribute, metric, param, tag or job column", at=0
            )
        direction = reader.take(_DIRECTION)
        if not reader.at_end():
            reader.fail(f"expected ASC, DESC or the end, found {reader.found()}", "give several criteria as several clauses")
        if any(order.reference == reference for order in orders):
            reader.fail(f"{reference.kind} {reference.key!r} comes twice in order_by", "name it once", at=0)
        orders.append(Order(reference, direction is None or direction.upper() == "ASC"))
    return orders


class _Reader:
    """A text and how far it has been read."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.position = 0

    def take(self, pattern: re.Pattern[str], *, group: int = 0, spaces: bool = True) -> str | None:
        """Return what `pattern` matches here and go behind it; None when it does not match."""
        if spaces:
            self.skip()
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        return match.group(group)

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.position)
        assert match is not None
        self.position = match.end()

    def at_end(self) -> bool:
        self.skip()
        return self.position == len(self.text)

    def next(self) -> str:
        return self.text[self.position : self.position + 1]

    def found(self) -> str:
        """Return what stands here, for a message."""
        rest = self.text[self.position :].split(maxsplit=1)
        return repr(rest[0][:40]) if rest else "the end"

    def fail(self, why: str, hint: str, *, at: int | None = None) -> NoReturn:
        place = self.position if at is None else at
        raise InvalidInput(
            f"the {self.name} {_shortened(self.text)!r} is not valid at character {place + 1}", why=why, hint=hint, position=place
        )


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


def _condition(reader: _Reader) -> Condition:
    reference, start = _reference(reader)
    reader.skip()
    at = reader.position
    written = reader.take(_COMPARATOR)
    if written is None:
        reader.fail(
            f"expected a comparator such as = or > after {reader.text[start:at].strip()}, found {reader.found()}", EXAMPLE
        )
    comparator = " ".join(written.upper().split())
    allowed = _comparators(reference)
    if comparator not in allowed:
        hint = _INSTEAD.get(comparator, "possible here: " + ", ".join(sorted(allowed)))
        reader.fail(f"{comparator} is not possible with {reference.kind} {reference.key!r}", hint, at=at)
    if comparator in _NULLS:
        return Condition(reference, comparator, None)
    if comparator in _LISTS:
        return Condition(reference, comparator, _list(reader))
    if is_numeric(reference):
        return Condition(reference, comparator, _number(reader, reference))
    return Condition(reference, comparator, _string(reader, reference, comparator))


def is_numeric(reference: Reference) -> bool:
    """Return whether values of this are numbers."""
    if reference.kind == "attribute":
        return reference.key in NUMERIC_ATTRIBUTES
    if reference.kind == "job":
        return facts.sql_type(reference.key) != "TEXT"
    return reference.kind == "metric"


def _comparators(reference: Reference) -> frozenset[str]:
    allowed = _NUMERIC if is_numeric(reference) else _TEXT
    if reference.kind in ("param", "tag", "job"):
        allowed = allowed | _NULLS
    if reference.kind in ("attribute", "dataset", "job") and not is_numeric(reference):
        allowed = allowed | _LISTS
    return allowed


def _reference(reader: _Reader) -> tuple[Reference, int]:
    """Read ``kind.key`` or a bare attribute; return it with the place where it starts."""
    reader.skip()
    start = reader.position
    first = reader.take(_BACKTICKS, group=1)
    if first is None:
        first = reader.take(_DOUBLE, group=1)
    quoted = first is not None
    if first is None:
        first = reader.take(_WORD)
    if first is None:
        reader.fail(f"expected a name such as metrics.accuracy, found {reader.found()}", EXAMPLE)
    if reader.next() != ".":
        if not quoted and first in KINDS:
            reader.fail(f"{first!r} needs a name behind it", f"write {first}.<name>")
        return _checked(reader, "attribute", first, start), start
    kind = KINDS.get(first)
    if kind is None:
        hint = did_you_mean(first, KINDS) or "names start with attributes, metrics, params, tags, datasets or job"
        reader.fail(f"{first!r} is not a kind of value", hint, at=start)
    reader.position += 1
    key: str | None = None
    for pattern, group in ((_BACKTICKS, 1), (_DOUBLE, 1), (_SINGLE, 1), (_KEY, 0)):
        key = reader.take(pattern, group=group, spaces=False)
        if key is not None:
            break
    if key is None:
        reader.fail(
            f"expected a name after {first}., found {reader.found()}", f"put other characters in backticks: {first}.`my name`"
        )
    return _checked(reader, kind, key, start), start


def _checked(reader: _Reader, kind: Kind, key: str, start: int) -> Reference:
    known: frozenset[str] | None = None
    if kind == "attribute":
        key = ALIASES.get(key, key)
        known = ATTRIBUTES
    elif kind == "dataset":
        known = DATASET_KEYS
    elif kind == "job":
        known = frozenset(facts.FACTS)
    if known is not None and key not in known:
        hint = did_you_mean(key, known) or "there are: " + ", ".join(sorted(known))
        if kind == "attribute":
            hint += "; params, metrics and tags need their prefix, as in params.x"
        reader.fail(f"{key!r} is not a {'job column' if kind == 'job' else kind}", hint, at=start)
    return Reference(kind, key)


def _string(reader: _Reader, reference: Reference, comparator: str) -> str:
    at = reader.position
    value = _quoted(reader)
    if value is None:
        reader.fail(
            f"values of {reference.kind} {reference.key!r} are text and need quotes, found {reader.found()}",
            "write 'value'; when it holds a ' write \"value\"",
        )
    if comparator in ("LIKE", "ILIKE") and len(value) > MAX_PATTERN:
        reader.fail(f"the pattern is longer than {MAX_PATTERN:,} characters", "use a shorter one", at=at)
    return value


def _quoted(reader: _Reader) -> str | None:
    value = reader.take(_SINGLE, group=1)
    return value if value is not None else reader.take(_DOUBLE, group=1)


def _number(reader: _Reader, reference: Reference) -> int | float:
    written = reader.take(_NUMBER)
    if written is None:
        reader.fail(
            f"{reference.kind} {reference.key!r} is compared with a number, found {reader.found()}", "write it without quotes"
        )
    if reference.kind != "metric" and re.fullmatch(r"[-+]?\d+", written) and len(written) < 19:
        return int(written)
    return float(written)


def _list(reader: _Reader) -> tuple[str, ...]:
    values: list[str] = []
    hint = "write a list of quoted values: ('a', 'b')"
    if not reader.take(re.compile(r"\(")):
        reader.fail(f"expected ( after IN, found {reader.found()}", hint)
    while True:
        value = _quoted(reader)
        if value is None:
            if values and reader.take(re.compile(r"\)")):
                return tuple(values)
            reader.fail(f"expected a quoted value, found {reader.found()}", hint)
        values.append(value)
        if not reader.take(re.compile(",")):
            if reader.take(re.compile(r"\)")):
                return tuple(values)
            reader.fail(f"expected , or ) in the list, found {reader.found()}", hint)
