"""Changing one value in a catalogue file leaves all else as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from lossi.environments import catalog_text
from lossi.errors import InvalidInput
from lossi.files import document

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
catalog: before
"""
AT = ("environments", "sklearn", "variants", "x86_64", "none")
CUDA = (*AT[:-1], "cuda")


def changed(text: str, *changes: catalog_text.Change) -> str:
    data = document.parse(text.encode()).data or {}
    return catalog_text.changed(text.encode(), data, changes).decode()


def test_values_are_put_in_beside_the_comments() -> None:
    digest = "sha256:" + "0" * 64
    new = changed(
        TEXT, ((*AT, "image"), "registry.example/a:1"), ((*AT, "digest"), digest), ((*AT, "sif"), "/sif/with space: #1.sif")
    )
    assert [line for line in TEXT.splitlines() if line not in new.splitlines()] == [
        "          image: localhost/lossi/sklearn:0.1.0  # the old one"
    ]
    assert "          image: registry.example/a:1  # the old one\n" in new
    assert document.parse(new.encode()).data["environments"]["sklearn"]["variants"]["x86_64"]["none"] == {
        "image": "registry.example/a:1",
        "digest": digest,
        "sif": "/sif/with space: #1.sif",
    }


def test_values_are_put_into_a_mapping_in_braces() -> None:
    new = changed(TEXT, ((*CUDA, "sif"), "/a b.sif"), ((*CUDA, "image"), "x/y:1"))
    assert '        cuda: {image: x/y:1, recipe: a/b, "sif": "/a b.sif"}\n' in new
    assert all(line in new.splitlines() for line in TEXT.splitlines() if "cuda" not in line)


def test_missing_parents_are_made() -> None:
    new = changed(TEXT, (("environments", "other", "variants", "aarch64", "rocm"), {"image": "a", "sif": "/b"}))
    assert all(line in new.splitlines() for line in TEXT.splitlines())
    assert document.parse(new.encode()).data["environments"]["other"]["variants"] == {
        "aarch64": {"rocm": {"image": "a", "sif": "/b"}}
    }


@given(
    st.recursive(
        st.text("ab:#'\"{}[],& \né", max_size=6),
        lambda below: st.dictionaries(st.sampled_from(["a", "b", "no", "1", "é:"]), below, max_size=3),
        max_leaves=8,
    ).filter(lambda data: isinstance(data, dict)),
    st.lists(st.sampled_from(["a", "b", "no", "1", "é:"]), min_size=1, max_size=4),
    st.text("ab:#'\"{}[],& \né", max_size=8),
    st.booleans(),
)
def test_any_file_reads_as_before_plus_the_change(data: dict[str, Any], keys: list[str], value: str, flow: bool) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow)
    old = document.parse(text.encode()).data
    new = document.parse(changed(text, (tuple(keys), value)).encode()).data
    after, before = new, old
    for key in keys[:-1]:
        for name in before.keys() - {key} if isinstance(before, dict) else ():
            assert after[name] == before[name]
        after, before = after[key], before.get(key) if isinstance(before, dict) else None
    assert after[keys[-1]] == value


def test_permissions_stay_and_a_broken_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yml"
    path.write_text(TEXT)
    path.chmod(0o664)
    catalog_text.change(path, lambda data: [((*AT, "sif"), "/x")], mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o664
    path.write_text("environments: [1\n")
    with pytest.raises(InvalidInput, match="is not valid YAML"):
        catalog_text.change(path, lambda data: [], mode=0o600)
    assert path.read_text() == "environments: [1\n"
    catalog_text.change(tmp_path / "new" / "c.yml", lambda data: [(("environments", "a"), {"title": "A"})], mode=0o644)
    assert (tmp_path / "new" / "c.yml").stat().st_mode & 0o777 == 0o644
