"""The examples of docs/python.md, run one after another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mergeline
from deployments.loopback_hub import LOCAL_TOKEN, LocalHub

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_examples_run_without_prefect(tmp_path: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compass", "clock"):
        shutil.copytree(ROOT / "deployments" / "local" / "demo_models" / name, tmp_path / name)
    for name, value in (("HF_ENDPOINT", local_hub.endpoint), ("HF_TOKEN", LOCAL_TOKEN), ("MERGELINE_HOME", "state")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    program = "\n".join([*BLOCKS, "import sys; print('prefect loaded:', 'prefect' in sys.modules)"])
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("prefect loaded: False\n")
    assert "my-merge against clock: better" in run.stdout or "no detectable difference" in run.stdout
    assert "MLflow run: " in run.stdout
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "my-merge" / "model.safetensors"
    ).read_bytes()


def test_every_public_name_is_described_and_found() -> None:
    for name in mergeline.__all__:
        assert getattr(mergeline, name).__doc__ or name.isupper(), name
    text = DOCUMENT.read_text()
    named = set(re.findall(r"\bml\.([A-Za-z_]+)", text))
    assert named <= set(mergeline.__all__)
