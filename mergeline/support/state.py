"""Where Mergeline keeps what it makes between runs: merges, evaluations, its servers' databases."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """Return ``$MERGELINE_HOME``, or ``.mergeline`` in the working directory; it may not exist yet."""
    return Path(os.environ.get("MERGELINE_HOME") or ".mergeline").absolute()
