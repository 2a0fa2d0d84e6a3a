"""Memory and time as people and Slurm write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from lossi.jobs.resources import Resources, format_time, parse_memory, parse_time


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("8G", 8192), ("8g", 8192), ("8GB", 8192), ("8GiB", 8192), ("500M", 500), ("500", 500), (" 1.5G ", 1536), ("2T", 2 * 1024**2),
     ("1024K", 1), ("1K", 1), ("1025K", 2)],
)  # fmt: skip
def test_memory_is_read_as_slurm_reads_it_and_rounded_up(text: str, mebibytes: int) -> None:
    assert parse_memory(text) == mebibytes


@pytest.mark.parametrize("text", ["", "G", "8X", "-1G", "8 G B", "1e3", "٣G", "8G;rm", "nan", "inf", "9" * 400])
def test_what_is_no_memory_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="write 8G, 500M or a number of MiB"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("1:30", 90), ("1:30:00", 5400), ("2-00:00:00", 172800), ("1-12", 129600), ("1-12:30", 131400), ("90s", 90),
     ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1.5h", 5400), ("0:05", 5)],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_reads_them(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", ":", "1:", "1:2:3:4", "-1", "1-", "1-2-3", "1d2h", "forever", "1:00:00 ; true", "٣", "9" * 4400]
)
def test_what_is_no_time_limit_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 30 \(minutes\), 1:30:00"):
        parse_time(text)


@given(st.integers(1, 366 * 86400))
def test_a_time_limit_survives_being_written_and_read(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_days_hours_minutes_and_seconds_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    assert parse_time(f"{days}-{hours}:{minutes}:{seconds}") == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.integers(1, 10**6), st.sampled_from("kKmMgGtT"))
def test_memory_is_never_rounded_down(amount: int, unit: str) -> None:
    exact = amount * {"k": 2**-10, "m": 1, "g": 2**10, "t": 2**20}[unit.lower()]
    assert parse_memory(f"{amount}{unit}") == math.ceil(exact)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    for parse in (parse_memory, parse_time):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert repr(text) in str(error)


def test_resources_take_text_and_numbers() -> None:
    asked = Resources.model_validate({"memory": "8G", "time": "1:00:00", "cpus": 4, "gpus": 1, "gpu_type": "a100"})
    assert (asked.memory, asked.time) == (8192, 3600)
    assert Resources.model_validate({"memory": 500, "time": 90}).record().time_limit_s == 90
    assert Resources.model_validate(asked.model_dump()) == asked


@pytest.mark.parametrize(
    "wrong",
    [{"memory": "0"}, {"memory": 0}, {"time": 0}, {"time": "0"}, {"cpus": 0}, {"cpus": True}, {"cpus": "4"}, {"cpus": 1.5}, {"gpus": -1},
     {"time": "367-00:00:00"}, {"partition": "gpu; rm -rf /"}, {"account": "--uid=0"}, {"qos": "a\nb"}, {"memory": True}, {"nodez": 2}],
)  # fmt: skip
def test_resources_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Resources.model_validate(wrong)
