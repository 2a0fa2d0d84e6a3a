"""Memory, time limits and durations, as people and Slurm write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from lossi import units


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("8G", 8192), ("8g", 8192), ("8GB", 8192), ("8GiB", 8192), ("500M", 500), ("500", 500), (" 1.5G ", 1536), ("2T", 2 * 1024**2),
     ("1024K", 1), ("1K", 1), ("1025K", 2)],
)  # fmt: skip
def test_memory_is_read_as_slurm_reads_it_and_rounded_up(text: str, mebibytes: int) -> None:
    assert units.parse_memory(text) == mebibytes


@pytest.mark.parametrize("text", ["", "G", "8X", "-1G", "8 G B", "1e3", "٣G", "8G;rm", "nan", "inf", "9" * 400])
def test_text_that_is_not_memory_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="write 8G, 500M or a number of MiB"):
        units.parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("1:30", 90), ("1:30:00", 5400), ("2-00:00:00", 172800), ("1-12", 129600), ("1-12:30", 131400), ("90s", 90),
     ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1.5h", 5400), ("0:05", 5)],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_reads_them(text: str, seconds: int) -> None:
    assert units.parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", ":", "1:", "1:2:3:4", "-1", "1-", "1-2-3", "1d2h", "forever", "1:00:00 ; true", "٣", "9" * 4400]
)
def test_text_that_is_not_a_time_limit_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 30 \(minutes\), 1:30:00"):
        units.parse_time(text)


@given(st.integers(1, 366 * 86400))
def test_a_time_limit_survives_being_written_and_read(seconds: int) -> None:
    assert units.parse_time(units.format_time(seconds)) == seconds


@given(st.integers(1, 2**40))
def test_memory_survives_being_written_and_read(mebibytes: int) -> None:
    assert units.parse_memory(units.format_memory(mebibytes)) == mebibytes


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_days_hours_minutes_and_seconds_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    assert units.parse_time(f"{days}-{hours}:{minutes}:{seconds}") == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.integers(1, 10**6), st.sampled_from("kKmMgGtT"))
def test_memory_is_never_rounded_down(amount: int, unit: str) -> None:
    exact = amount * {"k": 2**-10, "m": 1, "g": 2**10, "t": 2**20}[unit.lower()]
    assert units.parse_memory(f"{amount}{unit}") == math.ceil(exact)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    for parse in (units.parse_memory, units.parse_time):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45.2, "45 s"), (60, "1 min"), (3600, "1 h"), (7500, "2 h 5 min"), (273600, "3 d 4 h"), (86401, "1 d"), (59.9, "1 min")],
)  # fmt: skip
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert units.humanize_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**20, "1 MiB"), (5.1 * 2**30, "5.1 GiB"), (2**40, "1 TiB"),
     (2**60, "1,048,576 TiB")],
)  # fmt: skip
def test_sizes_are_shown_in_the_largest_unit_that_fits(size: float, text: str) -> None:
    assert units.humanize_size(size) == text
    assert units.humanize_memory(size / 2**20) == text
