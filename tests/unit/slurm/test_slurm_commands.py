"""The output of Slurm's commands is parsed correctly, and truncated output never yields a wrong row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from lossi.clusters import Cluster
from lossi.errors import InvalidInput
from lossi.jobs.schedulers.slurm.cli.commands import (
    UNIT,
    Command,
    Unreadable,
    sacct,
    sacctmgr,
    sbatch,
    scancel,
    scontrol,
    sinfo,
    squeue,
    words_within,
)
from lossi.jobs.schedulers.slurm.records import AccountingRow, NodeGroup, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = sorted(folder.name for folder in RECORDED.iterdir() if folder.name[0].isdigit())
CI = Cluster(name="ci")
NAMED = Cluster(name="ci", slurm_name="ci", bin=Path("/opt/slurm/bin"))
REQUEST = SlurmRequest("lossi-01abc", Path("/p/j/script.sh"), Path("/p/j"), Path("/p/j/scheduler.log"))
READERS: dict[str, Command[object]] = {
    "squeue": squeue.Squeue(),
    "sacct": sacct.Sacct("tester1", ("1",)),
    "sacct-names": sacct.SacctNames("tester1", "2026-01-01T00:00:00"),
    "sinfo": sinfo.Sinfo(),
    "scontrol-partitions": scontrol.ShowPartitions(),
    "scontrol-config": scontrol.ShowConfig(),
    "sacctmgr-associations": sacctmgr.ShowAssociations("tester1"),
    "sacctmgr-qos": sacctmgr.ShowQos(),
}


def text_of(name: str, version: str = "22.05") -> str:
    return (RECORDED / version / f"{name}.txt").read_bytes().decode()


def queue(name: str = "squeue") -> list[QueueRow]:
    return squeue.Squeue().parse(text_of(name))


def accounting(name: str = "sacct") -> list[AccountingRow]:
    return sacct.Sacct("tester1", ("1",)).parse(text_of(name))


def one(name: str, rows: list[QueueRow]) -> QueueRow:
    (row,) = [row for row in rows if row.name == name]
    return row


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_every_version_printed_can_be_read(version: str, name: str) -> None:
    assert READERS[name].parse(text_of(name, version))


def test_a_pending_array_is_one_record_with_its_tasks() -> None:
    row = one("holes", queue())
    assert row.tasks is not None
    tasks = [task for span in row.tasks for task in span]
    assert tasks[:9] == [1, 3, 5, 6, 7, 8, 9, 20, 25]
    assert tasks[-1] == 260
    assert (row.state, row.reason, row.eligible, row.started) == ("PENDING", "JobHeldUser", None, None)
    assert one("big", queue()).tasks == (range(10_000),)


def test_tasks_of_a_running_array_have_the_id_of_the_array() -> None:
    rows = [row for row in queue() if row.name == "arrayrun" and row.state == "RUNNING"]
    assert {row.tasks for row in rows} >= {(range(1),), (range(1, 2),), (range(2, 3),)}
    assert rows[0].node_list == "cpu01"
    assert (rows[0].started or "").endswith("Z")


def test_a_job_name_may_hold_bars_newlines_and_emoji() -> None:
    row = one('bar|new\nline 😀 "q"', queue())
    assert (row.state, row.tasks) == ("PENDING", None)


def test_gpus_that_were_asked_for_by_type() -> None:
    row = one("pergpu", queue())
    assert (row.gpus, row.gpu_type) == (1, "a100")


def test_a_requeued_job_has_a_count_and_the_time_it_may_start_again() -> None:
    row = one("requeued", queue())
    assert (row.state, row.reason, row.restarts) == ("PENDING", "BeginTime", 1)
    assert row.eligible is not None


def test_ended_jobs_have_their_exit_code_or_signal() -> None:
    rows = queue("squeue-all")
    ended = {row.name: (row.state, row.exit_code, row.signal) for row in rows if row.name in {"finished", "fail42", "kill9"}}
    assert ended["finished"] == ("COMPLETED", 0, None)
    assert ended["fail42"] == ("FAILED", 42, None)
    assert ended["kill9"] == ("FAILED", None, 9)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_output_that_was_cut_off_is_refused_or_loses_whole_rows_only(name: str, data: st.DataObject) -> None:
    text, command = text_of(name), READERS[name]
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        rows = command.parse(cut)
    except Unreadable:
        return
    whole = command.parse(text)
    assert isinstance(rows, list), f"half of {name} was taken for all of it"
    assert isinstance(whole, list)
    if name == "sacct" and rows:  # the steps of the last job may be missing
        rows, whole = rows[:-1], whole[: len(rows) - 1]
    assert rows == whole[: len(rows)]


@given(st.text())
def test_text_of_anything_else_is_refused_or_empty(text: str) -> None:
    for command in READERS.values():
        try:
            assert not command.parse(text)
        except Unreadable:
            continue


def test_the_attempts_of_a_requeued_job_are_counted() -> None:
    rows = [row for row in accounting() if row.name == "requeued"]
    assert [(row.state, row.restarts) for row in rows] == [("REQUEUED", 0), ("PENDING", 1)]


def test_steps_are_folded_as_seff_does() -> None:
    (row,) = [row for row in accounting() if row.name == "multi"]
    # sacct: MaxRSS of the step 38371328 bytes in 4 tasks, of the batch step 11456512 in 1; TotalCPU 00:00.107
    assert row.max_rss_mb == pytest.approx(38371328 * 4 / 2**20)
    assert (row.cpu_s, row.nodes, row.node_list, row.cpus, row.memory_mb) == (pytest.approx(0.107), 2, "cpu[01-02]", 8, 2000)
    assert (row.state, row.exit_code, row.elapsed_s, row.time_limit_s, row.billing, row.energy_j) == (
        "COMPLETED",
        0,
        6,
        600,
        8,
        None,
    )


def test_what_the_database_says_of_ends() -> None:
    rows = {row.name: row for row in accounting()}
    assert (rows["fail42"].state, rows["fail42"].exit_code) == ("FAILED", 42)
    assert (rows["memory"].state, rows["memory"].exit_code, rows["memory"].signal) == ("FAILED", None, 9)
    assert (rows["memory"].max_rss_mb or 0) > (rows["memory"].memory_mb or 0) == 50
    assert (rows["cancelledarray"].state, rows["cancelledarray"].cancelled_by) == ("CANCELLED", 1001)
    assert (rows["gpu"].gpus, rows["gpu"].partition) == (2, "gpu")


def test_array_tasks_that_never_started_are_one_row() -> None:
    (row,) = [row for row in accounting() if row.name == "holes"]
    assert row.task is None
    assert row.tasks[:2] == (range(1, 2), range(3, 4))
    assert (row.cpus, row.nodes, row.started) == (None, None, None)
    running = [row.task for row in accounting() if row.name == "arrayrun" and row.state == "RUNNING"]
    assert running == [0, 1, 2]


def test_how_jobs_ended_that_were_stopped() -> None:
    rows = accounting("sacct-ended")
    (limited,) = [row for row in rows if row.name == "limited"]
    assert (limited.state, limited.elapsed_s, limited.time_limit_s, limited.cancelled_by) == ("TIMEOUT", 83, 60, None)
    array = {row.task: row for row in rows if row.name == "arrayrun"}
    assert {row.state for row in array.values()} == {"CANCELLED"}
    assert (array[0].started is None, array[None].started, array[None].tasks) == (False, None, (range(3, 10),))
    assert [row.restarts for row in rows if row.name == "requeued"] == [0, 1]
    # An array that is cancelled before the database heard of its tasks does not name them.
    (early,) = [row for row in rows if row.name == "cancelledarray"]
    assert (early.state, early.task, early.tasks) == ("CANCELLED", None, ())


def test_rows_of_another_user_are_dropped_with_their_steps() -> None:
    assert sacct.Sacct("tester2", ("1",)).parse(text_of("sacct")) == []


def test_a_refused_submission_is_not_taken_for_a_job() -> None:
    record = f"81{UNIT}tester1{UNIT}FAILED{UNIT}None assigned{UNIT}lossi-01abc{UNIT}\n"
    assert sacct.SacctNames("tester1", "2026-01-01").parse(record) == []


def test_names_of_arrays_are_told_once() -> None:
    names = sacct.SacctNames("tester1", "2026-01-01").parse(text_of("sacct-names"))
    assert len({job for job, _ in names}) == len(names)
    assert (83, "lossi-01abd") in names


def test_nodes_that_are_alike_are_one_group() -> None:
    groups = sinfo.Sinfo().parse(text_of("sinfo"))
    assert NodeGroup("gpu", 2, 16, 64000, {"a100": 4}, ("gpu", "a100"), "idle") in groups
    down = sinfo.Sinfo().parse(UNIT.join(["gpu", "1", "8", "1000", "gpu:a100:4(S:0-1),gpu:h100:1", "(null)", "down*", "\n"]))
    assert down == [NodeGroup("gpu", 1, 8, 1000, {"a100": 4, "h100": 1}, (), "down")]


def test_the_configuration() -> None:
    configuration = scontrol.ShowConfig().parse(text_of("scontrol-config"))
    assert (configuration.version, configuration.cluster, configuration.max_array_size, configuration.max_job_count) == (
        "22.05.8",
        "ci",
        20001,
        50000,
    )
    assert (configuration.min_job_age_s, configuration.accounting, configuration.gpus, configuration.requeue) == (
        600,
        True,
        True,
        True,
    )
    assert configuration.enforced == ("associations", "limits", "qos")
    assert configuration.preemption == ""
    assert configuration.parameters["bf_interval"] == "2"


def test_partitions_and_their_limits() -> None:
    small, gpu = scontrol.ShowPartitions().parse(text_of("scontrol-partitions"))
    assert (small.name, small.default, small.max_time_s, small.default_time_s, small.total_nodes) == (
        "small",
        True,
        86400,
        600,
        2,
    )
    assert (gpu.default, gpu.max_nodes, gpu.default_memory_per_cpu_mb, gpu.allowed_accounts, gpu.qos) == (
        False,
        None,
        1000,
        (),
        "",
    )
    strict = (
        text_of("scontrol-partitions")
        .splitlines()[0]
        .replace("AllowAccounts=ALL", "AllowAccounts=a,b")
        .replace("QoS=N/A", "QoS=part")
    )
    strict = strict.replace("MaxNodes=UNLIMITED", "MaxNodes=4").replace("MaxMemPerNode=UNLIMITED", "MaxMemPerNode=32000")
    (row,) = scontrol.ShowPartitions().parse(f"{strict}\n")
    assert (row.allowed_accounts, row.qos, row.max_nodes, row.max_memory_per_node_mb) == (("a", "b"), "part", 4, 32000)


def test_associations_say_which_account_is_the_default() -> None:
    rows = sacctmgr.ShowAssociations("tester1").parse(text_of("sacctmgr-associations"))
    assert [(row.account, row.is_default, row.qos) for row in rows] == [
        ("proj1", True, ("normal",)),
        ("proj2", False, ("normal",)),
    ]
    assert sacctmgr.ShowAssociations("tester2").parse(text_of("sacctmgr-associations")) == []


def test_limits_of_a_quality_of_service() -> None:
    values = {
        "Name": "long",
        "Flags": "DenyOnLimit,OverPartQOS",
        "GrpTRES": "cpu=100,gres/gpu=8,mem=1T",
        "MaxJobsPU": "5",
        "MaxSubmitPU": "50",
        "MaxTRES": "node=2",
        "MaxTRESPU": "gres/gpu=4",
        "MinTRES": "gres/gpu=1",
        "MaxWall": "3-00:00:00",
        "GrpTRESMins": "cpu=6000",
    }
    (qos,) = sacctmgr.ShowQos().parse("".join(f"{values.get(name, '')}|" for name in sacctmgr.QOS_FIELDS) + "\n")
    limits = qos.limits
    assert (qos.name, qos.flags, limits.max_wall_s, limits.max_jobs, limits.max_submit) == (
        "long",
        ("DenyOnLimit", "OverPartQOS"),
        259200,
        5,
        50,
    )
    assert limits.group_tres == {"cpu": 100, "gres/gpu": 8, "mem": 2**20}
    assert (limits.max_tres_per_job, limits.max_tres, limits.min_tres_per_job) == ({"node": 2}, {"gres/gpu": 4}, {"gres/gpu": 1})
    assert (limits.group_tres_minutes, limits.max_tres_minutes_per_job, limits.group_jobs) == ({"cpu": 6000}, {}, None)


def test_the_argv_of_each_command_names_the_cluster_and_the_binary() -> None:
    assert squeue.Squeue().argv(CI)[:5] == ["squeue", "--me", "--local", "--noheader", "--noconvert"]
    assert squeue.Squeue(ended=True).argv(NAMED)[:2] == ["/opt/slurm/bin/squeue", "--clusters=ci"]
    assert "--states=all" in squeue.Squeue(ended=True).argv(CI)
    assert scancel.Scancel(("1", "2_[3]")).argv(NAMED) == ["/opt/slurm/bin/scancel", "--clusters=ci", "1", "2_[3]"]
    argv = sacct.Sacct("me", ("1", "2_3"), since="2026-11-26T05:00:00.123Z").argv(CI)
    assert argv[-2:] == ["--starttime=2026-11-26T05:00:00", "--jobs=1,2_3"]
    assert "--user=me" in argv
    assert "cluster=ci" in sacctmgr.ShowAssociations("me").argv(NAMED)


def test_output_for_a_named_cluster_begins_with_its_name() -> None:
    assert squeue.Squeue().parse(f"CLUSTER: ci\n{text_of('squeue')}") == queue()
    assert sinfo.Sinfo().parse(f"CLUSTER: ci\n{text_of('sinfo')}") == sinfo.Sinfo().parse(text_of("sinfo"))


def test_what_to_cancel_is_said_in_spans() -> None:
    assert scancel.words_of({123: [1, 5, 6, 7, 8, 9], 124: None, 125: []}) == [["123_[1,5-9]", "124"]]
    many = scancel.words_of({7: range(0, 100_000, 2)})
    assert max(len(word) for words in many for word in words) < 2**17
    assert len([word for words in many for word in words]) > 1


def test_what_to_ask_the_database_for_keeps_within_argv() -> None:
    assert sacct.words_of({1: None, 2: [0, 7]}) == [["1", "2_0", "2_7"]]
    assert sacct.words_of({1: list(range(5000))}) == [["1"]]
    questions = sacct.words_of(dict.fromkeys(range(1_000_000, 1_020_000)))
    assert sum(map(len, questions)) == 20_000
    assert all(len(",".join(words)) <= 60_000 for words in questions)


@given(st.lists(st.from_regex(r"[0-9]{1,7}", fullmatch=True)), st.integers(8, 40))
def test_words_are_kept_in_order_and_within_the_limit(words: list[str], most: int) -> None:
    chunks = words_within(words, most)
    assert [word for part in chunks for word in part] == words
    assert all(len(",".join(part)) <= most for part in chunks)


def test_sbatch_gets_paths_with_percent_signs_escaped() -> None:
    request = replace(REQUEST, output=Path("/p/50% %j/log"), directory=Path("/p/50% %j"))
    argv = sbatch.Sbatch(request).argv(NAMED)
    assert argv[:3] == ["/opt/slurm/bin/sbatch", "--parsable", "--clusters=ci"]
    assert argv[-3:] == ["--chdir=/p/50% %j", "--output=/p/50%% %%j/log", "/p/j/script.sh"]


@pytest.mark.parametrize("path", ["/p/a\\b", "/p/a\nb"])
def test_a_folder_that_sbatch_cannot_take_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="this folder"):
        sbatch.Sbatch(replace(REQUEST, directory=Path(path))).argv(CI)


@pytest.mark.parametrize(("text", "job"), [("67\n", 67), ("67;ci\n", 67), ("Charged to proj1\n67\n", 67)])
def test_the_id_of_a_submission(text: str, job: int) -> None:
    assert sbatch.Sbatch(REQUEST).parse(text) == job


@pytest.mark.parametrize("text", ["", "67", "hello 67\n", "67;c", "Submitted batch job 67\n"])
def test_an_id_that_was_cut_off_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        sbatch.Sbatch(REQUEST).parse(text)


def test_when_a_job_would_start() -> None:
    output = "sbatch: Job 68 to start at 2026-11-26T06:03:00 using 1 processors on nodes cpu01 in partition small\n"
    start, sentence = sbatch.SbatchTest(REQUEST).parse(output)
    assert start == "2026-11-26T06:03:00Z"
    assert sentence == "Job 68 to start at 2026-11-26T06:03:00 using 1 processors on nodes cpu01 in partition small"
    with pytest.raises(Unreadable):
        sbatch.SbatchTest(REQUEST).parse("sbatch: something else\n")
