"""Rules for forms besides Open OnDemand's contract, found with its dashboards 3.1, 4.0, 4.1 and 4.2."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jupyter_site
import pytest
from batch_connect import RUBY, has_ruby

from lossi.ood import apps, forms


@pytest.fixture(params=sorted(apps.APPS))
def form(request: pytest.FixtureRequest, home: Path) -> dict[str, Any]:
    jupyter_site.write(home)
    fields: dict[str, Any] = apps.get(request.param).form()
    return fields


@pytest.mark.skipif(not has_ruby(), reason="no ruby: tests/provision.sh installs it")
def test_no_field_has_the_name_of_a_ruby_method(form: dict[str, Any]) -> None:
    # What a form sends is kept in a list that answers to the names of its fields, and handed to templates as a struct.
    code = "require 'json'; require 'ostruct'; puts JSON.generate(Enumerable.instance_methods | OpenStruct.new.methods)"
    methods = json.loads(subprocess.run([RUBY, "-e", code], capture_output=True, text=True, check=True).stdout)
    assert "partition" in methods and not set(methods) & set(form["attributes"])


def test_every_partition_sets_all_limits(form: dict[str, Any]) -> None:
    expected = {
        f"data-max-{name.replace('_', '-')}" for name in ("cores", "memory_gb", "hours", "gpus") if name in form["attributes"]
    }
    options = form["attributes"][forms.PARTITION]["options"]
    assert len(options) == 4
    for _, value, data in options:
        assert {name for name in data if name.startswith("data-max-")} == expected, value


def test_no_options_text_contains_a_quote(form: dict[str, Any]) -> None:
    texts = [option[0] for field in form["attributes"].values() for option in field.get("options", [])]
    assert not [text for text in texts if set(text) & set("'\\")]
    if "environment" in form["attributes"]:
        assert any("’x’" in text for text in texts)


def test_clusters_with_different_default_accounts_get_none_on_the_form(home: Path) -> None:
    for accounts, shown in (({"mahti": "a", "Lumi-G": "a"}, "a"), ({"mahti": "a", "Lumi-G": "b"}, ""), ({"mahti": "a"}, "")):
        entries = {name: {**entry, "account": {}} for name, entry in jupyter_site.CLUSTERS.items()}
        for name, account in accounts.items():
            entries[name]["account"] = {"default": account}
        jupyter_site.write(home, clusters=entries)
        assert apps.get("jupyter").form()["attributes"]["account"]["value"] == shown
