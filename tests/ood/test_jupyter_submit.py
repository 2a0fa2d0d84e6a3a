"""What the Jupyter app submits for every choice of the form and for tampered values; test_jupyter_product.py has Ruby's part."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jupyter_site
import pytest
from batch_connect import TREE, has_ruby, options, render

from lossi.errors import LossiError
from lossi.ood import jupyter

APP = TREE / "ood-apps" / "jupyter"
HOSTILE = [
    "$(touch /tmp/owned)",
    "`id`",
    "'; id; '",
    '"; id; "',
    "a\nb: c",
    "../../../etc",
    "<%= 1 %>",
    "-1",
    "1e9",
    "0x10",
    "99999999999999999999",
    "\0",
    "\u2028",
    "\ud800",
    "--wrap=id",
    " ",
    "!ruby/object:Gem::Requirement {}",
]

needs_ruby = pytest.mark.skipif(not has_ruby(), reason="no ruby: tests/provision.sh installs it")


@pytest.fixture
def site(home: Path) -> Path:
    jupyter_site.write(home)
    return home


def good(home: Path, **changes: str) -> dict[str, str]:
    values = next(
        choices for choices in jupyter_site.combinations() if jupyter_site.possible(choices) and choices["gpu_type"] == "a100"
    )
    return {**values, "staged_root": str(home / "staged"), **changes}


def words(staged: Path) -> list[str]:
    return [os.fsdecode(word) for word in (staged / "words").read_bytes().split(b"\0")[:-1]]


def test_every_choice_is_accepted_correctly_or_refused(site: Path) -> None:
    taken = 0
    for number, values in enumerate(jupyter_site.combinations()):
        staged = site / f"staged-{number}"
        if not jupyter_site.possible(values):
            with pytest.raises(LossiError):
                jupyter.submit({**values, "staged_root": str(staged)})
            assert not staged.exists(), "a refusal writes nothing"
            continue
        submission = jupyter.submit({**values, "staged_root": str(staged)})
        taken += 1
        assert submission["cluster"] == values["cluster"]
        assert f"{submission['cluster']}--{submission['script']['queue_name']}" == values["queue"]
        assert submission["script"]["accounting_id"] == "project_123"
        native = submission["script"]["native"]
        assert {"--nodes=1", "--cpus-per-task=4", "--mem=8192M", "--no-requeue"} <= set(native)
        gpu_options = [word for word in native if "gpu" in word or "gres" in word]
        kind = values["gpu_type"]
        option = "gres=gpu:" if values["cluster"] == "mahti" else "gpus-per-node="
        assert gpu_options == ([] if kind == "none" else [f"--{option}{kind}:2"])
        argv = words(staged)
        assert argv[:2] == ["apptainer", "exec"] and argv[-4:-2] == ["python3", "-I"]
        assert ("--nv" in argv, "--rocm" in argv) == (kind in ("a100", "gh200"), kind == "mi250")
        assert ("/appl:/appl:ro" in argv) == (values["cluster"] == "mahti")
        modes = {path.stat().st_mode & 0o777 for path in staged.iterdir() if path.is_file()}
        assert modes == {0o600} and staged.stat().st_mode & 0o777 == (staged / "bin" / "lossi").stat().st_mode & 0o777 == 0o700
    assert taken == 10


@pytest.mark.parametrize("field", ["cluster", "environment", "queue", "gpu_type", "gpus", "cores", "memory_gb", "hours", "account", "folder", "interface"])  # fmt: skip
def test_tampered_values_are_refused_with_a_sentence(site: Path, field: str) -> None:
    for text in HOSTILE:
        if text == " " and field in ("folder", "account"):
            continue  # the same as empty, which is valid or refused with another sentence
        with pytest.raises(LossiError) as caught:
            jupyter.submit(good(site, **{field: text}))
        assert caught.value.what and "Traceback" not in str(caught.value)
    assert not (site / "staged").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"cores": "65"}, "64"),
        ({"gpus": "5"}, "4"),
        ({"gpus": "0"}, "whole number from 1"),
        ({"hours": "2"}, "00:30:00"),
        ({"memory_gb": "481"}, "MiB of memory"),
        ({"account": ""}, "account"),
        ({"account": "other"}, "project_[0-9]+"),
        ({"environment": "torhc"}, "torch"),
        ({"environment": "nothing"}, "image"),
        ({"cluster": "puhti"}, "mahti"),
        ({"folder": "/etc"}, "outside"),
        ({"folder": "~/missing"}, "does not exist"),
    ],
)
def test_a_value_out_of_range_names_the_limit(site: Path, changes: dict[str, str], part: str) -> None:
    with pytest.raises(LossiError) as caught:
        jupyter.submit(good(site, **changes))
    assert part in str(caught.value)


def test_an_hour_becomes_the_limit_of_a_shorter_partition(site: Path) -> None:
    assert jupyter.submit(good(site))["script"]["wall_time"] == 1800


def test_without_the_portals_address_nothing_starts(site: Path) -> None:
    jupyter_site.write(site, portal_url=None)
    for text in ("", "javascript:alert(1)", "https://a b", "https://x/../y", "https://user@host", "null"):
        with pytest.raises(LossiError, match="portal"):
            jupyter.submit(good(site, portal_origin=text))
    jupyter.submit(good(site, portal_origin="https://other.example:8443"))
    assert json.loads((site / "staged" / "session.json").read_text())["origin"] == "https://other.example:8443"


def test_hostile_folder_names_arrive_byte_for_byte_in_words(site: Path) -> None:
    folder = site / "a'b\"c $(id) `x` \\ ; é,:"
    folder.mkdir()
    jupyter.submit(good(site, folder=str(folder)))
    argv = words(site / "staged")
    assert argv[argv.index("--pwd") + 1] == str(folder)
    bad = site / "line\nbreak"
    bad.mkdir()
    with pytest.raises(LossiError):
        jupyter.submit(good(site, folder=str(bad)))


def test_setup_lines_are_the_sites_and_stop_at_the_first_failure(site: Path) -> None:
    jupyter.submit(good(site))
    assert (site / "staged" / "setup.sh").read_text() == "eval 'module load apptainer' || return\n"


@needs_ruby
def test_a_missing_installation_is_refused_with_a_sentence(tmp_path: Path) -> None:
    app = shutil.copytree(APP, tmp_path / "app")
    answer = render([{"path": str(app / "submit.yml.erb"), "kind": "struct", "names": {"cluster": "x"}}])[0]
    assert "lossi doctor" in answer["error"]


def test_options_reach_sbatch_as_single_words(site: Path) -> None:
    for word in options(jupyter.submit(good(site))["script"]):
        assert not set(word) & set(" \t\n'\"`$;&|<>"), word
