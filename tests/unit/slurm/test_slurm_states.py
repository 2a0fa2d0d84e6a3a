"""Every state word of Slurm has a meaning here, and an unknown one breaks nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lossi.contract.states import CANCELLED, FAILED, OUT_OF_MEMORY, PREEMPTED, QUEUED, RUNNING, STATES, UNKNOWN
from lossi.jobs.schedulers.slurm import states

ALL = [
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
    "REQUEUED",
    "REQUEUE_HOLD",
    "RESIZING",
    "REVOKED",
    "SPECIAL_EXIT",
    "STOPPED",
    "CONFIGURING",
    "STAGE_OUT",
    "SIGNALING",
    "REQUEUE_FED",
    "RESV_DEL_HOLD",
    "EXPEDITING",
]


@pytest.mark.parametrize("word", ALL)
def test_every_word_is_known(word: str) -> None:
    assert word in states.MEANING
    assert states.state_of(word) in STATES


@pytest.mark.parametrize(
    ("text", "state", "word"),
    [
        ("CANCELLED by 1001", CANCELLED, "CANCELLED"),
        ("PREEMPTED", PREEMPTED, "PREEMPTED"),
        ("REQUEUED", QUEUED, "REQUEUED"),
        ("REQUEUE_HOLD", QUEUED, "REQUEUE_HOLD"),
        ("COMPLETING", RUNNING, "COMPLETING"),
        ("RUNNING,COMPLETING", RUNNING, "COMPLETING"),
        ("STOPPED", RUNNING, "STOPPED"),
        ("OUT_OF_MEMORY", OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        ("FAILED", FAILED, "FAILED"),
        ("REVOKED", UNKNOWN, "REVOKED"),
        ("BRAND_NEW", UNKNOWN, "BRAND_NEW"),
        ("", UNKNOWN, ""),
    ],
)
def test_words_with_additions(text: str, state: str, word: str) -> None:
    assert (states.state_of(text), states.word_of(text)) == (state, word)


@given(st.text())
def test_no_word_is_an_error(text: str) -> None:
    assert states.state_of(text) in STATES
