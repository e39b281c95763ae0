"""What must not be recorded: tokens, passwords and the user's home directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PREFECT_API_KEY",
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_CREDENTIALS_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+@")


def without_secrets(text: str) -> str:
    """Replace tokens and passwords by ``***`` and the home directory, which holds the user's name, by ``~``."""
    for variable in _SECRET_VARIABLES:
        # A shorter value is a placeholder, and might be part of an ordinary word.
        if len(secret := os.environ.get(variable, "")) >= 8:
            text = text.replace(secret, "***")
    text = _CREDENTIALS_IN_ADDRESS.sub("***@", _HUB_TOKEN.sub("***", text))
    home = str(Path.home())
    return text if home == "/" else re.sub(re.escape(home) + r"(?![\w.-])", "~", text)


def one_line(error: BaseException) -> str:
    """Render an exception as one line of at most 300 characters, without secrets."""
    text = " ".join(without_secrets(str(error)).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
