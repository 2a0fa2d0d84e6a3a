"""Which clusters there are: OOD's folder, the site file over it, and what happens to what is not right."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from lossi import clusters
from lossi.errors import InvalidInput, NotFound

Write = Callable[..., Path]

OOD = """
    ---
    v2:
      metadata: {title: Owens}
      login: {host: owens.example.org}
      job:
        adapter: slurm
        cluster: owens
        bin: /opt/slurm/bin
        conf: /opt/slurm/etc/slurm.conf
        bin_overrides: {sbatch: /usr/local/bin/sbatch}
        submit_host: ""
        strict_host_checking: false
      batch_connect:
        basic: {script_wrapper: "module purge\\n%s"}
"""


def names() -> list[str]:
    return [cluster.name for cluster in clusters.load().clusters]


def test_without_configuration_and_sbatch_there_is_no_cluster() -> None:
    loaded = clusters.load()
    assert (loaded.clusters, loaded.problems, loaded.default) == ((), (), None)
    with pytest.raises(NotFound, match="no cluster is configured here"):
        loaded.get("x")


def test_without_configuration_sbatch_on_path_is_a_cluster(no_slurm_here: Path, site: Write, ood: Write) -> None:
    (no_slurm_here / "sbatch").write_text("#!/bin/sh\n")
    (no_slurm_here / "sbatch").chmod(0o755)
    loaded = clusters.load()
    assert [cluster.name for cluster in loaded.clusters] == ["slurm"] and loaded.default is loaded.get("slurm")
    assert not loaded.configured
    site("clusters: {mine: {}}")
    assert names() == ["mine"] and clusters.load().configured
    site("")
    ood("pbs", "v2: {job: {adapter: pbspro}}")
    assert names() == []


def test_clusters_of_ood_are_read(ood: Write) -> None:
    ood("owens", OOD)
    cluster = clusters.load().get("owens")
    assert (cluster.title, cluster.login_host, cluster.slurm_name) == ("Owens", "owens.example.org", "owens")
    assert (cluster.bin, cluster.conf) == (Path("/opt/slurm/bin"), Path("/opt/slurm/etc/slurm.conf"))
    assert (cluster.submit_host, cluster.strict_host_checking, cluster.hidden) == (None, False, False)
    assert (cluster.command("sbatch"), cluster.command("squeue")) == ("/usr/local/bin/sbatch", "/opt/slurm/bin/squeue")


def test_one_file_of_ood_can_have_all_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "all.yml"
    file.write_text("v2:\n  a: {job: {adapter: slurm}}\n  b: {metadata: {hidden: true}, job: {adapter: slurm}}\n  c: 3\n")
    monkeypatch.setenv("OOD_CLUSTERS", str(file))
    loaded = clusters.load()
    assert [(cluster.name, cluster.hidden) for cluster in loaded.clusters] == [("a", False), ("b", True)]
    assert [problem.level for problem in loaded.problems] == ["note"]
    assert loaded.default is loaded.get("a")


def test_the_site_file_adds_and_overrides_by_name(ood: Write, site: Write) -> None:
    ood("owens", OOD)
    site(
        """
        default_cluster: second
        clusters:
          owens:
            title: Owens of the site
            bin_overrides: {squeue: /site/squeue}
            partitions: [{name: gpu, gpu_types: [{name: a100}]}]
          second: {scheduler: slurm_rest, rest: {url: "http://127.0.0.1:6820", token_file: "~/.slurm-token"}}
        """
    )
    loaded = clusters.load()
    assert loaded.problems == ()
    owens = loaded.get("owens")
    assert (owens.title, owens.bin, len(owens.partitions)) == ("Owens of the site", Path("/opt/slurm/bin"), 1)
    assert owens.bin_overrides == {"sbatch": Path("/usr/local/bin/sbatch"), "squeue": Path("/site/squeue")}
    assert loaded.default is not None and loaded.default.name == "second"


def test_other_adapters_are_ignored_with_a_note(ood: Write) -> None:
    file = ood("pitzer", "v2:\n  job:\n    adapter: torque\n")
    ood("desktop", "v2: {login: {host: x}}")
    loaded = clusters.load()
    assert loaded.clusters == ()
    assert [(problem.level, problem.message) for problem in loaded.problems] == [
        ("note", "no section job: not a Slurm cluster, ignored"),
        ("note", "adapter 'torque': not a Slurm cluster, ignored"),
    ]
    assert str(loaded.problems[1]).startswith(f"{file}:3: v2.job.adapter: ")


@pytest.mark.parametrize("text", ["v2: [", "v1: {title: old}", "- x", "v2: {acls: {}, job: {adapter: slurm}}", "v2: {job: [1]}"])
def test_a_broken_file_disables_only_its_own_cluster(ood: Write, text: str) -> None:
    ood("owens", OOD)
    bad = ood("bad", text)
    loaded = clusters.load()
    assert [cluster.name for cluster in loaded.clusters] == ["owens"]
    assert [(problem.file, problem.cluster, problem.level) for problem in loaded.problems] == [(str(bad), "bad", "error")]
    with pytest.raises(InvalidInput, match="cluster 'bad' is disabled"):
        loaded.get("bad")


@pytest.mark.parametrize(
    ("acls", "there"),
    [
        ("[]", True),
        ("[{adapter: group, groups: [OWN]}]", True),
        ("[{adapter: group, groups: [OWN, other], type: whitelist}]", True),
        ("[{adapter: group, groups: [other]}]", False),
        ("[{adapter: group, groups: [other], type: blacklist}]", True),
        ("[{adapter: group, groups: [OWN, other], type: blacklist}]", False),
        ("[{adapter: group, groups: [OWN]}, {adapter: group, groups: [other]}]", False),
        ("[{adapter: group, groups: []}]", False),
        ("[{adapter: ldap, groups: [OWN]}]", False),
        ("[{adapter: group}]", False),
        ("[{adapter: group, groups: [other]}, nonsense]", False),
    ],
)
@pytest.mark.parametrize("where", ["v2: {{acls: {}, job: {{adapter: slurm}}}}", "v2: {{job: {{adapter: slurm, acls: {}}}}}"])
def test_access_lists_are_honoured_as_ood_does(
    ood: Write, site: Write, monkeypatch: pytest.MonkeyPatch, acls: str, there: bool, where: str
) -> None:
    from lossi.clusters import ondemand

    monkeypatch.setattr(ondemand, "groups_of_user", lambda: frozenset({"mine", "users"}))
    ood("closed", where.format(acls.replace("OWN", "mine")))
    # The site file cannot add a cluster back that OOD denies the user.
    site("clusters: {closed: {title: Closed}}")
    assert names() == (["closed"] if there else [])


def test_loading_for_all_includes_clusters_of_other_groups(ood: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossi.clusters import ondemand

    monkeypatch.setattr(ondemand, "groups_of_user", lambda: frozenset({"root"}))
    ood("closed", "v2: {acls: [{adapter: group, groups: [physics]}], job: {adapter: slurm}}")
    ood("unclear", "v2: {acls: [{adapter: ldap}], job: {adapter: slurm}}")
    loaded = clusters.load(for_all=True)
    assert [cluster.name for cluster in loaded.clusters] == ["closed"]
    assert [problem.cluster for problem in loaded.problems] == ["unclear"]
    assert names() == []


def test_groups_of_the_user_have_names() -> None:
    from lossi.clusters import ondemand

    assert all(ondemand.groups_of_user())


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("clusters:\n  a:\n    schedular: x\n", "3: clusters.a.schedular", "is not a known key", "did you mean 'scheduler'?"),
        (
            "clusters:\n  a:\n    partitions:\n    - {name: g,\n       max_tiem: 1}\n",
            "5: clusters.a.partitions.0.max_tiem",
            "is not a known key",
            "did you mean 'max_time'?",
        ),
        ("clusters:\n  a:\n    scheduler: pbs\n", "3: clusters.a.scheduler", "is not a known value", "choose 'slurm_cli'"),
        ("clusters:\n  a:\n    options: [-n 4]\n", "3: clusters.a.options.0", "must be a long sbatch option", ""),
        ("clusters:\n  a:\n    options: [--export=ALL]\n", "3: clusters.a.options.0", "--export is set by Lossi", ""),
        ('clusters:\n  a:\n    setup: ["module load x\\nrm y"]\n', "3: clusters.a.setup.0", "must be one line", ""),
        ("clusters:\n  a:\n    bin: slurm/bin\n", "3: clusters.a.bin", "must be an absolute path", ""),
        ("clusters:\n  a:\n    submit_host: -oProxyCommand=x\n", "3: clusters.a.submit_host", "must be a host name", ""),
        ("clusters:\n  a:\n    bin_overrides: {qsub: /x}\n", "2: clusters.a", "bin_overrides has unknown command 'qsub'", ""),
        ("clusters:\n  a:\n    scheduler: slurm_rest\n", "2: clusters.a", "needs the section rest", ""),
        ("clusters:\n  a:\n    scheduler: slurm_pyslurm\n", "2: clusters.a", "needs the section pyslurm", ""),
        ("clusters:\n  a:\n    rest: {url: 'http://x'}\n", "3: clusters.a.rest", "needs token_command or token_file", ""),
        ("clusters:\n  a:\n    rest: {}\n", "3: clusters.a.rest", "needs either url or socket", ""),
        (
            "clusters:\n  a:\n    rest: {url: 'http://user:word@x', token_file: /t}\n",
            "3: clusters.a.rest.url",
            "is not valid",
            "for example",
        ),
        ("clusters:\n  a:\n    account: {pattern: '('}\n", "3: clusters.a.account.pattern", "must be a regular expression", ""),
        (
            "clusters:\n  a:\n    account: {pattern: 'p\\d', default: x}\n",
            "3: clusters.a.account",
            "does not match the pattern",
            "",
        ),
        ("clusters:\n  a:\n    partitions: [{name: x}, {name: x}]\n", "2: clusters.a", "lists the partition 'x' twice", ""),
        (
            "clusters:\n  a:\n    partitions: [{name: x}]\n    default_partition: y\n",
            "2: clusters.a",
            "is not one of the partitions",
            "",
        ),
        (
            "clusters:\n  a:\n    partitions: [{name: x, max_time: 36:00:00}]\n",
            "3: clusters.a.partitions.0.max_time",
            "is not text",
            "quotes",
        ),
        (
            "clusters:\n  a:\n    partitions: [{name: x, max_time: '1:2:3:4'}]\n",
            "3: clusters.a.partitions.0.max_time",
            "must be a time",
            "",
        ),
        (
            "clusters:\n  a:\n    partitions: [{name: x, max_memory: much}]\n",
            "3: clusters.a.partitions.0.max_memory",
            "must be an amount",
            "",
        ),
        ("clusters:\n  a:\n    name: b\n", "3: clusters.a.name", "is not a known key", "the section's key is the name"),
        ("clusters:\n  'a b':\n    title: x\n", "2: clusters.a b", "is not valid", "letters, digits"),
        ("clusters:\n  a:\n    mounts: [{source: scratch}]\n", "3: clusters.a.mounts.0.source", "must be an absolute path", ""),
        ("clusters:\n  a:\n    scratch: $TMPDIR\n", "3: clusters.a.scratch", "must be an absolute path", ""),
    ],
)
def test_a_problem_names_file_line_and_key(site: Write, text: str, place: str, message: str, hint: str) -> None:
    file = site(text + "  good: {}\n")
    loaded = clusters.load()
    assert [cluster.name for cluster in loaded.clusters] == ["good"]
    shown = str(loaded.problems[0])
    assert shown.startswith(f"{file}:{place}: ")
    assert message in loaded.problems[0].message and hint in loaded.problems[0].hint


def test_a_problem_in_oods_file_names_that_file(ood: Write, site: Write) -> None:
    file = ood("owens", "v2:\n  job:\n    adapter: slurm\n    bin: slurm/bin\n")
    site("clusters: {owens: {title: Owens}}")
    assert str(clusters.load().problems[0]).startswith(f"{file}:4: v2.job.bin: must be an absolute path")
    site("clusters: {owens: {bin: /opt/slurm/bin}}")
    assert clusters.load().get("owens").bin == Path("/opt/slurm/bin")


@pytest.mark.parametrize("text", ["clusters: [", "- a", "clusters: 3", "clusters: {a: 3}", "default_cluster: [x]"])
def test_an_unreadable_site_file_disables_all_clusters(ood: Write, site: Write, text: str) -> None:
    ood("owens", OOD)
    file = site(text)
    loaded = clusters.load()
    assert loaded.clusters == () and loaded.problems[0].file == str(file)
    with pytest.raises(InvalidInput, match="all clusters are disabled"):
        loaded.get("owens")


def test_a_world_writable_file_is_refused(ood: Write, site: Write) -> None:
    file = site("clusters: {a: {bin: /evil}}")
    file.chmod(0o666)
    loaded = clusters.load()
    assert loaded.clusters == () and "is writable by every user" in loaded.problems[0].message
    assert loaded.problems[0].hint == f"run chmod o-w {file}"
    file.chmod(0o664)
    assert names() == ["a"]
    ood("owens", OOD).chmod(0o666)
    assert names() == ["a"]


def test_a_file_in_a_world_writable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "site.yml").write_text("clusters: {a: {}}")
    folder.chmod(0o777)
    monkeypatch.setenv("LOSSI_SITE", str(folder / "site.yml"))
    assert clusters.load().clusters == ()


def test_files_are_read_again_only_when_they_change(ood: Write, site: Write) -> None:
    site("clusters: {a: {}}")
    first = clusters.load()
    assert clusters.load() is first
    site("clusters: {a: {title: New}}")
    assert clusters.load().get("a").title == "New"
    ood("b", "v2: {job: {adapter: slurm}}")
    assert names() == ["a", "b"]


def test_an_unknown_cluster_suggests_the_nearest_name(site: Write) -> None:
    site("clusters: {mahti: {}, secret: {hidden: true}}")
    with pytest.raises(NotFound, match="did you mean 'mahti'") as caught:
        clusters.load().get("mathi")
    assert caught.value.details["known"] == ["mahti"]
    assert clusters.load().get("secret").hidden


def test_a_default_that_does_not_exist_is_ignored(site: Write) -> None:
    site("default_cluster: mathi\nclusters: {mahti: {}}")
    loaded = clusters.load()
    assert loaded.default is None
    assert "there is no cluster 'mathi' (did you mean 'mahti'?)" in str(loaded.problems[0])


def test_sections_of_the_site_file_are_not_settings(site: Write) -> None:
    from lossi import settings

    site("default_cluster: a\nclusters: {a: {}}\nserve_port: 9000")
    assert settings.load().serve_port == 9000


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_file_that_the_user_cannot_read_does_not_exist(ood: Write, site: Write) -> None:
    ood("owens", OOD).chmod(0)
    site("clusters: {owens: {}}")
    assert clusters.load().clusters == ()


@settings(max_examples=100)
@given(st.text(alphabet="ab:v2job{}[]&*!-\n ,'\"", max_size=120) | st.sampled_from([OOD, "v2: {job: {adapter: slurm}}"]))
def test_no_content_of_a_file_affects_other_clusters(ood: Write, text: str) -> None:
    ood("good", "v2: {job: {adapter: slurm}}")
    ood("any", textwrap.dedent(text))
    assert "good" in names()
