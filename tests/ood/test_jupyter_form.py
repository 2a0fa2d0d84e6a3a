"""The Jupyter app's form: it offers what exists, hides what does not go together, and never disappears."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jupyter_site
import pytest
from batch_connect import TREE, has_ruby, render

from lossi.ood import apps

APP = TREE / "ood-apps" / "jupyter"
RESERVED = frozenset(
    [
        "class",
        "clone",
        "display",
        "dup",
        "extend",
        "freeze",
        "hash",
        "inspect",
        "itself",
        "method",
        "methods",
        "presence",
        "send",
        "tap",
        "then",
        "to_h",
        "to_s",
    ]
)
"""Names that Open OnDemand cannot use for a field."""

pytestmark = pytest.mark.skipif(not has_ruby(), reason="no ruby: tests/provision.sh installs it")


def rendered(folder: Path) -> Any:
    """Render the form as Open OnDemand does."""
    shutil.copy(APP / "form.yml.erb", folder)
    answer = render([{"path": str(folder / "form.yml.erb"), "kind": "form", "yaml": True}])[0]
    assert "error" not in answer, answer
    return answer


@pytest.fixture
def form(home: Path, tmp_path: Path) -> Any:
    jupyter_site.write(home)
    apps.write("jupyter", tmp_path)
    return rendered(tmp_path)["yaml"]


def mountain(value: str) -> str:
    """Return a value as Open OnDemand's page writes it in a directive's name."""
    rest = re.sub(
        r"[-_]([a-z])|([-_][0-9])",
        lambda found: found[1].upper() if found[1] else found[2].replace("_", "-"),
        value[1:].lower(),
    )
    return value[0].upper() + rest


def dataset(attribute: str) -> str:
    """Return a browser's name of a data attribute."""
    return re.sub(r"-([a-z])", lambda found: found[1].upper(), attribute.lower().removeprefix("data-"))


def hidden(option: list[Any], chosen: dict[str, str]) -> bool:
    """Return whether the page hides an option for the choices in other fields."""
    keys = {dataset(name): value for name, value in option[2].items() if name.startswith("data-option-for-")}
    for field, value in chosen.items():
        word = mountain(value)
        if keys.get(f"optionFor{mountain(field)}{'-' if word[0].isdigit() else ''}{word}") is False:
            return True
    return False


def test_a_form_has_what_open_ondemand_reads(form: Any) -> None:
    assert form["cluster"] == ["Lumi-G", "mahti"]
    assert set(form["form"]) <= set(form["attributes"]) and not RESERVED & set(form["form"])
    widgets = {"select", "number_field", "text_field", "path_selector", "hidden_field"}
    for name, attribute in form["attributes"].items():
        assert attribute.get("widget", "select") in widgets, name
        for option in attribute.get("options", []):
            assert len(option) in (2, 3) and all(isinstance(word, str) for word in option[:2])
            for directive in option[2] if len(option) == 3 else {}:
                assert re.fullmatch(r"data-(option-for|max|min|set|hide)-[a-z0-9.-]+", directive), directive
    partitions = form["attributes"]["queue"]["options"]
    assert [option[1] for option in partitions] == ["Lumi-G--dev-g", "Lumi-G--1grace", "mahti--small", "mahti--gpu_small"]
    assert partitions[2][2]["data-max-cores"] == 40 and partitions[2][2]["data-max-hours"] == 72
    assert "form_header" not in form


def test_exactly_the_choices_that_can_run_stay_visible(form: Any) -> None:
    fields = form["attributes"]
    by_value = {name: {option[1]: option for option in fields[name]["options"]} for name in ("queue", "gpu_type", "environment")}
    offered, too_much = 0, []
    for values in jupyter_site.combinations():
        if values["environment"] not in by_value["environment"]:
            assert not jupyter_site.possible(values)
            continue
        shown = (
            not hidden(by_value["queue"][values["queue"]], {"cluster": values["cluster"]})
            and not hidden(by_value["gpu_type"][values["gpu_type"]], {"queue": values["queue"]})
            and not hidden(
                by_value["environment"][values["environment"]],
                {"queue": values["queue"], "gpu_type": values["gpu_type"]},
            )
        )
        if jupyter_site.possible(values):
            assert shown, values
            offered += 1
        elif shown:
            too_much.append((values["environment"], values["queue"], values["gpu_type"]))
    assert offered == 10
    # The page cannot combine conditions: this image exists for GPUs here and without GPUs elsewhere. Submitting refuses it.
    assert too_much == [("torch", "Lumi-G--1grace", "none")]


def test_partitions_of_other_clusters_are_hidden(form: Any) -> None:
    for option in form["attributes"]["queue"]["options"]:
        for cluster in ("mahti", "Lumi-G"):
            assert hidden(option, {"cluster": cluster}) == (not option[1].startswith(cluster))


def test_titles_of_the_catalogue_are_shown_unchanged(form: Any) -> None:
    assert form["attributes"]["environment"]["options"][0][0] == "Title of sklearn.cpu: <b>ä & ’x’</b>"


def test_an_error_in_the_catalogue_is_shown_on_the_form(home: Path, tmp_path: Path) -> None:
    broken = home / "broken.yml"
    broken.write_text("environments: {bad: {title: [1, 2]}}\n")
    jupyter_site.write(home, catalogs=[str(broken)])
    apps.write("jupyter", tmp_path)
    form = rendered(tmp_path)["yaml"]
    assert "broken.yml" in form["form_header"] and "<script" not in form["form_header"]
    assert "broken.yml" in form["attributes"]["environment"]["help"].replace("\\", "")
    assert len(form["attributes"]["environment"]["options"]) == 3, "valid ones stay"


@pytest.mark.parametrize("content", [None, "", "{", "[" * 2000, "\xff\xfe"])
def test_without_form_json_the_form_says_what_is_missing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / apps.FILE).write_text(content, "latin-1")
    form = rendered(tmp_path)["yaml"]
    assert "lossi doctor" in form["attributes"]["unavailable"]["help"]


def test_a_site_without_clusters_or_environments_says_so(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (home / "no-site.yml").write_text("clusters: 1\n")
    (home / "no-site.yml").chmod(0o644)
    path = apps.write("jupyter", tmp_path)
    form = json.loads(path.read_text())
    assert "cluster" not in form, "a list without any existing cluster would hide the app"
    assert "no cluster" in form["form_header"] and path.stat().st_mode & 0o777 == 0o644


def test_a_hundred_environments_are_printed(home: Path, tmp_path: Path) -> None:
    image = home / "image"
    (image / "usr").mkdir(parents=True)
    variants = {"x86_64": {"none": {"sif": str(image)}, "cuda": {"sif": str(image)}}}
    many = {f"env-{number}": {"title": f"Environment {number}", "variants": variants} for number in range(100)}
    jupyter_site.write(home, environments=many)
    apps.write("jupyter", tmp_path)
    options = rendered(tmp_path)["yaml"]["attributes"]["environment"]["options"]
    assert set(many) <= {option[1] for option in options}
