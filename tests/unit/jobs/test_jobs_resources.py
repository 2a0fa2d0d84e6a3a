"""What a task may request."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lossi.jobs.resources import Resources


def test_resources_take_text_and_numbers() -> None:
    resources = Resources.model_validate({"memory": "8G", "time": "1:00:00", "cpus": 4, "gpus": 1, "gpu_type": "a100"})
    assert (resources.memory, resources.time) == (8192, 3600)
    assert Resources.model_validate({"memory": 500, "time": 90}).record().time_limit_s == 90
    assert Resources.model_validate(resources.model_dump()) == resources


@pytest.mark.parametrize(
    "wrong",
    [{"memory": "0"}, {"memory": 0}, {"time": 0}, {"time": "0"}, {"cpus": 0}, {"cpus": True}, {"cpus": "4"}, {"cpus": 1.5}, {"gpus": -1},
     {"time": "367-00:00:00"}, {"partition": "gpu; rm -rf /"}, {"account": "--uid=0"}, {"qos": "a\nb"}, {"memory": True}, {"nodez": 2}],
)  # fmt: skip
def test_invalid_resources_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Resources.model_validate(wrong)
