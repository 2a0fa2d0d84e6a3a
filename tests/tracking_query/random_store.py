"""Random stores with every oddity that MLflow allows, and filters and orders for them."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from hypothesis import strategies as st

NAN = float("nan")
INFINITY = 1.7976931348623157e308
METRICS = ["loss", "acc", "val/acc", "a b", "a.b", "f1-score", "ünï"]
PARAMS = ["lr", "model", "a b", "x.y", "it's", "Lr"]
TAGS = ["team", "note", "mlflow.runName", "mlflow.user", "a b"]
NUMBERS = [0.0, -0.0, 0.5, 0.5, 1.0, -1.0, 1e-300, 3.0, INFINITY, -INFINITY, NAN]
TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "aB",
    "a%b",
    "a_b",
    "a*b",
    "a?b",
    "a[b]c",
    "10",
    "9",
    "0.1",
    "Ünï",
    "ünï",
    "it's",
    'say "x"',
    "a\nb",
    "x" * 300,
]
STATUSES = ["FINISHED", "RUNNING", "FAILED", "KILLED", "SCHEDULED"]
TIMES = [1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_001, 1_700_000_000_007]
CONTEXT = "mlflow.data.context"


def fill(store: Path, seed: int, runs: int = 40) -> None:
    """Write random runs, with ties, gaps, NaN, infinities and deleted ones to a store created by MLflow."""
    rnd = random.Random(seed)
    connection = sqlite3.connect(store)
    execute = connection.execute
    for experiment in (1, 2):
        execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (?, ?, '/nowhere', 'active')",
            (experiment, f"experiment {experiment}"),
        )
    for number in range(4):
        execute(
            "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source) "
            "VALUES (?, 1, ?, ?, 'local', '{}')",
            (f"d{number}", ["digits", "iris", "Digits", "a b"][number], f"{number}{'ab'[number % 2]}"),
        )
    for number in range(runs):
        run = f"{rnd.getrandbits(128):032x}"
        name = rnd.choice([None, *TEXTS[1:]])
        execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id, "
            "source_type, source_name, entry_point_name, source_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'LOCAL', '', '', '')",
            (
                run,
                name,
                rnd.choice(["me", "you", "Me"]),
                rnd.choice(STATUSES),
                rnd.choice(TIMES),
                rnd.choice([None, *TIMES]),
                rnd.choice(["active"] * 4 + ["deleted"]),
                f"/nowhere/{run[:2]}",
                rnd.choice([1, 1, 2]),
            ),
        )
        for key in METRICS:
            if rnd.random() < 0.7:
                value = rnd.choice(NUMBERS)
                nan = value != value
                execute(
                    "INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, 1, 0, ?)",
                    (run, key, 0 if nan else value, nan),
                )
        for key in PARAMS:
            if rnd.random() < 0.7:
                execute("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", (run, key, rnd.choice(TEXTS)))
        for key in TAGS:
            if rnd.random() < 0.7:
                execute("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", (run, key, rnd.choice(TEXTS)))
        for dataset in rnd.sample(range(4), rnd.choice([0, 0, 1, 2])):
            execute(
                "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id) VALUES (?, 'DATASET', ?, 'RUN', ?)",
                (f"i{number}-{dataset}", f"d{dataset}", run),
            )
            if rnd.random() < 0.7:
                execute(
                    "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?)",
                    (f"i{number}-{dataset}", CONTEXT, rnd.choice(["train", "Train", "test"])),
                )
    connection.commit()
    connection.close()


def quoted_key(key: str, mark: str) -> str:
    """Return a key of a metric, param or tag, quoted if necessary."""
    plain = all(c.isalnum() or c in "_." for c in key)
    return key if plain and mark != "`" else f"`{key}`" if "'" in key or mark != '"' else f'"{key}"'


def quoted_value(value: str) -> str:
    """Return a value in the quotes that it does not contain."""
    return f'"{value}"' if "'" in value else f"'{value}'"


marks = st.sampled_from(["", "`", '"'])
texts = st.sampled_from(TEXTS).map(quoted_value)
patterns = st.sampled_from(["%", "a%", "A%", "%b", "a_b", "a*b", "a[b]c", "%?%", "ü%", "Ü%", "", "_", "%'%", "1%"]).map(
    quoted_value
)
numbers = st.sampled_from(
    ["0", "-0", "0.5", "1", "-1", "1e-300", "2.", ".5", "1.7976931348623157e308", "1e308", "-1e308", "1e400"]
)
spaces = st.sampled_from([" ", "  ", "\n", ""])


def prefixed(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from(names)


@st.composite
def metric_conditions(draw: st.DrawFn) -> str:
    key = quoted_key(draw(st.sampled_from(METRICS)), draw(marks))
    comparator = draw(st.sampled_from([">", ">=", "=", "!=", "<", "<="]))
    space = draw(spaces)
    return f"{draw(prefixed('metrics', 'metric'))}.{key}{space}{comparator}{space}{draw(numbers)}"


@st.composite
def text_conditions(draw: st.DrawFn) -> str:
    kind, keys = draw(
        st.sampled_from([("params", PARAMS), ("param", PARAMS), ("parameters", PARAMS), ("tags", TAGS), ("tag", TAGS)])
    )
    name = f"{kind}.{quoted_key(draw(st.sampled_from([*keys, 'absent'])), draw(marks))}"
    comparator = draw(st.sampled_from(["=", "!=", "LIKE", "ILIKE", "like", "IS NULL", "is not null"]))
    if "null" in comparator.lower():
        return f"{name} {comparator}"
    return f"{name} {comparator} {draw(patterns if 'like' in comparator.lower() else texts)}"


@st.composite
def attribute_conditions(draw: st.DrawFn, run_ids: list[str]) -> str:
    prefix = draw(prefixed("", "attributes.", "attribute.", "attr.", "run."))
    if draw(st.booleans()):
        name = draw(st.sampled_from(["start_time", "end_time", "Created", "created"]))
        comparator = draw(st.sampled_from([">", ">=", "=", "!=", "<", "<="]))
        return f"{prefix}{name} {comparator} {draw(st.sampled_from([str(t) for t in TIMES] + ['1700000000000.5', '0']))}"
    name = draw(st.sampled_from(["status", "user_id", "run_name", "`Run Name`", "`run name`", "artifact_uri", "run_id"]))
    if name == "run_id" and draw(st.booleans()):
        some = draw(st.lists(st.sampled_from([*run_ids, "none"]), min_size=1, max_size=4))
        return f"{prefix}run_id {draw(st.sampled_from(['IN', 'NOT IN', 'in']))} ({', '.join(quoted_value(run) for run in some)})"
    comparator = draw(st.sampled_from(["=", "!=", "LIKE", "ILIKE"]))
    values = [*STATUSES, "finished", "me", "f%", "F%", "%a%", "/nowhere/%", *TEXTS[:9]]
    return f"{prefix}{name} {comparator} {quoted_value(draw(st.sampled_from(values)))}"


@st.composite
def dataset_conditions(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(["name", "digest", "context"]))
    value = st.sampled_from(["digits", "Digits", "iris", "d%", "a b", "0a", "1b", "train", "test", "T%"])
    comparator = draw(st.sampled_from(["=", "!=", "LIKE", "ILIKE", "IN", "NOT IN"]))
    if "IN" in comparator.split():
        some = draw(st.lists(value, min_size=1, max_size=3))
        return f"datasets.{key} {comparator} ({', '.join(quoted_value(item) for item in some)})"
    return f"{draw(prefixed('dataset', 'datasets'))}.{key} {comparator} {quoted_value(draw(value))}"


def filters(run_ids: list[str]) -> st.SearchStrategy[str]:
    """Filters in MLflow's language, from none to four conditions."""
    condition = st.one_of(metric_conditions(), text_conditions(), attribute_conditions(run_ids), dataset_conditions())
    joined = st.sampled_from([" AND ", " and ", "\nAND  "])
    return st.tuples(st.lists(condition, max_size=4), joined).map(lambda parts: parts[1].join(parts[0]))


@st.composite
def order(draw: st.DrawFn) -> tuple[str, str]:
    """Return an order and its subject, because MLflow refuses the same subject twice."""
    kind = draw(st.sampled_from(["metrics", "params", "tags", "attributes", ""]))
    if kind in ("attributes", ""):
        key = draw(
            st.sampled_from(["start_time", "end_time", "Created", "status", "user_id", "run_name", "run_id", "artifact_uri"])
        )
        name, same = (f"{kind}.{key}" if kind else key), key.replace("Created", "start_time")
    else:
        key = draw(st.sampled_from({"metrics": METRICS, "params": [k for k in PARAMS if "'" not in k], "tags": TAGS}[kind]))
        name = same = f"{kind}.{quoted_key(key, draw(marks))}"
        same = f"{kind}.{key}"
    return name + draw(st.sampled_from(["", " ASC", " DESC", " desc"])), same


orders = st.lists(order(), max_size=3, unique_by=lambda item: item[1]).map(lambda items: [item[0] for item in items])
