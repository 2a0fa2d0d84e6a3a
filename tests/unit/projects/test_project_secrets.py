"""The usual forms of secrets are found, and code that only speaks of them is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lossi.projects.secrets import holds_private_key, masked, suspicious_name

SECRET = "hunter2Hunter2"


@pytest.mark.parametrize(
    "line",
    [
        f"password = '{SECRET}'",
        f'DB_PASSWORD="{SECRET}"',
        f"PASSWORD={SECRET}",
        f"export WANDB_API_KEY={SECRET}",
        f"password: {SECRET}",
        f"  api-key: {SECRET}",
        f'"token": "{SECRET}"',
        f"os.environ['HF_TOKEN'] = '{SECRET}'",
        f'client = Client(api_key="{SECRET}", user="me")',
        f'    "API_KEY = \\"{SECRET}\\"\\n",',
        f"secret <- '{SECRET}'",
        f"aws_secret_access_key = '{SECRET}'",
        f"token: str = '{SECRET}'",
        f"https://me:{SECRET}@example.org/x",
        f"postgresql://me:{SECRET}@db/x",
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_" + "a1B2" * 9,
        "hf_" + "a1B2" * 9,
        "xoxb-1234567890-abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ],
)
@pytest.mark.parametrize("sign", ["+", "-", " "])
def test_secrets_are_masked(line: str, sign: str) -> None:
    shown = masked(f"{sign}{line}\n".encode())
    assert b"***" in shown
    for word in (SECRET, "AKIAABC", "a1B2", "1234567890", "dozjg"):
        assert word.encode() not in shown
    assert shown.startswith(sign.encode()) and shown.endswith(b"\n")


@pytest.mark.parametrize(
    "line",
    [
        "tokenizer = AutoTokenizer.from_pretrained('bert-base-uncased')",
        "max_tokens = 4096",
        "token_ids = encode(text)",
        "tokens = 'a b c d'",
        "password = getpass.getpass()",
        "secret = os.environ['SECRET']",
        "def login(user, password):",
        "key = 'accuracy_score'",
        "keys: list[str] = ['abcdef']",
        "x = data['compass'] + 1",
        "see https://example.org:8080/path@v1",
        "accuracy: 0.9731234",
    ],
)
def test_code_is_not_masked(line: str) -> None:
    assert masked(f"+{line}\n".encode()) == f"+{line}\n".encode()


def test_private_key_is_masked_line_by_line() -> None:
    key = b"+-----BEGIN RSA PRIVATE KEY-----\n+MIIEabc\n+defg==\n+-----END RSA PRIVATE KEY-----\n+x = 1\n"
    shown = masked(key)
    assert b"MIIE" not in shown and b"defg" not in shown
    assert shown.count(b"\n") == key.count(b"\n")
    assert shown.endswith(b"+x = 1\n")
    assert holds_private_key(key)
    assert not holds_private_key(b"-----BEGIN PUBLIC KEY-----\n")
    assert b"MIIE" not in masked(b"+-----BEGIN PRIVATE KEY-----\n+MIIEabc\n")


@given(st.binary(max_size=300))
def test_masking_keeps_the_number_of_lines(data: bytes) -> None:
    assert masked(data).count(b"\n") == data.count(b"\n")


def test_masking_takes_linear_time_on_hostile_text() -> None:
    for text in (
        b"token" * 100_000,
        b"password = '" * 40_000,
        b"+ " + b"a" * 500_000,
        b"eyJ" * 100_000,
        b"eyJ-" * 100_000,
        b"\n" * 200_000,
        b"password = '" + b"x" * 500_000,
        b"https://a:" * 50_000,
        b"token:" + b" " * 200_000,
        b"-----BEGIN PRIVATE KEY-----\n" * 10_000,
    ):
        masked(text)


@pytest.mark.parametrize(
    "path",
    [".env", "a/.ENV.prod", "id_rsa", "x/y.pem", "k.key", ".ssh/config", "credentials", "secrets.yaml", ".netrc", "my_token"],
)
def test_names_of_secrets(path: str) -> None:
    assert suspicious_name(path)


@pytest.mark.parametrize(
    "path",
    [
        "train.py",
        "tokenizer.json",
        "tokens.txt",
        ".env.example",
        "secrets.py",
        "credentials.md",
        "environment.yml",
        "key.py",
        "monkey.txt",
    ],
)
def test_names_of_ordinary_files(path: str) -> None:
    assert not suspicious_name(path)
