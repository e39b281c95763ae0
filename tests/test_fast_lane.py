"""What ``make test-fast`` runs imports nothing that belongs to a server, and would say so if it did."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_in_the_fast_lane(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in one process with the lane's plugin, from the project's folder."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.fixtures.fast_lane", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


@pytest.mark.slow
def test_nothing_that_the_lane_collects_imports_a_server() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (lane,) = re.findall(r"^FAST := (.*)$", makefile, re.MULTILINE)
    assert "-p tests.fixtures.fast_lane" in makefile
    collected = pytest_in_the_fast_lane("--collect-only", *lane.split())
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert "tests/merge/test_merge.py::" in collected.stdout


@pytest.mark.parametrize("place", ["", "def test_it():\n    "], ids=["while collecting", "while running"])
def test_a_server_that_is_imported_fails_the_lane(place: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").touch()
    (tmp_path / "test_planted.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{place}import mlflow\ndef test_other(): ...\n"
    )
    run = pytest_in_the_fast_lane(str(tmp_path / "test_planted.py"))
    assert run.returncode != 0
    assert "the fast lane has imported mlflow" in run.stdout + run.stderr
