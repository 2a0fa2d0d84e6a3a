"""A file of a user never acts in the portal's name."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given, strategies as st

from lossi.files.downloads import headers


@pytest.mark.parametrize(
    "name", ["x.html", "x.svg", "x.xml", "x.xhtml", "x.pdf", "x.js", "x.mht", "x", "x.bin", "x.ipynb", "x.swf"]
)
def test_active_content_is_downloaded_not_displayed(name: str) -> None:
    answer = headers(name)
    assert answer["Content-Disposition"].startswith("attachment;")
    assert not any(word in answer["Content-Type"] for word in ("html", "svg", "xml", "script", "pdf"))


@pytest.mark.parametrize(
    "media_type", ["text/html", "image/svg+xml", "text/html; charset=x", "text/css\r\nX: y", "application/xhtml+xml", ""]
)
def test_a_claimed_type_is_not_trusted_either(media_type: str) -> None:
    answer = headers("picture.png", media_type)
    if media_type:
        assert answer["Content-Disposition"].startswith("attachment;")
        assert answer["Content-Type"] in ("application/octet-stream", "text/css")
    assert all("\n" not in value for value in answer.values())


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("p.png", "image/png"),
        ("p.JPG", "image/jpeg"),
        ("a.log", "text/plain; charset=utf-8"),
        ("a.csv", "text/plain; charset=utf-8"),
        ("a.py", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
    ],
)
def test_harmless_content_is_displayed(name: str, sent: str) -> None:
    answer = headers(name)
    assert answer["Content-Type"] == sent
    assert answer["Content-Disposition"].startswith("inline;")


@given(st.text(min_size=1))
def test_any_name_gives_safe_headers_and_survives(name: str) -> None:
    answer = headers(name)
    assert "sandbox" in answer["Content-Security-Policy"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    for value in answer.values():
        value.encode("ascii")
        assert not any(c < " " for c in value)
    exact = answer["Content-Disposition"].split("filename*=UTF-8''")[1]
    base = name.replace("\\", "/").rsplit("/", 1)[-1] or "download"
    assert unquote(exact) == base
    assert answer["Content-Disposition"].count('"') == 2


def test_a_name_that_is_not_utf8() -> None:
    assert "%FF" in headers("a\udcff.txt")["Content-Disposition"]
