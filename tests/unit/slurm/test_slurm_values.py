"""Numbers, times, resources and sets of array tasks as Slurm writes them."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, strategies as st

from lossi.jobs.schedulers.slurm import values

TASKS = st.sets(st.integers(0, 4_000_000), min_size=1, max_size=60)


@given(TASKS)
def test_array_tasks_survive_being_written_and_read(tasks: set[int]) -> None:
    text = values.ranges_text(tasks)
    for form in (text, f"[{text}]", f"{text}%7", f"[{text}%7]"):
        assert {task for span in values.ranges(form) for task in span} == tasks


@given(TASKS, st.data())
def test_a_list_of_tasks_that_was_cut_short_is_refused_or_ends_with_a_whole_number(tasks: set[int], data: st.DataObject) -> None:
    text = values.ranges_text(tasks)
    cut = text[: data.draw(st.integers(0, len(text)))]
    with pytest.raises(ValueError, match="not a set"):
        values.ranges(f"{cut}...")


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("7", [7]),
        ("3-9%3", [3, 4, 5, 6, 7, 8, 9]),
        ("0-8:2", [0, 2, 4, 6, 8]),
        ("[0-9,20-30:5%2]", [*range(10), 20, 25, 30]),
    ],
)
def test_sets_of_tasks(text: str, tasks: list[int]) -> None:
    assert [task for span in values.ranges(text) for task in span] == tasks


@pytest.mark.parametrize("text", ["", "-", "1-", "a", "5-3", "1:2", "0-9:0", "1,,2", "1,3,5-9,...", "4294967294-"])
def test_what_is_no_set_of_tasks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a set"):
        values.ranges(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10:00", 600),
        ("1:00", 60),
        ("00:00.010", 0.01),
        ("01:02:03", 3723),
        ("1-00:00:00", 86400),
        ("2-3", 2 * 86400 + 3 * 3600),
        ("2-3:30", 2 * 86400 + 3 * 3600 + 1800),
        ("31", 31),
        ("UNLIMITED", None),
        ("NONE", None),
        ("Partition_Limit", None),
        ("", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert values.seconds(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 400 * 86400))
def test_durations_survive_slurms_own_form(total: int) -> None:
    days, rest = divmod(total, 86400)
    text = f"{days}-" if days else ""
    text += f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    assert values.whole_seconds(text) == total


def test_a_number_alone_counts_minutes_where_slurm_means_minutes() -> None:
    assert values.whole_seconds("10", lone=60) == 600


@pytest.mark.parametrize("text", ["1:2:3:4", "x", "-5", "1-2-3", "5 minutes", "1:"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        values.seconds(text)


@given(st.datetimes(datetime.datetime(1980, 1, 1), datetime.datetime(2200, 1, 1)))
def test_times_are_utc(moment: datetime.datetime) -> None:
    text = moment.isoformat(timespec="seconds")
    assert values.utc_time(text) == f"{text}Z"


@pytest.mark.parametrize(
    "text", ["2026-13-01T00:00:00", "2026-11-26T06:06", "06:06:47", "Nov 26 06:06", "2026-11-26T06:06:47+02"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.utc_time(text)


@pytest.mark.parametrize("text", ["N/A", "Unknown", "NONE", "None", "", "(null)"])
def test_times_that_are_not_known(text: str) -> None:
    assert values.utc_time(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0:0", (0, None)),
        ("42:0", (42, None)),
        ("0:9", (None, 9)),
        ("0", (0, None)),
        ("10752", (42, None)),
        ("9", (None, 9)),
        ("N/A", (None, None)),
    ],
)
def test_exit_codes_of_all_versions(text: str, found: tuple[int | None, int | None]) -> None:
    assert values.exit_code(text) == found


@pytest.mark.parametrize(
    ("text", "mb"),
    [("2000M", 2000), ("2G", 2048), ("1.5G", 1536), ("1T", 2**20), ("512K", 0.5), ("100", 100), ("4Gn", 4096), ("N/A", None)],
)
def test_memory(text: str, mb: float | None) -> None:
    assert values.memory_mb(text) == mb


def test_resources_have_memory_in_mib_and_leave_out_what_was_taken_back() -> None:
    resources = values.tres("billing=4,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=4G,energy=-1,node=1")
    assert resources == {"billing": 4, "cpu": 4, "gres/gpu:a100": 2, "gres/gpu": 2, "mem": 4096, "node": 1}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(/[a-z:0-9]{1,8})?", fullmatch=True).filter(lambda name: name != "mem"), st.integers(0, 10**9)
    )
)
def test_resources_survive_slurms_own_form(resources: dict[str, int]) -> None:
    assert values.tres(",".join(f"{name}={value}" for name, value in resources.items())) == resources


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:a100:4", [("a100", 4)]),
        ("gpu:a100:4(S:0-1)", [("a100", 4)]),
        ("gpu:4", [("", 4)]),
        ("gpu", [("", 1)]),
        ("gpu:v100:2(S:0,1),gpu:a100:1(IDX:0-3),nvme:1", [("v100", 2), ("a100", 1)]),
        ("gres:gpu:a100:2", [("a100", 2)]),
        ("gres/gpu:a100=2", [("a100", 2)]),
        ("gres/gpu=3", [("", 3)]),
        ("(null)", []),
        ("N/A", []),
        ("lustre:1", []),
    ],
)
def test_generic_resources(text: str, found: list[tuple[str, int]]) -> None:
    assert values.gres(text) == found


@pytest.mark.parametrize(
    ("tres", "wish", "found"),
    [
        ({"gres/gpu": 2.0}, "gres:gpu:a100:2", (2, "a100")),
        ({"gres/gpu": 2.0, "gres/gpu:h100": 2.0}, "", (2, "h100")),
        ({"gres/gpu:h100": 2.0}, "", (2, "h100")),
        ({"gres/gpu": 3.0, "gres/gpu:h100": 2.0, "gres/gpu:a100": 1.0}, "gres:gpu:3", (3, None)),
        ({"cpu": 2.0}, "N/A", (None, None)),
    ],
)
def test_number_and_type_of_gpus(tres: dict[str, float], wish: str, found: tuple[int | None, str | None]) -> None:
    assert values.gpus(tres, wish) == found
