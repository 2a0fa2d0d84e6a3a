"""Detect likely secrets: files to leave out of snapshots, and text to mask in diffs. Pure functions.

Heuristic: finds the usual forms, not every secret. A false positive is only left out or masked.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

NAMES = (
    ".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".htpasswd", ".git-credentials", ".pypirc",
    ".npmrc", ".dockercfg", ".renviron", "kubeconfig", "kaggle.json", "credentials", "credentials.*", "client_secret*.json",
    "*service-account*.json", "*service_account*.json", "secret", "secrets", "secret.*", "secrets.*", "token", "*.token", "*_token",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk",
    "*.gpg",
)  # fmt: skip
"""Names of files, compared in lower case."""

FOLDERS = (".ssh", ".aws", ".gnupg", ".kube", ".docker")

HARMLESS = ("*.example", "*.sample", "*.template", "*.dist", "*.py", "*.r", "*.ipynb", "*.md", "*.pub")
"""Patterns of templates and code."""

PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")

WORDS = rb"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key|credentials?)"

# A name that ends in such a word (not `tokenizer`, `max_tokens`), then quoted text of four or more characters; the quotes can be
# escaped, as in a notebook's JSON. Bounded spaces and possessive quantifiers keep matching linear on any input.
QUOTED = re.compile(
    rb"""((?<![A-Za-z])""" + WORDS + rb"""(?![A-Za-z])[\w-]{0,60}(?:\\?["'])?\]?[ \t]{0,20}(?::[ \t]{0,20}[\w.]{1,60}[ \t]{0,20})?"""
    rb"""(?:=>|<-|[:=])[ \t]{0,20}[rbf]?(\\?["']))(?:(?!\2)[^\r\n]){4,}+""",
    re.IGNORECASE,
)  # fmt: skip

# `PASSWORD=hunter2` of an environment file or shell line, and `password: hunter2` of YAML, to the end of the line.
BARE = re.compile(
    rb"""(?m)^([+\- ]?[ \t]{0,200}(?:export[ \t]{1,20})?[\w.-]{0,100}?(?<![A-Za-z])""" + WORDS +
    rb"""(?:(?<=[A-Z_])=|[ \t]{0,20}:[ \t]{1,20}))([^\s"'()\[\]{},\\<>|&]{6,}+)[ \t]{0,20}$""",
    re.IGNORECASE,
)  # fmt: skip

SHAPES = re.compile(
    rb"""
      (?:AKIA|ASIA)[0-9A-Z]{16}                                  # AWS
    | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,}  # GitHub
    | glpat-[A-Za-z0-9_-]{20,}                                   # GitLab
    | hf_[A-Za-z0-9]{20,}                                        # Hugging Face
    | sk-[A-Za-z0-9_-]{20,}                                      # OpenAI and others
    | xox[abeoprs]-[A-Za-z0-9-]{10,}                             # Slack
    | AIza[0-9A-Za-z_-]{35}                                      # Google
    | npm_[A-Za-z0-9]{30,} | pypi-[A-Za-z0-9_-]{40,}
    | AGE-SECRET-KEY-1[0-9A-Z]{40,}
    | (?<![A-Za-z0-9_])eyJ[A-Za-z0-9_-]{10,1000}+\.eyJ[A-Za-z0-9_-]{10,8000}+\.[A-Za-z0-9_-]{10,}+   # JSON web token
    """,
    re.VERBOSE,
)

IN_URL = re.compile(rb"""(://[^\s/:@"']{0,200}:)([^\s/@"']{1,500})(@)""")

KEY_BLOCK = re.compile(rb"(-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)(.*?)(-----END |\Z)", re.DOTALL)

MASK = b"***"


def suspicious_name(path: str) -> bool:
    """Return whether a file with this path (with forward slashes) usually contains secrets."""
    *folders, name = path.lower().split("/")
    if any(fnmatchcase(name, pattern) for pattern in HARMLESS):
        return False
    return any(folder in FOLDERS for folder in folders) or any(fnmatchcase(name, pattern) for pattern in NAMES)


def holds_private_key(data: bytes) -> bool:
    """Return whether a file's content contains a private key in PEM format."""
    return PRIVATE_KEY.search(data) is not None


def masked(diff: bytes) -> bytes:
    """Return a diff with likely secrets replaced by ``***``; the number of lines stays the same."""
    diff = KEY_BLOCK.sub(lambda match: match[1] + re.sub(rb"(?m)^([+\- ]?)[^\n]+$", rb"\1***", match[2]) + match[3], diff)
    diff = IN_URL.sub(rb"\1***\3", diff)
    diff = SHAPES.sub(MASK, diff)
    diff = QUOTED.sub(rb"\1***", diff)
    return BARE.sub(rb"\1***", diff)
