"""What a secret looks like, as text, as a file's name and as an environment variable, and texts without any."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

_TOKEN = (
    r"\bhf_[A-Za-z0-9]{20,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
"""Tokens of the Hub, of GitHub and of AWS, and private keys."""
_TOKEN_TEXT, _TOKEN_BYTES = re.compile(_TOKEN, re.ASCII), re.compile(_TOKEN.encode())
_CREDENTIALS_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+@")
_QUERY_OF_ADDRESS = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]*")

_FILE_NAMES = (
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.env", "env", "netrc", "id_rsa*", "id_ed25519*"),
    *("*credentials*", "*secret*", "*password*", "token", "token.txt", "hf_token*"),
)
_VARIABLE_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|APIKEY|(?:^|_)(?:TOKEN|KEYS?|AUTH|PAT)(?:_|$)|_PWD$", re.IGNORECASE
)
"""The words stand anywhere: a secret's name may end in what it is for (``AWS_SECRET_ACCESS_KEY``) or in ``_PATH``."""
_OUR_VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PREFECT_API_KEY"),
    *("PREFECT_API_AUTH_STRING", "MERGELINE_WEBHOOK_SECRET", "AWS_SECRET_ACCESS_KEY"),
)
"""Secrets of the programs used here. Not any variable of such a name: `DB_PASSWORD=postgres` is an ordinary word."""


def without_secrets(text: str) -> str:
    """Replace tokens, keys and passwords by ``***``, and the home directory, which names the user, by ``~``."""
    for secret in _values_of_our_variables():
        text = text.replace(secret, "***")
    text = _CREDENTIALS_IN_ADDRESS.sub("***@", _TOKEN_TEXT.sub("***", text))
    home = str(Path.home())
    return text if home == "/" else re.sub(re.escape(home) + r"(?![\w.-])", "~", text)


def without_queries(text: str) -> str:
    """Remove the queries of web addresses: those of a Hub's storage are signatures, as good as a token."""
    return _QUERY_OF_ADDRESS.sub(r"\1", text)


def one_line(text: str) -> str:
    """Render text as one line of at most 300 characters, without secrets."""
    line = " ".join(without_secrets(text).split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def holds_secret(content: bytes) -> bool:
    """Whether a file's content holds a token or a private key."""
    secrets = (secret.encode() for secret in _values_of_our_variables())
    return _TOKEN_BYTES.search(content) is not None or any(secret in content for secret in secrets)


def is_secret_file(name: str) -> bool:
    """Whether a file is named like those that hold secrets."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in _FILE_NAMES)


def environment_without_secrets() -> dict[str, str]:
    """Return this process's environment without what is named like a secret, or is an address with a password.

    Addresses of proxies stay: without its password a proxy lets nothing through.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not _VARIABLE_NAME.search(name)
        and (name.lower().endswith("_proxy") or not _CREDENTIALS_IN_ADDRESS.search(value))
    }


def _values_of_our_variables() -> list[str]:
    values = (os.environ.get(name, "").strip() for name in _OUR_VARIABLES)
    # A shorter value is a placeholder, and may be part of an ordinary word.
    return [value for value in values if len(value) >= 8]
