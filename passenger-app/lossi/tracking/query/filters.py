"""Parser of MLflow's filter and order_by language, with errors that say what is wrong and where.

The language is that of `MlflowClient.search_runs` in MLflow 3.17 (mlflow/utils/search_utils.py): comparisons joined by AND, over
``metrics.x``, ``params.x``, ``tags.x``, ``attributes.x`` or bare attributes and ``datasets.x``. Keys with characters other than
letters, digits and ``_ . - / : @`` are put in backticks or quotes; there is no escape inside the quotes of a value. Our
extensions: ``job.<column>`` for the facts of the run's task, and lists (IN) for all attributes.
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
# Strings as MLflow's tokenizer (sqlparse) reads them.
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
"""Far below SQLite's limit of the depth of an expression (1,000)."""
MAX_PATTERN = 5_000
EXAMPLE = "for example: metrics.accuracy > 0.9 AND params.model = 'svc'"
_INSTEAD = {
    "==": "write = instead of ==",
    "<>": "write != instead of <>",
    "NOT LIKE": "MLflow's language has no NOT LIKE",
    "NOT ILIKE": "MLflow's language has no NOT ILIKE",
    "RLIKE": "use LIKE with % and _",
}


@dataclass(frozen=True)
class Reference:
    """The subject of a condition or an order, aliases resolved."""

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
    """One sort criterion."""

    reference: Reference
    ascending: bool


def parse_filter(text: str) -> list[Condition]:
    """Parse a filter; an empty one has no conditions.

    Raises
    ------
    InvalidInput
        With the first `position` (0-based) that is not valid, and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"the filter is longer than {MAX_LENGTH:,} characters", hint="filter by a tag that the runs share")
    reader = _Reader(text, "filter")
    conditions: list[Condition] = []
    while not reader.at_end():
        if conditions and not reader.take(_AND):
            word = reader.word()
            hint = "only AND can join conditions; for OR, search twice" if word.upper() == "'OR'" else EXAMPLE
            reader.fail(f"expected AND or the end, found {word}", hint)
        conditions.append(_condition(reader))
        if len(conditions) > MAX_CONDITIONS:
            reader.fail(f"more than {MAX_CONDITIONS} conditions", "use IN for lists")
    return conditions


def parse_order_by(clauses: Sequence[str]) -> list[Order]:
    """Parse order_by clauses such as ``metrics.accuracy DESC``.

    Raises
    ------
    InvalidInput
        For a clause that is not a name with an optional ASC or DESC, and for a repeated name.
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
            reader.fail(f"expected ASC, DESC or the end, found {reader.word()}", "pass each criterion as a clause of its own")
        if any(order.reference == reference for order in orders):
            reader.fail(f"{reference.kind} {reference.key!r} is in order_by twice", "use it once", at=0)
        orders.append(Order(reference, direction is None or direction.upper() == "ASC"))
    return orders


class _Reader:
    """A text and the position up to which it was read."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.position = 0

    def take(self, pattern: re.Pattern[str], *, group: int = 0, spaces: bool = True) -> str | None:
        """Return what `pattern` matches here and move past it; None if it does not match."""
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

    def word(self) -> str:
        """Return the word at this position, for a message."""
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
    text = reader.take(_COMPARATOR)
    if text is None:
        reader.fail(f"expected a comparator such as = or > after {reader.text[start:at].strip()}, found {reader.word()}", EXAMPLE)
    comparator = " ".join(text.upper().split())
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
    """Return whether its values are numbers."""
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
    """Parse ``kind.key`` or a bare attribute; return it with its position."""
    reader.skip()
    start = reader.position
    first = reader.take(_BACKTICKS, group=1)
    if first is None:
        first = reader.take(_DOUBLE, group=1)
    quoted = first is not None
    if first is None:
        first = reader.take(_WORD)
    if first is None:
        reader.fail(f"expected a name such as metrics.accuracy, found {reader.word()}", EXAMPLE)
    if reader.next() != ".":
        if not quoted and first in KINDS:
            reader.fail(f"{first!r} must be followed by a name", f"write {first}.<name>")
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
            f"expected a name after {first}., found {reader.word()}", f"put other characters in backticks: {first}.`my name`"
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
        hint = did_you_mean(key, known) or "choose from: " + ", ".join(sorted(known))
        if kind == "attribute":
            hint += "; params, metrics and tags need their prefix, as in params.x"
        reader.fail(f"{key!r} is not a {'job column' if kind == 'job' else kind}", hint, at=start)
    return Reference(kind, key)


def _string(reader: _Reader, reference: Reference, comparator: str) -> str:
    at = reader.position
    value = _quoted(reader)
    if value is None:
        reader.fail(
            f"values of {reference.kind} {reference.key!r} are text and need quotes, found {reader.word()}",
            "write 'value', or \"value\" if it contains a '",
        )
    if comparator in ("LIKE", "ILIKE") and len(value) > MAX_PATTERN:
        reader.fail(f"the pattern is longer than {MAX_PATTERN:,} characters", "use a shorter one", at=at)
    return value


def _quoted(reader: _Reader) -> str | None:
    value = reader.take(_SINGLE, group=1)
    return value if value is not None else reader.take(_DOUBLE, group=1)


def _number(reader: _Reader, reference: Reference) -> int | float:
    text = reader.take(_NUMBER)
    if text is None:
        reader.fail(
            f"{reference.kind} {reference.key!r} is compared with a number, found {reader.word()}", "write it without quotes"
        )
    if reference.kind != "metric" and re.fullmatch(r"[-+]?\d+", text) and len(text) < 19:
        return int(text)
    return float(text)


def _list(reader: _Reader) -> tuple[str, ...]:
    values: list[str] = []
    hint = "write a list of quoted values: ('a', 'b')"
    if not reader.take(re.compile(r"\(")):
        reader.fail(f"expected ( after IN, found {reader.word()}", hint)
    while True:
        value = _quoted(reader)
        if value is None:
            if values and reader.take(re.compile(r"\)")):
                return tuple(values)
            reader.fail(f"expected a quoted value, found {reader.word()}", hint)
        values.append(value)
        if not reader.take(re.compile(",")):
            if reader.take(re.compile(r"\)")):
                return tuple(values)
            reader.fail(f"expected , or ) in the list, found {reader.word()}", hint)
