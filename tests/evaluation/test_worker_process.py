import json
import os
import subprocess
import sys

import pytest
import torch

from mergeline.errors import EvaluationError
from mergeline.evaluation.worker.__main__ import ORPHANED, is_out_of_memory
from mergeline.evaluation.worker.process import run_worker, worker_environment


def test_no_secret_reaches_the_worker_and_it_is_offline(monkeypatch):
    secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "PREFECT_API_KEY", "AWS_SECRET", "DB_PASSWORD")
    for name in (*secrets, "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hf_secret")
    environment = worker_environment()
    assert "hf_secret" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == environment["HF_DATASETS_OFFLINE"] == "1"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_crash_is_told_with_the_last_lines():
    with pytest.raises(EvaluationError) as raised:
        run_worker({"job": "no such job"}, time_limit_seconds=60)
    first, *others = str(raised.value).splitlines()
    assert first == "Starting the evaluation process: the process ended with exit status 1."
    assert others[-1] == "    KeyError: 'no such job'"


def test_a_worker_that_takes_too_long_is_stopped():
    request = {"job": "sample", "models": [], "prompts": [], "device": "cpu"}
    with pytest.raises(
        EvaluationError, match=r"Starting the evaluation process: stopped after the time limit of 0\.1 s"
    ):
        run_worker(request, time_limit_seconds=0.1)


def test_a_worker_leaves_with_its_parent(tmp_path):
    (tmp_path / "request.json").write_text(json.dumps({"job": "sample", "models": [], "prompts": [], "device": "cpu"}))
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "mergeline.evaluation.worker", str(tmp_path / "request.json")],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=worker_environment(),
    )
    worker.stdin.close()
    assert worker.wait(60) == ORPHANED


def test_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
