"""The client of slurmrestd with recorded answers of 22.05.8 (v0.0.38) and 24.11.5 (v0.0.42).

The jobs on that cluster: an array whose tasks 1 and 2 failed with 42 and by signal 9 (lossi-A), one that waits for a running job
(lossi-C, lossi-D), one held (lossi-H), requeued (lossi-E), cancelled by root (lossi-F), and one of another user.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from recorded_slurmrestd import API, SLASH, Asked, Served, recorded, replay

from lossi.errors import InvalidInput, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm.records import AccountingRow, NodeGroup
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import RestClient, versions


def by_name(found: list[AccountingRow], name: str) -> list[AccountingRow]:
    return sorted((row for row in found if row.name == name), key=lambda row: (row.task or 0, row.submitted or ""))


def test_newest_version_that_both_know_is_agreed_upon_once(
    server: Served, client: Callable[..., RestClient], release: str
) -> None:
    client().partitions()
    client().partitions()
    pings = [request.target for request in server.asked if "ping" in request.target]
    assert pings[-1].startswith(f"/slurm/{API[release]}/ping")
    assert len(pings) == {"22.05": len(versions.VERSIONS), "24.11": 1}[release]


def test_queue_has_what_is_active_and_nothing_of_others(client: Callable[..., RestClient]) -> None:
    rows = {row.name: row for row in client().queue()}
    assert set(rows) == {"lossi-C", "lossi-D", "lossi-E", "lossi-H"}
    assert rows["lossi-D"].state == "RUNNING" and rows["lossi-D"].tasks is None and rows["lossi-D"].account == "proj2"
    waiting = rows["lossi-C"]
    assert (waiting.state, waiting.reason, waiting.tasks) == ("PENDING", "Dependency", (range(3), range(5, 10)))
    assert waiting.started is waiting.ended is waiting.eligible is waiting.exit_code is None
    assert waiting.submitted == "2026-11-26T06:13:34Z" and waiting.time_limit_s == 1800
    assert rows["lossi-H"].tasks == (range(0, 118, 3),)
    assert (rows["lossi-E"].state, rows["lossi-E"].restarts) == ("PENDING", 1)


def test_each_user_sees_only_own_jobs(client: Callable[..., RestClient]) -> None:
    assert [row.name for row in client(1002).queue(ended=True)] == ["other"]
    assert client(1003).queue(ended=True) == []


def test_ended_tasks_in_the_queue_have_their_exit_codes(client: Callable[..., RestClient]) -> None:
    rows = sorted((row for row in client().queue(ended=True) if row.name == "lossi-A"), key=lambda row: row.tasks[0].start)
    assert [row.tasks for row in rows] == [(range(n, n + 1),) for n in range(4)]
    assert len({row.job_id for row in rows}) == 1, "the array's id, not that of each task"
    assert [(row.state, row.exit_code, row.signal) for row in rows] == [
        ("COMPLETED", 0, None),
        ("FAILED", 42, None),
        ("FAILED", None, 9),
        ("COMPLETED", 0, None),
    ]
    assert {(row.gpus, row.gpu_type, row.cpus, row.nodes) for row in rows} == {(2, "a100", 2, 1)}


def test_attempts_agree_with_sacct(client: Callable[..., RestClient], release: str) -> None:
    """`sacct -D --units=K` said: TotalCPU 00:00.552, MaxRSS 43320K and 12412K of 22.05's task 0; 00:00.501, 43600K and 12912K of 24.11's."""
    rest_client = client()
    ids = {row.job_id for row in rest_client.queue(ended=True)}
    rows = rest_client.accounting(dict.fromkeys(ids))
    tasks = by_name(rows, "lossi-A")
    assert [(row.task, row.state, row.exit_code, row.signal) for row in tasks] == [
        (0, "COMPLETED", 0, None),
        (1, "FAILED", 42, None),
        (2, "FAILED", None, 9),
        (3, "COMPLETED", 0, None),
    ]
    first = tasks[0]
    cpu_s, rss_kb = {"22.05": (0.552, 43320), "24.11": (0.501, 43600)}[release]
    assert first.cpu_s == pytest.approx(cpu_s, abs=0.001)
    assert first.max_rss_mb == pytest.approx(rss_kb / 1024)
    assert (first.elapsed_s, first.cpus, first.memory_mb, first.gpus, first.billing) == (10.0, 2, 500.0, 2, 2.0)
    assert (first.started, first.ended) == ("2026-11-26T06:13:34Z", "2026-11-26T06:13:44Z")
    assert (first.cluster, first.partition, first.account, first.qos) == ("ci", "gpu", "proj1", "normal")


@pytest.mark.parametrize("release", ["22.05"])  # whose database says SUCCESS of a task that ended with 42
def test_exit_code_that_the_queue_has_forgotten_is_not_known(server: Served, client: Callable[..., RestClient]) -> None:
    rest_client = client()
    job_id = next(row.job_id for row in rest_client.queue(ended=True) if row.name == "lossi-A")
    usual = server.answerer
    server.answerer = lambda asked: (200, b'{"jobs": []}') if asked.target.startswith("/slurm/v0.0.38/jobs") else usual(asked)
    assert [row.exit_code for row in by_name(rest_client.accounting({job_id: None}), "lossi-A")] == [0, None, None, 0]


def test_requeued_job_has_all_its_attempts(client: Callable[..., RestClient]) -> None:
    rest_client = client()
    attempts = by_name(rest_client.accounting(dict.fromkeys(row.job_id for row in rest_client.queue(ended=True))), "lossi-E")
    assert [row.state for row in attempts] == ["REQUEUED", "PENDING"]
    assert attempts[0].started and attempts[0].ended and attempts[0].elapsed_s in (1.0, 2.0)
    assert attempts[1].started is attempts[1].ended is attempts[1].nodes is attempts[1].exit_code is None


def test_who_cancelled_it_is_known(client: Callable[..., RestClient]) -> None:
    rest_client = client()
    (row,) = by_name(rest_client.accounting(dict.fromkeys(row.job_id for row in rest_client.queue(ended=True))), "lossi-F")
    assert (row.state, row.cancelled_by) == ("CANCELLED", 0)


def test_array_that_never_started_is_one_row(client: Callable[..., RestClient]) -> None:
    rest_client = client()
    (row,) = by_name(rest_client.accounting(dict.fromkeys(row.job_id for row in rest_client.queue())), "lossi-C")
    assert (row.state, row.task, row.tasks, row.started) == ("PENDING", None, (range(3), range(5, 10)), None)


def test_only_tasks_that_were_asked_for_come(server: Served, client: Callable[..., RestClient], release: str) -> None:
    rest_client = client()
    job_id = next(row.job_id for row in rest_client.queue(ended=True) if row.name == "lossi-A")
    assert sorted(row.task for row in rest_client.accounting({job_id: [1, 3]})) == [1, 3]
    expected = {"22.05": f"step={job_id}_1%2C{job_id}_3", "24.11": f"step={job_id}_1&step={job_id}_3&show_duplicates=true"}
    (target,) = (request.target for request in server.asked if request.target.startswith(f"/slurmdb/{API[release]}/jobs"))
    assert target.endswith(f"/jobs{SLASH[release]}?{expected[release]}&cluster=ci")


def test_attempts_that_ended_before_are_left_out(client: Callable[..., RestClient]) -> None:
    rest_client = client()
    ids = dict.fromkeys(row.job_id for row in rest_client.queue(ended=True))
    assert {row.name for row in rest_client.accounting(ids, since="2026-11-26T06:13:40Z")} == {
        "lossi-A",
        "lossi-C",
        "lossi-E",
        "lossi-H",
    }


def test_nothing_found_is_no_error(client: Callable[..., RestClient]) -> None:
    assert client().accounting({987654: None}) == []
    assert client().accounting({}) == []


def test_attempts_of_others_are_left_out(client: Callable[..., RestClient]) -> None:
    ids = dict.fromkeys(range(100))
    assert {row.name for row in client().accounting(ids)} == {"lossi-A", "lossi-C", "lossi-E", "lossi-F", "lossi-H"}
    assert {row.name for row in client(1002).accounting(ids)} == {"other"}


def test_jobs_are_found_by_the_beginning_of_their_name(client: Callable[..., RestClient]) -> None:
    rest_client = client()
    named = {row.name: row.job_id for row in rest_client.queue(ended=True)}
    assert rest_client.named("lossi-A", "2026-11-26T06:00:00Z") == [(named["lossi-A"], "lossi-A")]
    assert {name for _, name in rest_client.named("lossi-", "2026-11-26T06:00:00Z")} == set(named)
    assert rest_client.named("other", "2026-11-26T06:00:00Z") == []


def test_submission_is_a_job_id_whatever_else_is_said(
    server: Served, client: Callable[..., RestClient], asked: SlurmRequest, release: str
) -> None:
    """Of a held job 24.11 says in warnings that its return code was not zero."""
    assert client().submit(asked) == recorded(release, "held")["document"]["job_id"]
    assert server.asked[-1].body["script"] == "#!/bin/sh\necho ä\n"


def test_everything_that_is_asked_for_is_put_into_words_of_the_version(
    server: Served, client: Callable[..., RestClient], asked: SlurmRequest, release: str
) -> None:
    full = replace(
        asked,
        nodes=2,
        cpus=4,
        memory_mb=300,
        gpus=2,
        gpu_type="a100",
        time_limit_min=5,
        partition="gpu",
        account="proj1",
        qos="normal",
        constraint="a100",
        array=range(10),
        throttle=3,
        signal_s=60,
        dependency="afterok:7",
        environment={"LOSSI_MODE": "fast"},
        options=("--reservation=course",),
    )
    client().submit(full)
    common = {
        "name": "lossi-A",
        "current_working_directory": str(asked.directory),
        "standard_output": str(asked.output),
        "standard_input": "/dev/null",
        "tasks": 2,
        "tasks_per_node": 1,
        "cpus_per_task": 4,
        "partition": "gpu",
        "account": "proj1",
        "qos": "normal",
        "constraints": "a100",
        "array": "0-9%3",
        "dependency": "afterok:7",
        "requeue": True,
        "reservation": "course",
    }
    own = {
        "22.05": {
            "nodes": [2, 2],
            "environment": {"SLURM_EXPORT_ENV": "NONE", "SLURM_GET_USER_ENV": "1", "LOSSI_MODE": "fast"},
            "open_mode": "append",
            "memory_per_node": 300,
            "time_limit": 5,
            "gres": "gpu:a100:2",
            "kill_on_invalid_dependency": True,
        },
        "24.11": {
            "minimum_nodes": 2,
            "maximum_nodes": 2,
            "environment": ["SLURM_EXPORT_ENV=NONE", "SLURM_GET_USER_ENV=1", "LOSSI_MODE=fast"],
            "open_mode": ["APPEND"],
            "memory_per_node": {"set": True, "infinite": False, "number": 300},
            "time_limit": {"set": True, "infinite": False, "number": 5},
            "tres_per_node": "gres/gpu:a100:2",
            "flags": ["KILL_INVALID_DEPENDENCY"],
            "kill_warning_flags": ["BATCH_JOB"],
            "kill_warning_signal": "USR1",
            "kill_warning_delay": {"set": True, "infinite": False, "number": 60},
        },
    }
    assert server.asked[-1].body["job"] == {**common, **own[release]}


def test_preview_shows_the_request_without_asking(server: Served, client: Callable[..., RestClient], asked: SlurmRequest) -> None:
    method, place, body = client().arguments(asked)
    assert method == "POST" and place.startswith(f"{server.url}/slurm/v0.0.") and f'"@{asked.script}"' in body
    assert server.asked == []


def test_site_option_that_cannot_be_said_is_named(client: Callable[..., RestClient], asked: SlurmRequest) -> None:
    with pytest.raises(NotSupported, match="--hint=nomultithread, --exclusive"):
        client().arguments(replace(asked, options=("--hint=nomultithread", "--exclusive", "--licenses=a")))


@pytest.mark.parametrize(
    ("name", "word"), [("refused_partition", "Invalid partition name"), ("not_understood", "Invalid SIGNAL|Expected OpenAPI")]
)
def test_refusal_comes_with_slurms_words(
    server: Served, client: Callable[..., RestClient], asked: SlurmRequest, release: str, name: str, word: str
) -> None:
    rest_client = client()
    rest_client.partitions()
    server.answerer = replay(release, {"POST ": name})
    with pytest.raises(InvalidInput, match=word):
        rest_client.submit(asked)


def test_cancelling_what_has_ended_is_no_error(server: Served, client: Callable[..., RestClient], release: str) -> None:
    rest_client = client()
    rest_client.cancel({7: [0, 1, 2, 5], 8: None, 9: []})
    sent = [(request.method, request.target, request.body) for request in server.asked if request.method == "DELETE"]
    assert (
        sent
        == {
            "22.05": [("DELETE", "/slurm/v0.0.38/job/7_%5B0-2%2C5%5D", None), ("DELETE", "/slurm/v0.0.38/job/8", None)],
            "24.11": [("DELETE", "/slurm/v0.0.42/jobs/", {"jobs": ["7_[0-2,5]", "8"]})],
        }[release]
    )
    server.answerer = replay(release, {"DELETE ": "cancel_unknown"})
    rest_client.cancel({987654: None})


def test_refused_cancel_is_an_error(server: Served, client: Callable[..., RestClient]) -> None:
    rest_client = client()
    rest_client.partitions()
    refused = b'{"errors": [{"error_number": 2002, "error": "Access/permission denied"}], "status": []}'
    server.answerer = lambda asked: (500, refused)
    with pytest.raises(Exception, match="Access/permission denied"):
        rest_client.cancel({7: None})


def test_partitions(client: Callable[..., RestClient], release: str) -> None:
    small, gpu = client().partitions()
    assert (small.name, gpu.name, gpu.state, gpu.total_nodes) == ("small", "gpu", "UP", 2)
    assert (gpu.max_time_s, gpu.default_time_s, gpu.default_memory_per_cpu_mb) == (86400, 600, 1000)
    assert gpu.max_nodes is gpu.min_nodes is gpu.max_cpus_per_node is gpu.max_memory_per_node_mb is None
    assert gpu.allowed_accounts == gpu.denied_qos == ()
    assert small.default is (release == "22.05"), "later versions do not say which is the default one"


def test_nodes_that_are_alike_are_counted(client: Callable[..., RestClient]) -> None:
    total: dict[str, int] = {}
    for group in client().nodes():
        total[group.partition] = total.get(group.partition, 0) + group.nodes
        assert (group.cpus, group.memory_mb) == (16, 64000)
        assert isinstance(group, NodeGroup) and group.gpus == ({"a100": 4} if group.partition == "gpu" else {})
    assert total == {"small": 2, "gpu": 2}


def test_limits_of_an_association_are_read_as_they_were_set(client: Callable[..., RestClient]) -> None:
    first, second = sorted(client().associations(), key=lambda one: one.account)
    assert (first.account, first.is_default, first.limits.max_wall_s, first.limits.max_jobs) == ("proj1", True, None, None)
    assert (second.account, second.is_default, second.qos) == ("proj2", False, ("normal", "tight"))
    limits = second.limits
    assert (limits.max_wall_s, limits.max_jobs, limits.max_submit) == (101 * 60, 102, 103)
    assert limits.max_tres_per_job == {"cpu": 104, "mem": 1024} and limits.max_tres_per_node == {"cpu": 105}
    assert limits.group_tres == {"cpu": 106, "gres/gpu": 6} and limits.max_tres == {}
    assert (limits.group_jobs, limits.group_submit) == (107, 108)
    assert (limits.group_tres_minutes, limits.max_tres_minutes_per_job) == ({"cpu": 110}, {"cpu": 111})


def test_limits_of_a_quality_of_service_are_read_as_they_were_set(client: Callable[..., RestClient], release: str) -> None:
    levels = {qos.name: qos for qos in client().qos()}
    assert set(levels) == {"normal", "tight"} and levels["tight"].flags == ("DenyOnLimit",)
    limits = levels["tight"].limits
    assert (limits.max_wall_s, limits.max_jobs, limits.max_submit) == (201 * 60, 202, 203)
    assert limits.max_tres_per_job == {"cpu": 204, "mem": 2048} and limits.max_tres_per_node == {"cpu": 205}
    assert limits.max_tres == {"cpu": 206, "gres/gpu": 2} and limits.group_tres == {"cpu": 207}
    assert limits.min_tres_per_job == {"cpu": 2} and limits.max_tres_minutes_per_job == {"cpu": 212}
    assert limits.group_jobs == 208
    later = (209, {"cpu": 211}) if release == "24.11" else (None, {})
    assert (limits.group_submit, limits.group_tres_minutes) == later


def test_configuration_is_what_can_be_known(client: Callable[..., RestClient], release: str) -> None:
    configuration = client().configuration()
    assert configuration.version == {"22.05": "22.05.8", "24.11": "24.11.5"}[release]
    assert (configuration.cluster, configuration.accounting, configuration.gpus, configuration.max_array_size) == (
        "ci",
        True,
        True,
        None,
    )


def test_site_whose_slurmrestd_serves_no_database(server: Served, client: Callable[..., RestClient], release: str) -> None:
    start = f"/slurm/{API[release]}/"
    server.answerer = replay(release, {f"GET {start}{name}": name for name in ("ping", "nodes", "jobs")})
    rest_client = client()
    assert rest_client.configuration().accounting is False
    assert rest_client.associations() == [] and rest_client.qos() == []
    assert [name for _, name in rest_client.named("lossi-D", "2026-11-26T06:00:00Z")] == ["lossi-D"]


@pytest.mark.parametrize("release", ["22.05"])  # later versions say their own name
def test_one_of_several_clusters_in_a_database_must_be_named(
    server: Served, client: Callable[..., RestClient], release: str
) -> None:
    two = recorded(release, "clusters")["document"]
    two["clusters"] = [two["clusters"][0], {**two["clusters"][0], "name": "other"}]
    usual = server.answerer

    def answer(asked: Asked) -> tuple[int, bytes]:
        return (200, json.dumps(two).encode()) if "clusters" in asked.target else usual(asked)

    server.answerer = answer
    with pytest.raises(InvalidInput, match="several clusters"):
        client().accounting({1: None})
    client(slurm_name="ci").accounting({1: None})
    assert server.asked[-1].target.endswith("cluster=ci")


def test_start_of_a_job_that_is_not_submitted_is_not_said(client: Callable[..., RestClient], asked: SlurmRequest) -> None:
    with pytest.raises(NotSupported):
        client().expected_start(asked)


def test_server_that_was_exchanged_is_asked_again(server: Served, client: Callable[..., RestClient], release: str) -> None:
    rest_client = client()
    rest_client.partitions()
    usual = server.answerer
    server.answerer = lambda asked: (404, b"Unable find requested URL.")
    with pytest.raises(Unavailable):
        rest_client.partitions()
    server.answerer = usual
    assert rest_client.partitions()
