"""What a request for a job may contain."""

from __future__ import annotations

from typing import Any

import pytest

from lossi.errors import InvalidInput
from lossi.jobs.submit.spec import JobSpec, validated


def test_a_job_is_a_notebook_a_script_or_a_command() -> None:
    assert validated({"notebook": "a.ipynb"}).kind == "notebook"
    assert validated({"script": "a.py", "arguments": ["--fast"]}).kind == "script"
    assert validated({"command": ["./simulate", "--steps", "100"], "working_directory": "runs"}).kind == "command"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "give one of notebook, script and command"),
        ({"notebook": "a.ipynb", "script": "a.py"}, "not notebook and script"),
        ({"notebook": "a.ipynb", "arguments": ["x"]}, "arguments go with a script"),
        ({"notebook": "a.ipynb", "working_directory": "x"}, "working_directory goes with a command"),
        ({"command": []}, "command: "),
        ({"command": [""]}, "program is empty"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"notebook": "a\0.ipynb"}, "NUL"),
        ({"notebook": "a.ipynb", "parametres": {}}, "parametres: "),
        ({"notebook": "a.ipynb", "name": "two\nlines"}, "name: must be one line"),
        ({"notebook": "a.ipynb", "name": "\x1b[2J"}, "name: must be one line"),
        ({"notebook": "a.ipynb", "experiment": ""}, "experiment: "),
        ({"notebook": "a.ipynb", "tags": {"lossi.job_id": "x"}}, "which is reserved"),
        ({"notebook": "a.ipynb", "tags": {"a": 1}}, "tags.a: "),
        ({"notebook": "a.ipynb", "max_parallel": 0}, "max_parallel: "),
        ({"notebook": "a.ipynb", "resources": {"memory": "lots"}}, "write 8G"),
        ({"notebook": "a.ipynb", "sweep": {"gird": {}}}, "one of the keys grid, list, random and csv"),
    ],
)
def test_an_invalid_request_is_refused_with_the_name_of_the_field(data: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        validated(data)
    assert caught.value.hint
    assert caught.value.details["errors"]


def test_a_spec_survives_being_written_and_read() -> None:
    data = {
        "notebook": "a.ipynb",
        "parameters": {"text": "\x85\u2028$(id)\n'\"", "nested": {"a": [1, None, True, 0.1]}, "nan": float("nan")},
        "sweep": {"random": {"x": {"choice": [1, "1"]}}, "samples": 3},
        "resources": {"memory": "1G", "time": "2h"},
    }
    spec = validated(data)
    again = JobSpec.model_validate(spec.model_dump())
    assert again.digest() == spec.digest()
    assert again.parameters["text"] == data["parameters"]["text"]  # type: ignore[index]


def test_the_digest_depends_on_the_request_not_on_its_spelling() -> None:
    request = validated({"notebook": "a.ipynb", "parameters": {"a": 1, "b": 2}, "resources": {"memory": "1G"}})
    same = validated({"parameters": {"b": 2, "a": 1}, "notebook": "a.ipynb", "resources": {"memory": 1024}})
    assert request.digest() == same.digest()
    assert (
        request.digest()
        != validated({"notebook": "a.ipynb", "parameters": {"a": 1, "b": "2"}, "resources": {"memory": "1G"}}).digest()
    )


def test_the_schema_says_that_memory_and_time_are_text_or_numbers() -> None:
    properties = JobSpec.model_json_schema()["$defs"]["Resources"]["properties"]
    for name in ("memory", "time"):
        assert {"type": "string"} in properties[name]["anyOf"][0]["anyOf"]
        assert properties[name]["description"]
