"""The doctor on a portal's host: it finds every known fault of a site and names its remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from lossi.cli.doctor import Finding, containers, installation, open_ondemand
from lossi.installing import Installed, Places

GOOD_PORTAL = "node_uri: /node\nrnode_uri: /rnode\nhost_regex: 'cpu\\d+'\n"


@pytest.fixture
def host(places: Places, home: Path) -> Path:
    """A host with a good Open OnDemand."""
    root = places.root
    (root / "opt" / "ood").mkdir(parents=True)
    (root / "opt/ood/VERSION").write_text("4.2.3\n")
    (places.config / "ondemand.d").mkdir(parents=True)
    (places.config / "ondemand.d/site.yml").write_text("bc_dynamic_js: true\n")
    (places.config / "ood_portal.yml").write_text(GOOD_PORTAL)
    return root


def every(host: Path) -> list[Finding]:
    return [*open_ondemand.findings(host), *installation.findings(host), *installation.site_file()]


def found(host: Path, what: str) -> list[Finding]:
    return [finding for finding in every(host) if finding.what.startswith(what)]


def test_a_good_host_has_no_findings(host: Path) -> None:
    assert {finding.level for finding in every(host)} == {"ok"}


def test_a_machine_without_open_ondemand_is_fine(places: Places, home: Path) -> None:
    assert [(each.level, each.detail) for each in found(places.root, "Open OnDemand")] == [("ok", "not on this machine")]


@pytest.mark.parametrize(
    ("text", "level"),
    [("3.1.16\n", "ok"), ("v4.2.3-1\n", "ok"), ("3.0.3", "error"), ("5.0.0", "warning"), ("nightly", "warning")],
)
def test_versions(host: Path, text: str, level: str) -> None:
    (host / "opt/ood/VERSION").write_text(text)
    (finding, *_) = found(host, "Open OnDemand")
    assert finding.level == level
    assert bool(finding.remedy) is (level != "ok")


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"site.yml": "bc_dynamic_js: false\n"}, "warning"),
        ({"site.yml": "other: 1\n"}, "warning"),
        ({"site.yml": "bc_dynamic_js: false\n", "z.yml": "bc_dynamic_js: true\n"}, "ok"),
        ({"site.yml": "bc_dynamic_js: false\n", "../apps/dashboard/env": "# x\nOOD_BC_DYNAMIC_JS='1'\n"}, "ok"),
        ({"../apps/dashboard/env": "OOD_BC_DYNAMIC_JS=0\n"}, "warning"),
    ],
)
def test_dynamic_forms(host: Path, places: Places, files: dict[str, str], level: str) -> None:
    for name, text in files.items():
        path = places.config / "ondemand.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (places.config / "apps" / "dashboard").mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (finding,) = found(host, "Open OnDemand: bc_dynamic_js")
    assert finding.level == level
    assert bool(finding.remedy) is (level != "ok")


def test_settings_in_templates_are_named_as_unread(host: Path, places: Places) -> None:
    (places.config / "ondemand.d/site.yml").rename(places.config / "ondemand.d/site.yml.erb")
    (finding,) = found(host, "Open OnDemand: bc_dynamic_js")
    assert "site.yml.erb" in finding.detail


def test_a_content_security_policy_is_named(host: Path, places: Places) -> None:
    (places.config / "ondemand.d/z.yml").write_text("csp_enabled: true\n")
    (finding,) = found(host, "Open OnDemand: csp_enabled")
    assert finding.level == "warning" and finding.remedy


@pytest.mark.parametrize(
    ("text", "what", "level"),
    [
        ("", "Open OnDemand: proxy", "error"),
        ("node_uri: /node\n", "Open OnDemand: proxy", "error"),
        ("node_uri: /node\nrnode_uri: /rnode\n", "Open OnDemand: proxy: host_regex", "warning"),
        ("host_regex: '[^/]+'\n", "Open OnDemand: proxy: host_regex", "warning"),
        ("host_regex: '.*'\n", "Open OnDemand: proxy: host_regex", "warning"),
        ("host_regex: '[a-z0-9.-]+'\n", "Open OnDemand: proxy: host_regex", "warning"),
        (GOOD_PORTAL, "Open OnDemand: proxy: host_regex", "ok"),
        ("host_regex: '(?<broken'\n", "Open OnDemand: proxy: host_regex", "ok"),
        ("a: &a [*a]\n", "Open OnDemand: proxy", "error"),
    ],
)
def test_the_proxy(host: Path, places: Places, text: str, what: str, level: str) -> None:
    (places.config / "ood_portal.yml").write_text(text)
    findings = [finding for finding in found(host, what) if finding.what == what]
    assert [finding.level for finding in findings] == [level]
    assert bool(findings[0].remedy) is (level != "ok")


@settings(max_examples=60)
@given(
    content=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: f"host_regex: {text!r}".encode("utf-8", "replace"))
)
def test_no_content_of_open_ondemands_files_breaks_the_doctor(host: Path, places: Places, content: bytes) -> None:
    for path in (places.config / "ondemand.d/site.yml", places.config / "ood_portal.yml", host / "opt/ood/VERSION"):
        path.write_bytes(content)
    findings = every(host)
    assert all(finding.remedy for finding in findings if finding.level != "ok")


def test_changes_since_the_installation_are_found(host: Path, places: Places, install: Callable[..., Installed]) -> None:
    from lossi import __version__

    install(__version__)
    assert {finding.level for finding in found(host, "installation")} == {"ok"}
    (places.apps / "lossi" / "manifest.yml").write_text("name: Ours\n")
    (places.apps / "lossi" / "bin" / "python").chmod(0o775)
    (places.config / "plugins" / "lossi").unlink()
    (places.apps / "myjobs" / "templates").mkdir(parents=True)
    by_name = {finding.what: finding for finding in found(host, "installation")}
    assert "apps/lossi/manifest.yml (edited)" in by_name["installation: files"].detail
    assert "plugins/lossi" in by_name["installation: links"].detail
    assert by_name["installation: permissions"].level == "error"
    assert by_name["installation: templates"].level == "warning"
    assert all(finding.remedy for finding in by_name.values() if finding.level != "ok")


def test_the_forms_of_the_sessions_are_written_again(
    host: Path, places: Places, write: Callable[[str, str], Path], install: Callable[..., Installed]
) -> None:
    write("ood-apps/mlflow-session/manifest.yml", "role: batch_connect\n")
    install()
    for app in ("lossi-jupyter", "lossi-mlflow-session"):
        form = places.apps / app / "form.json"
        form.unlink(missing_ok=True)
        (finding,) = found(host, f"installation: form of {app}")
        assert finding.level == "ok" and json.loads(form.read_text())["form"]


def test_an_installed_version_other_than_the_commands_is_named(host: Path, install: Callable[..., Installed]) -> None:
    install("0.0.1")
    assert found(host, "installation")[0].level == "warning"


def test_an_environment_that_users_cannot_run_is_found(tmp_path: Path) -> None:
    python = tmp_path / "closed" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/usr/bin/env")
    open_to_all = installation.unreachable(Path("/usr/bin/env"))
    assert open_to_all is None
    (tmp_path / "closed").chmod(0o700)
    assert installation.unreachable(python) is not None
    assert installation.unreachable(Path("/nowhere/python")) == Path("/nowhere")


@pytest.mark.parametrize(("mode", "level"), [(0o644, "ok"), (0o666, "error"), (0o600, "error")])
def test_the_site_file(host: Path, monkeypatch: pytest.MonkeyPatch, mode: int, level: str) -> None:
    path = host / "site.yml"
    path.write_text("{}\n")
    path.chmod(mode)
    monkeypatch.setenv("LOSSI_SITE", str(path))
    (finding,) = found(host, "site file")
    assert finding.level == level
    assert bool(finding.remedy) is (level != "ok")


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"user/max_user_namespaces": "15000\n"}, "ok"),
        ({"user/max_user_namespaces": "0\n"}, "error"),
        ({"user/max_user_namespaces": "9\n", "kernel/unprivileged_userns_clone": "0\n"}, "error"),
        ({"user/max_user_namespaces": "9\n", "kernel/apparmor_restrict_unprivileged_userns": "1\n"}, "warning"),
    ],
)
def test_apptainer_without_user_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], level: str
) -> None:
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    for name, text in files.items():
        path = tmp_path / "proc" / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (finding,) = containers.apptainer(tmp_path / "proc")
    assert finding.level == level
    assert bool(finding.remedy) is (level != "ok")


def test_missing_wrong_and_unrecorded_images_are_found(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sif = tmp_path / "good.sif"
    header = bytearray(64)
    header[32:42], header[45:47] = b"SIF_MAGIC\0", b"02"
    sif.write_bytes(header)
    catalog = tmp_path / "catalog.yml"
    variants = {"none": f"{{sif: {sif}, image: r.example/x:1}}", "cuda": "{sif: /nowhere.sif}"}
    lines = "".join(f"        {name}: {text}\n" for name, text in variants.items())
    catalog.write_text(
        f"environments:\n  mine:\n    title: Mine\n    variants:\n      x86_64:\n{lines}      aarch64:\n        none: {{sif: {sif}}}\n"
    )
    monkeypatch.setenv("LOSSI_CATALOGS", str(catalog))
    by_name = {finding.what: finding for finding in containers.images() if " mine" in finding.what}
    assert by_name["image mine: x86_64-none"].level == "warning"
    assert "no digest" in by_name["image mine: x86_64-none"].detail
    assert by_name["image mine: x86_64-cuda"].level == "error"
    assert by_name["image mine: aarch64-none"].level == "error"
    assert all(finding.remedy for finding in by_name.values())
