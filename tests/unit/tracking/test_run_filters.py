"""The filter language: how it is parsed, and the error and its position for what is not valid."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from lossi.errors import InvalidInput
from lossi.tracking.query.conditions import _glob, where
from lossi.tracking.query.filters import Condition, Order, Reference, parse_filter, parse_order_by


def parse_one(text: str) -> Condition:
    [condition] = parse_filter(text)
    return condition


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        ("metrics.acc > 1", "metric", "acc"),
        ("metric.val/acc > 1", "metric", "val/acc"),
        ("metrics.f1-score>1", "metric", "f1-score"),
        ("metrics.`a b` > 1", "metric", "a b"),
        ("params.a.b = 'x'", "param", "a.b"),
        ("parameters.'a b' = 'x'", "param", "a b"),
        ("params.1l = 'x'", "param", "1l"),
        ('tags."mlflow.user" = "x"', "tag", "mlflow.user"),
        ("tags.日本 = 'x'", "tag", "日本"),
        ("status = 'FINISHED'", "attribute", "status"),
        ("run.status = 'FINISHED'", "attribute", "status"),
        ("`Run Name` = 'x'", "attribute", "run_name"),
        ("attributes.\"run name\" = 'x'", "attribute", "run_name"),
        ("Created > 5", "attribute", "start_time"),
        ("dataset.digest = 'x'", "dataset", "digest"),
        ("job.elapsed_s > 10", "job", "elapsed_s"),
        ("`metrics`.`a` > 1", "metric", "a"),
    ],
)
def test_names_are_parsed_as_in_mlflow(text: str, kind: str, key: str) -> None:
    condition = parse_one(text)
    assert (condition.reference.kind, condition.reference.key) == (kind, key)


@pytest.mark.parametrize(
    ("text", "comparator", "value"),
    [
        ("metrics.a>-1", ">", -1.0),
        ("metrics.a >= .5", ">=", 0.5),
        ("metrics.a != 1e-3", "!=", 0.001),
        ("metrics.a < 1e+3", "<", 1000.0),
        ("start_time > 1700000000000", ">", 1700000000000),
        ("start_time > 99999999999999999999", ">", 1e20),
        ("params.a = ''", "=", ""),
        ("params.a = 'it''s'", "=", "it''s"),
        ('params.a = "it\'s"', "=", "it's"),
        ("params.a='x'", "=", "x"),
        ("params.a like 'x%'", "LIKE", "x%"),
        ("tags.a is  Not\nnull", "IS NOT NULL", None),
        ("run_id IN ('a', \"b\",)", "IN", ("a", "b")),
        ("status not in ('a')", "NOT IN", ("a",)),
        ("job.state IN ('failed', 'timed_out')", "IN", ("failed", "timed_out")),
        ("job.exit_code IS NULL", "IS NULL", None),
    ],
)
def test_comparators_and_values(text: str, comparator: str, value: object) -> None:
    condition = parse_one(text)
    assert (condition.comparator, condition.value) == (comparator, value)


def test_conditions_are_joined_by_and() -> None:
    assert [c.reference.key for c in parse_filter("metrics.a>1 AND params.b='x'and tags.c = 'AND'")] == ["a", "b", "c"]
    assert parse_filter("") == parse_filter(" \n ") == []


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("metrics.loss >> 3", 14, "number"),
        ("metrics.loss > '3'", 15, "number"),
        ("params.a = 3", 11, "quotes"),
        ("params.a = svc", 11, "quotes"),
        ("parms.a = 'x'", 0, "did you mean 'params'"),
        ("staus = 'x'", 0, "did you mean 'status'"),
        ("job.elapsed > 3", 0, "did you mean 'elapsed_s'"),
        ("metrics > 3", 7, "metrics.<name>"),
        ("metrics.a > 1 OR metrics.b > 1", 14, "only AND"),
        ("metrics.a > 1 metrics.b > 1", 14, "expected AND"),
        ("metrics.a > 1 AND", 17, "expected a name"),
        ("(metrics.a > 1)", 0, "expected a name"),
        ("metrics.a", 9, "comparator"),
        ("metrics.a == 1", 10, "write = instead"),
        ("params.a <> 'x'", 9, "write != instead"),
        ("params.a NOT LIKE 'x'", 9, "no NOT LIKE"),
        ("params.a IN ('x')", 9, "possible here"),
        ("metrics.a IS NULL", 10, "possible here"),
        ("params.a = 'x", 11, "quotes"),
        ("run_id IN 'a'", 10, "expected ("),
        ("run_id IN (a)", 11, "quoted value"),
        ("run_id IN ('a' 'b')", 15, "expected , or )"),
        ("run_id IN ()", 11, "quoted value"),
        ("params.a b = 'x'", 9, "comparator"),
        ("metrics.a > 1; DROP TABLE runs", 13, "expected AND"),
    ],
)
def test_an_invalid_filter_reports_the_position_and_what_to_write(text: str, at: int, words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_filter(text)
    error = raised.value
    assert error.details["position"] == at
    assert f"character {at + 1}" in error.what and words in f"{error.why} {error.hint}"


def test_filters_that_are_too_long_are_refused() -> None:
    with pytest.raises(InvalidInput, match="more than 200"):
        parse_filter(" AND ".join(["metrics.a > 1"] * 201))
    with pytest.raises(InvalidInput, match="longer than"):
        parse_filter("params.a = '" + "x" * 1_000_000 + "'")
    with pytest.raises(InvalidInput, match="pattern"):
        parse_filter("params.a LIKE '" + "%" * 5001 + "'")


@given(st.text())
@example("'" * 50)
@example("\\'" * 50)
@example("`" * 51)
@example("metrics.a > " + "1" * 400)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        conditions = parse_filter(text)
    except InvalidInput as error:
        assert 0 <= error.details["position"] <= len(text)
    else:
        assert len(conditions) <= 200


@given(st.text(alphabet="'\"`\\();-- \0%_ab=", max_size=30))
def test_no_value_or_key_is_part_of_the_statement(text: str) -> None:
    relations = dict.fromkeys(("tags", "params", "latest_metrics"), "t")
    plain = where([Condition(Reference("param", "k"), "=", "v")], relations)
    odd = where([Condition(Reference("param", text), "=", text)], relations)
    assert odd.sql == plain.sql and odd.values == [text, text]


def test_orders_are_parsed() -> None:
    assert parse_order_by(["metrics.`a b` DESC", "start_time", "params.x asc", "job.elapsed_s desc"]) == [
        Order(Reference("metric", "a b"), False),
        Order(Reference("attribute", "start_time"), True),
        Order(Reference("param", "x"), True),
        Order(Reference("job", "elapsed_s"), False),
    ]


@pytest.mark.parametrize(
    "clause", ["", "metrics.a DOWN", "metrics.a, metrics.b", "datasets.name", "nothing", "metrics.a DESC DESC"]
)
def test_invalid_orders_are_refused(clause: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_order_by([clause])
    assert raised.value.hint


def test_a_repeated_order_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        parse_order_by(["Created", "start_time DESC"])


@pytest.mark.parametrize(("like", "glob"), [("a%", "a*"), ("a_b", "a?b"), ("a*[?]", "a[*][[][?]]"), ("100%_", "100*?")])
def test_like_patterns_become_case_sensitive_ones(like: str, glob: str) -> None:
    assert _glob(like) == glob
