"""The environment mergekit runs in, apart from ours: mergekit is LGPL and wants other versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MERGEKIT = "mergekit==0.1.5"
TORCH = "torch==2.13.0"
"""The torch Mergeline is built on, so that the two differ in nothing else."""


def mergekit_python(given: Path | None) -> Path:
    """Return the Python of an environment with mergekit, made in the user's cache directory unless one is given."""
    if given is not None:
        # Not resolved: a virtual environment is found by the path of its own link to Python.
        return given.absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = cache / "mergeline-benchmarks" / MERGEKIT.replace("==", "-")
    python = environment / "bin" / "python"
    if not python.with_name("mergekit-yaml").exists():
        print(f"Making {environment} with {MERGEKIT}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", MERGEKIT, TORCH], check=True)
    return python


def installed_versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of ``packages`` in an environment, and its Python's."""
    code = (
        "import platform, sys\n"
        "from importlib.metadata import version\n"
        "print(platform.python_version(), *map(version, sys.argv[1:]))"
    )
    command = [python, "-c", code, *packages]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(zip(("python", *packages), output.split(), strict=True))
