"""``lossi clusters``, ``lossi doctor`` and the REST operations on clusters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from lossi import clusters
from lossi.cli import main
from lossi.cli.doctor import Finding, clusters as doctor_clusters
from lossi.errors import Unavailable
from lossi.jobs.schedulers.slurm import client as slurm_client, doctor as slurm_doctor
from lossi.jobs.schedulers.slurm.records import Association, Configuration, NodeGroup, PartitionRow

Write = Callable[..., Path]

SITE = """
    default_cluster: mahti
    clusters:
      mahti:
        title: Mahti
        bin: /opt/very-own/bin
        setup: [export SECRET=1]
        login_host: mahti.example.org
        account: {required: true, pattern: 'proj\\d'}
        default_partition: small
        partitions:
          - {name: small, max_time: "3-00:00:00"}
          - {name: gpu, gpu_types: [{name: a100}], max_nodes: 2}
      other: {}
      quiet: {hidden: true}
      wrong: {bin: x}
"""


def lossi(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_list_shows_clusters_and_problems(site: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = site(SITE)
    code, out, err = lossi(capsys, "clusters", "list")
    assert code == 0 and "mahti (default)" in out and "small, gpu" in out and "a100" in out and "quiet" not in out
    assert f"ignored: {file}:16: clusters.wrong.bin: must be an absolute path" in err
    data = json.loads(lossi(capsys, "clusters", "list", "--json")[1])
    assert [(item["name"], item["default"]) for item in data["clusters"]] == [("mahti", True), ("other", False)]
    assert data["clusters"][0]["gpu_types"] == {"a100": ["gpu"]}
    assert "SECRET" not in json.dumps(data) and "very-own" not in json.dumps(data)


def test_list_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No cluster is configured" in lossi(capsys, "clusters", "list")[1]


def test_show_names_limits_and_accounts(site: Write, capsys: pytest.CaptureFixture[str]) -> None:
    site(SITE)
    code, out, _ = lossi(capsys, "clusters", "show", "mahti")
    assert code == 0 and "small (default)" in out and "3-00:00:00" in out
    assert "account: required; must match proj" in out
    assert json.loads(lossi(capsys, "clusters", "show", "quiet", "--json")[1])["name"] == "quiet"
    code, _, err = lossi(capsys, "clusters", "show", "mathi")
    assert (code, "did you mean 'mahti'?" in err) == (3, True)
    assert lossi(capsys, "clusters", "show", "wrong")[0] == 2


def test_export_is_a_site_file(site: Write, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site(SITE)
    before = clusters.load()
    code, out, err = lossi(capsys, "doctor", "--export-clusters")
    assert code == 0 and "clusters.wrong.bin" in err
    site("")
    (home / "no-site.yml").write_text(out)
    after = clusters.load()
    assert (after.clusters, after.default_name, after.problems) == (before.clusters, "mahti", ())


@pytest.fixture
def client(home: Path) -> Iterator[FlaskClient]:
    from lossi.api import security
    from lossi.app import create_app

    with create_app(security.AuthMode(secret="s" * 32, token="t" * 43)).test_client() as client:
        client.environ_base.update({"HTTP_AUTHORIZATION": f"Bearer {'t' * 43}", "HTTP_HOST": "127.0.0.1:8477"})
        yield client


def test_the_api_lists_and_shows_clusters_without_how_they_are_reached(site: Write, client: FlaskClient) -> None:
    site(SITE)
    answer = client.get("/api/v1/clusters")
    assert answer.status_code == 200
    assert [item["name"] for item in answer.json["clusters"]] == ["mahti", "other"]
    assert answer.json["problems"][0]["cluster"] == "wrong"
    assert b"SECRET" not in answer.data and b"very-own" not in answer.data
    shown = client.get("/api/v1/clusters/mahti").json
    assert shown["account"] == {"required": True, "default": None, "pattern": "proj\\d"}
    assert shown["partitions"][1]["gpu_types"][0]["name"] == "a100"
    assert client.get("/api/v1/clusters/mathi").status_code == 404
    assert client.get("/api/v1/clusters/wrong").status_code == 422


class Client:
    """A scheduler that answers what it is told to."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def configuration(self) -> Configuration:
        if "error" in self.answers:
            raise self.answers["error"]
        return self.answers.get("configuration", Configuration(version="24.11.5", accounting=True, enforced=("associations",)))

    def partitions(self) -> list[PartitionRow]:
        return self.answers.get("partitions", [PartitionRow("small"), PartitionRow("gpu")])

    def nodes(self) -> list[NodeGroup]:
        return self.answers.get("nodes", [NodeGroup("small", 2, 4, 1000), NodeGroup("gpu", 2, 4, 1000, gpus={"a100": 4})])

    def associations(self) -> list[Association]:
        return self.answers.get("associations", [Association("c", "proj1"), Association("c", "proj2")])


@pytest.fixture
def examine(site: Write, no_slurm_here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    def run(text: str = "", **answers: Any) -> list[Finding]:
        for name in (*slurm_doctor.NEEDED, *slurm_doctor.ACCOUNTING):
            if name not in answers.get("without", ()):
                (no_slurm_here / name).write_text("#!/bin/sh\n")
                (no_slurm_here / name).chmod(0o755)
        site(
            text
            or SITE.replace("bin: /opt/very-own/bin", "labels: {}")
            .replace("other: {}", "")
            .replace("quiet: {hidden: true}", "")
            .replace("wrong: {bin: x}", "")
        )
        monkeypatch.setattr(slurm_client, "of_cluster", lambda _: Client(**answers))
        return list(doctor_clusters.findings())

    return run


def levels(found: list[Finding]) -> dict[str, str]:
    return {finding.what.removeprefix("cluster mahti").removeprefix(": "): finding.level for finding in found}


def test_the_doctor_finds_nothing_wrong_with_a_good_cluster(examine: Callable[..., list[Finding]]) -> None:
    findings = examine()
    assert {finding.level for finding in findings} == {"ok"}, findings
    assert set(levels(findings)) == {"", "accounting", "partitions", "GPU types", "account"}
    assert "Slurm 24.11.5 answers in" in findings[0].detail


@pytest.mark.parametrize(
    ("answers", "what", "level", "words"),
    [
        ({"configuration": Configuration(version="19.05.2")}, "", "warning", "19.05.2"),
        ({"configuration": Configuration(version="28.05.1")}, "", "warning", "28.05.1"),
        ({"configuration": Configuration(version="22.05.8")}, "accounting", "ok", "exit records"),
        ({"without": ("sacct",)}, "accounting", "warning", "sacct not found"),
        ({"without": ("sbatch",)}, "", "error", "sbatch not found"),
        ({"partitions": [PartitionRow("small")]}, "partitions", "error", "the scheduler has no gpu"),
        ({"partitions": [PartitionRow("small", state="DOWN"), PartitionRow("gpu")]}, "partitions", "warning", "not up: small"),
        ({"nodes": [NodeGroup("gpu", 1, 1, 1, gpus={"v100": 1})]}, "GPU types", "error", "no a100 in gpu"),
        ({"associations": []}, "account", "warning", "you may not charge any account"),
        ({"associations": [Association("c", "x")]}, "account", "warning", "matches the site's pattern"),
        ({"error": Unavailable("no answer from slurmctld", hint="wait")}, "", "error", "no answer"),
    ],
)
def test_the_doctor_finds_problems_with_hints(
    examine: Callable[..., list[Finding]], answers: dict[str, Any], what: str, level: str, words: str
) -> None:
    finding = next(item for item in examine(**answers) if item.what.removeprefix("cluster mahti").removeprefix(": ") == what)
    assert (finding.level, words in finding.detail) == (level, True), finding
    assert finding.remedy or level == "ok"


def test_a_cluster_that_does_not_answer_does_not_hide_the_others(examine: Callable[..., list[Finding]]) -> None:
    findings = examine("clusters: {a: {}, b: {}, c: {bin: x}}", error=Unavailable("no answer"))
    assert [(item.what, item.level) for item in findings] == [
        ("clusters", "error"),
        ("cluster a", "error"),
        ("cluster b", "error"),
    ]


def test_the_doctor_accepts_no_clusters() -> None:
    assert [finding.level for finding in doctor_clusters.findings()] == ["ok"]
