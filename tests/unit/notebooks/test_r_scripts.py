"""Scripts made from R notebooks, checked as text; test_r_for_real.py runs them."""

from __future__ import annotations

from typing import Any

import pytest

from lossi import notebooks
from lossi.notebooks import r_script

PARAMETERS = (
    "lr <- 0.1  # rate, 100% sure\nsteps <- 3L\nuse_it <- TRUE\nlayers <- c(1, 2)\noptions.x <- list(a = 1)\nname <- 'x'\nthing <- NULL",
    "parameters",
)


def test_text_of_an_r_script(notebook: Any) -> None:
    script = notebooks.script(
        notebooks.read(
            notebook(
                "md:# Title\n\nq()\x85q()",
                "x <- 1",
                PARAMETERS,
                ("q()", "skip-execution"),
                ("stop()", "raises-exception"),
                language="r",
            )
        )
    )
    assert (script.language, script.suffix) == ("r", ".R")
    assert script.text.startswith("#!/usr/bin/env Rscript\n# Title\n")
    assert '  list(name = "lr", type = "float", help = "rate, 100% sure (default: 0.1)"),\n' in script.text
    assert 'if ("options.x" %in% names(.args)) options.x <- .args[["options.x"]]' in script.text
    cells = script.text.split("\n# %%")[1:]
    assert cells[0].strip().split("\n") == ["[markdown]", "# # Title", "#", "# q()", "# q()"]
    assert cells[1].strip() == "x <- 1"
    assert cells[2].strip() == PARAMETERS[0]
    assert cells[3].startswith(" values from the command line")
    assert cells[4].strip() == "# q()"
    assert "tryCatch" in cells[5]


@pytest.mark.parametrize("text", ['a"b', "a\\", "é\u2028\n", "\0\ud800", "%d"])
def test_quoted_text_is_one_ascii_literal(text: str) -> None:
    quoted = r_script.quoted(text)
    assert quoted.isascii()
    assert "\n" not in quoted
    assert '"' not in quoted[1:-1].replace("\\\\", "").replace('\\"', "")
