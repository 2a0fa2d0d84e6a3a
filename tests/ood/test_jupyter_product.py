"""Everything that the Jupyter app's form can submit and a session's card can show, with the real templates and real Ruby.

Imports nothing of Lossi: the tests see only what Open OnDemand sees.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from batch_connect import PORTAL, TREE, has_ruby, render

pytestmark = pytest.mark.skipif(not has_ruby(), reason="no ruby: tests/provision.sh installs it")

APP = TREE / "ood-apps" / "jupyter"
CLUSTERS: dict[str, Any] = {
    "blue": {
        "partitions": [
            {"name": "small", "architecture": "x86_64", "max_time": "1-00:00:00", "max_cpus": 40, "max_memory": "64G"},
            {
                "name": "gpu_1",
                "architecture": "x86_64",
                "max_gpus": 4,
                "gpu_types": [{"name": "a100", "title": "A \"100\": 'x'"}],
            },
        ],
        "setup": ["module load apptainer", "echo \"it's $HOME\" '&' >/dev/null"],
    },
    "Grey_2": {
        "gpu_option": "gpus-per-node",
        "partitions": [{"name": "arm", "architecture": "aarch64", "max_gpus": 4, "gpu_types": [{"name": "gh200"}]}],
    },
}
BUILT = {"torch": {"x86_64": ["none", "cuda"], "aarch64": ["cuda"]}, "cpu.only": {"x86_64": ["none"], "aarch64": ["none"]}}
"""Environment → architecture → accelerators."""
SCRIPT = {"native": list, "queue_name": str, "accounting_id": str, "wall_time": int}
"""The keys of Open OnDemand's ``script`` that Lossi uses, and their types."""
HOSTILE = (
    "$(touch owned) `touch owned` '; touch owned; ' \" \\ \n- a: b\n../../../etc <%= 1 %> #{1} --wrap=id \U0001f600 \u2028 \0"
)

LONG = "x" * 50_000 + "\U0001f600" * 12_500


@pytest.fixture
def app(home: Path, tmp_path: Path) -> Path:
    """The app as installed on the site above, with its form."""
    environments = {}
    for name, kinds in BUILT.items():
        variants: dict[str, Any] = {}
        for architecture, accelerators in kinds.items():
            for accelerator in accelerators:
                image = home / f"{name}-{architecture}-{accelerator}"
                (image / "usr").mkdir(parents=True)
                variants.setdefault(architecture, {})[accelerator] = {"sif": str(image)}
        environments[name] = {"title": f"{name}: it's <b>", "variants": variants}
    site = home / "no-site.yml"
    site.write_text(yaml.safe_dump({"clusters": CLUSTERS, "environments": environments}))
    site.chmod(0o644)
    folder = tmp_path / "app"
    shutil.copytree(APP, folder)
    (folder / "environment").write_text(f"{sys.executable}\n")
    form = subprocess.run([sys.executable, "-m", "lossi.ood", "form", "jupyter"], capture_output=True, check=True, cwd="/")
    (folder / "form.json").write_bytes(form.stdout)
    return folder


def form_of(app: Path) -> Any:
    answer = render([{"path": str(app / "form.yml.erb"), "kind": "form", "yaml": True}])[0]
    assert "error" not in answer, answer
    return answer["yaml"]


def sent(form: Any, chosen: Mapping[str, str]) -> dict[str, str]:
    """Return what a browser submits: the form's defaults for everything that was not chosen."""
    attributes = form["attributes"]
    values = {name: str(attributes[name].get("value", "")) for name in form["form"]}
    for name in form["form"]:
        if attributes[name].get("widget") == "select":
            values[name] = attributes[name]["options"][0][1]
    values |= {"cluster": form["cluster"][0], "portal_origin": PORTAL, **chosen}
    return {**values, "gpus": "0" if values["gpu_type"] == "none" else "2"} if "gpus" not in chosen else values


def choices(form: Any) -> list[dict[str, str]]:
    """Return every combination of choices from lists."""
    lists = {"cluster": form["cluster"]}
    for name in form["form"]:
        if form["attributes"][name].get("widget") == "select":
            lists[name] = [option[1] for option in form["attributes"][name]["options"]]
    return [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*lists.values())]


def submitted(app: Path, folder: Path, values: Sequence[Mapping[str, str]]) -> list[tuple[Path, Any]]:
    """Return the session's folder and Ruby's answer for each submitted form; two at a time."""
    requests = []
    for number, choice in enumerate(values):
        names = {**choice, "staged_root": str(folder / f"session-{number}")}
        requests.append({"path": str(app / "submit.yml.erb"), "kind": "struct", "names": names, "yaml": True})
    # As the dashboard has it.
    env = {**os.environ, "RUBYOPT": "", "PYTHONPATH": "/nowhere", "LANG": "C", "LC_ALL": "C"}
    with concurrent.futures.ThreadPoolExecutor(2) as both:
        halves = list(both.map(lambda half: render(half, env=env), (requests[::2], requests[1::2])))
    answers = [halves[number % 2][number // 2] for number in range(len(requests))]
    return [(Path(request["names"]["staged_root"]), answer) for request, answer in zip(requests, answers, strict=True)]


def refused(staged: Path, answer: Any) -> str:
    """Return the sentence of a refusal; checks that nothing was written."""
    assert answer["class"] == "RuntimeError", answer
    assert 20 < len(answer["error"]) <= 1000 and "\n" not in answer["error"] and "Traceback" not in answer["error"], answer
    assert not staged.exists()
    return str(answer["error"])


def accepted(staged: Path, answer: Any) -> Any:
    """Return the submission after checking that Open OnDemand, bash and sbatch read it as intended."""
    assert "error" not in answer, answer
    submission = answer["yaml"]
    assert submission == json.loads(answer["text"]), "every text is quoted: YAML reads it as JSON does"
    assert set(submission) == {"cluster", "batch_connect", "script"}
    assert submission["batch_connect"] == {"template": "basic", "conn_params": ["interface"]}
    assert set(submission["script"]) <= set(SCRIPT)
    assert all(type(value) is SCRIPT[name] for name, value in submission["script"].items())
    native = submission["script"]["native"]
    assert native and all(re.fullmatch(r"--[a-z-]+(=[A-Za-z0-9:_.-]+)?", word) for word in native), native
    subprocess.run(["bash", "-n", str(staged / "setup.sh")], check=True)
    for name in ("session.json", "status.json"):
        assert isinstance(json.loads((staged / name).read_text()), dict)
    assert (staged / "status.json").stat().st_size == 8192
    modes = {path.stat().st_mode & 0o777 for path in staged.iterdir() if path.is_file()}
    assert modes == {0o600} and staged.stat().st_mode & 0o777 == 0o700
    return submission


def possible(values: Mapping[str, str]) -> str:
    """Return the variant that a choice needs on the site above; empty if it cannot run."""
    cluster, _, name = values["queue"].partition("--")
    if cluster != values["cluster"]:
        return ""
    partition = next(entry for entry in CLUSTERS[cluster]["partitions"] if entry["name"] == name)
    kinds = {"none": "none", **{gpu["name"]: "cuda" for gpu in partition.get("gpu_types", [])}}
    needed = kinds.get(values["gpu_type"], "")
    return needed if needed in BUILT[values["environment"]][partition["architecture"]] else ""


def test_every_combination_of_choices_is_submitted_correctly_or_refused_with_a_sentence(app: Path, tmp_path: Path) -> None:
    form = form_of(app)
    product = [sent(form, chosen) for chosen in choices(form)]
    assert len(product) == 72
    taken = 0
    for values, (staged, answer) in zip(product, submitted(app, tmp_path, product), strict=True):
        needed = possible(values)
        if not needed:
            sentence = refused(staged, answer)
            named = values["environment"], values["gpu_type"], values["queue"]
            assert any(repr(name) in sentence for name in named), sentence
            continue
        taken += 1
        submission = accepted(staged, answer)
        assert (
            submission["cluster"] == values["cluster"]
            and f"{submission['cluster']}--{submission['script']['queue_name']}" == values["queue"]
        )
        option = {"blue": "gres=gpu:", "Grey_2": "gpus-per-node="}[values["cluster"]]
        gpus = [word for word in submission["script"]["native"] if "gpu" in word or "gres" in word]
        assert gpus == ([] if needed == "none" else [f"--{option}{values['gpu_type']}:2"])
        words = (staged / "words").read_text().split("\0")
        assert words[:2] == ["apptainer", "exec"] and ("--nv" in words) == (needed == "cuda")
        assert json.loads((staged / "session.json").read_text())["interface"] == values["interface"]
    assert taken == 14


def test_any_value_of_a_field_is_refused_or_stays_one_word(app: Path, tmp_path: Path) -> None:
    form = form_of(app)
    good = sent(form, {})
    fields = [(name, text) for name in good for text in (HOSTILE, LONG)]
    fields += [(name, text) for name in ("account", "folder") for text in ("$(touch owned)", "--wrap=id", "\U0001f600", "'")]
    tampered = [{**good, name: text} for name, text in fields]
    ((first, plain), *answers) = submitted(app, tmp_path, [good, *tampered])
    usual = accepted(first, plain)
    for (name, text), (staged, answer) in zip(fields, answers, strict=True):
        if "error" in answer:
            refused(staged, answer)
            continue
        submission = accepted(staged, answer)
        assert name in ("gpus", "account"), (name, text[:40], "only what is not used, and what sbatch itself judges")
        assert submission["script"].pop("accounting_id", None) == (text.strip() if name == "account" else None)
        assert submission == usual
        assert text[:14] not in (staged / "words").read_text() + (staged / "setup.sh").read_text()
    assert not list(tmp_path.rglob("owned")) and not Path("/owned").exists() and not (app / "owned").exists()


STATES = ("waiting", "starting", "ready", "ended", "failed", "unheard-of")
BAD = '<script>alert("1")</script>\n\n# & \'<%= 1 %> \U0001f600'


def test_every_state_has_its_card(tmp_path: Path) -> None:
    known = {
        "environment": BAD,
        "host": BAD,
        "cores": 2,
        "memory_mb": 2048,
        "time_s": 3600,
        "elapsed_s": 60,
        "cpu_s": 60,
        "peak_mb": 512,
    }
    contents: dict[str, bytes | None] = {
        "missing": None,
        "empty": b"",
        "list": b"[]",
        "half": b'{"state": "fa',
        "bytes": b'{"state": "\xff\xfe"}',
    }
    for state in STATES:
        contents[state] = json.dumps({**known, "state": state, "why": BAD, "log": [BAD, "last"]}).ljust(8192).encode()
        odd = {name: [1, {"a": BAD}] for name in [*known, "why", "log"]}
        contents[f"{state}, odd"] = json.dumps({**odd, "state": state}).encode()
    requests, cases = [], []
    for kind, content in contents.items():
        staged = tmp_path / kind
        staged.mkdir()
        if content is not None:
            (staged / "status.json").write_bytes(content)
        for completed, running in ((False, False), (False, True), (True, False)):
            names = {"staged_root": str(staged), "completed": completed, "running": running}
            requests.append({"path": str(APP / "info.html.erb"), "kind": "session", "names": names})
            cases.append((kind, completed))
    cards = {}
    for case, answer in zip(cases, render(requests), strict=True):
        assert "error" not in answer, (case, answer)
        text = answer["text"]
        assert "<script" not in text and "<%" not in text and "\n\n" not in text, (case, text)
        cards[case] = " ".join(text.split())
        assert cards[case] or not case[1], case
    for kind in ("missing", "empty", "list", "half"):
        assert "no room" in cards[kind, True] and not cards[kind, False]
    assert "before it ran" in cards["waiting", True] and "while Jupyter was starting" in cards["starting", True]
    for state in ("ready", "ended"):
        assert "Ran for 0:01:00 of the 1:00:00 that you asked for" in cards[state, True]
        assert "average 1.0 of 2 cores, and at most 0.5 of 2.0 GB" in cards[state, True]
    for completed in (False, True):
        assert "Jupyter failed: &lt;script&gt;" in cards["failed", completed] and "last</pre>" in cards["failed", completed]


def test_the_button_is_shown_only_with_host_port_and_password() -> None:
    values: list[Any] = [None, "", "word", BAD, 8888, 0]
    cases = [dict(zip(("host", "port", "password"), three, strict=True)) for three in itertools.product(values, repeat=3)]
    cases += [{"host": "n1", "port": 8888, "password": "p", "interface": interface} for interface in values]
    for names, answer in zip(
        cases, render([{"path": str(APP / "view.html.erb"), "kind": "struct", "names": case} for case in cases]), strict=True
    ):
        text = answer["text"]
        assert "<script" not in text and "<%" not in text
        whole = names["host"] not in (None, "") and names["port"] == 8888 and names["password"] not in (None, "")
        assert ("<form" in text, "connection.yml" in text) == (whole, not whole), (names, text)
