"""Changing values in a YAML file keeps everything else as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from lossi.errors import InvalidInput
from lossi.files import document, yaml_edit

TEXT = """\
# of the site
environments:
  sklearn:   # keep
    title: scikit-learn
    variants:
      x86_64:
        none:
          image: localhost/lossi/sklearn:0.1.0  # the old one
          # the digest comes here
        cuda: {image: other, recipe: a/b}
  other:
    title: Other
    local: {python: auto}
catalog: kept
"""
AT = ("environments", "sklearn", "variants", "x86_64", "none")
CUDA = (*AT[:-1], "cuda")


def changed(text: str, *changes: yaml_edit.Change) -> str:
    return yaml_edit.edited(text.encode(), changes).decode()


def test_comments_stay_next_to_changed_values() -> None:
    digest = "sha256:" + "0" * 64
    new = changed(
        TEXT, ((*AT, "image"), "registry.example/a:1"), ((*AT, "digest"), digest), ((*AT, "sif"), "/sif/with space: #1.sif")
    )
    assert [line for line in TEXT.splitlines() if line not in new.splitlines()] == [
        "          image: localhost/lossi/sklearn:0.1.0  # the old one"
    ]
    assert re.search("^          image: registry.example/a:1 +# the old one$", new, re.MULTILINE)
    assert document.parse(new.encode()).data["environments"]["sklearn"]["variants"]["x86_64"]["none"] == {
        "image": "registry.example/a:1",
        "digest": digest,
        "sif": "/sif/with space: #1.sif",
    }


def test_a_mapping_in_braces_stays_in_braces() -> None:
    new = changed(TEXT, ((*CUDA, "sif"), "/a b.sif"), ((*CUDA, "image"), "x/y:1"))
    assert "        cuda: {image: x/y:1, recipe: a/b, sif: /a b.sif}\n" in new
    assert all(line in new.splitlines() for line in TEXT.splitlines() if "cuda" not in line)


def test_missing_parents_are_created() -> None:
    new = changed(TEXT, (("environments", "other", "variants", "aarch64", "rocm"), {"image": "a", "sif": "/b"}))
    assert all(line in new.splitlines() for line in TEXT.splitlines())
    assert document.parse(new.encode()).data["environments"]["other"]["variants"] == {
        "aarch64": {"rocm": {"image": "a", "sif": "/b"}}
    }


KEYS = st.sampled_from(["a", "b", "no", "1", "é:"])
TEXTS = st.text("ab:#'\"{}[],& \né", max_size=8)


@given(st.recursive(TEXTS, lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=8).filter(lambda data: isinstance(data, dict)),
       st.lists(KEYS, min_size=1, max_size=4), TEXTS, st.booleans())  # fmt: skip
def test_any_file_reads_as_before_plus_the_change(data: dict[str, Any], keys: list[str], value: str, flow: bool) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow)
    expected = document.parse(text.encode()).data
    node = expected
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            with pytest.raises(yaml_edit.NotEditable, match=f"{key} is not a mapping"):
                changed(text, (tuple(keys), value))
            return
    node[keys[-1]] = value
    assert document.parse(changed(text, (tuple(keys), value)).encode()).data == expected


def test_comments_before_the_next_key_stay_before_it() -> None:
    text = "a:\n  b:\n    c: 1  # one\n    # of b\n\n  # of d\n  d:\n    - x\n\n# of e\ne: 2\n"
    assert changed(text, (("a", "b", "new"), "x")) == text.replace("# of b\n", "# of b\n    new: x\n")
    assert changed(text, (("a", "new"), {"f": "x"})) == text.replace("- x\n", "- x\n  new:\n    f: x\n")
    assert changed(text, (("a", "d"), {"f": ["x"]})) == text.replace("- x\n", "f:\n      - x\n")


@pytest.mark.parametrize("text", ["a: 1.50\n", "no: no\n", "a: ~\n", "a:\n", "a: 0o17\n", "a: 36:00:00\n", "a: 'x'\n", "---\na: 1\n",
                                  "a:\n    b: |\n        x\n\n        y\n", "a:   # c\n    b: 1\n", "# only a comment\n", "a: 1\r\nb: 2\r\n"])  # fmt: skip
def test_scalars_and_formatting_stay_as_they_are_written(text: str) -> None:
    end = "\r\n" if "\r" in text else "\n"
    assert changed(text, (("z",), "new")) == f"{text}z: new{end}"


@pytest.mark.parametrize(
    "value", ["no", "1", "1.5", "~", "null", "2001-12-14", "36:00:00", " x", "a: b", "#", "\n", "\x85", "=", "<<"]
)
def test_new_text_stays_text(value: str) -> None:
    assert document.parse(changed("a: 1\n", (("b", value), value)).encode()).data == {"a": 1, "b": {value: value}}


def test_a_change_that_would_change_other_values_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yml"
    path.write_text("a: &x {b: 1}\nc: *x\n")
    with pytest.raises(InvalidInput, match="other values would change too"):
        yaml_edit.edit_file(path, lambda data: [(("a", "b"), "2")], mode=0o600)
    assert path.read_text() == "a: &x {b: 1}\nc: *x\n"


def test_permissions_stay_and_a_broken_file_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yml"
    path.write_text(TEXT)
    path.chmod(0o664)
    yaml_edit.edit_file(path, lambda data: [((*AT, "sif"), "/x")], mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o664
    path.write_text("environments: [1\n")
    with pytest.raises(InvalidInput, match="is not valid YAML"):
        yaml_edit.edit_file(path, lambda data: [], mode=0o600)
    assert path.read_text() == "environments: [1\n"
    yaml_edit.edit_file(tmp_path / "new" / "c.yml", lambda data: [(("environments", "a"), {"title": "A"})], mode=0o644)
    assert (tmp_path / "new" / "c.yml").stat().st_mode & 0o777 == 0o644
