"""The demonstration models, their questions, and one evaluation of them that many tests read."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.questions.directions import DEMONSTRATION_SEED, make_questions
from mergeline.evaluation.questions.task_questions import read_questions
from mergeline.evaluation.results import Answer, Evaluation, EvaluationSettings

DEMO_MODELS = Path(__file__).parents[2] / "deployments" / "local" / "demo_models"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small are three times slower on two threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def demo_models():
    return DEMO_MODELS


@pytest.fixture(scope="session")
def real_questions():
    """The thousand SpartQA questions that may lie beside the checkout; they are no part of it."""
    path = Path(__file__).parents[3] / "shared" / "data" / "spartqa_train_1k.jsonl"
    if not path.exists():
        pytest.skip("no shared/data folder beside the checkout")
    return path


@pytest.fixture
def demo_copy(tmp_path):
    """A copy of ``compass`` that a test may damage."""
    return Path(shutil.copytree(DEMO_MODELS / "compass", tmp_path / "compass"))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def questions_file(tmp_path_factory):
    rows = make_questions(1000, DEMONSTRATION_SEED)
    return write_lines(tmp_path_factory.mktemp("questions") / "train.jsonl", rows)


def slerp(a, b, t):
    cosine = torch.dot(a.flatten() / a.norm(), b.flatten() / b.norm())
    if cosine.abs() > 0.9995:
        return (1 - t) * a + t * b
    angle = torch.arccos(cosine)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def gradient_t(name):
    """The mission's gradients on two layers: [0 .. 1] over self_attn, [1 .. 0] over mlp, 0.5 elsewhere."""
    layer = re.search(r"layers\.(\d)\.", name)
    if layer and "self_attn" in name:
        return float(layer[1])
    if layer and "mlp" in name:
        return 1 - float(layer[1])
    return 0.5


def write_merge(directory, fraction):
    a = load_file(DEMO_MODELS / "compass" / "model.safetensors")
    b = load_file(DEMO_MODELS / "clock" / "model.safetensors")
    merged = {name: slerp(a[name].double(), b[name].double(), fraction(name)).float().contiguous() for name in a}
    shutil.copytree(DEMO_MODELS / "compass", directory)
    save_file(merged, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, questions_file):
    """Base, both parents, SLERP at 0.5 and SLERP by gradients on all 1,000 questions, in one process, by label."""
    work = tmp_path_factory.mktemp("evaluated")
    directories = {name: DEMO_MODELS / name for name in ("base", "compass", "clock")}
    directories["slerp"] = write_merge(work / "slerp", lambda name: 0.5)
    directories["gradients"] = write_merge(work / "gradients", gradient_t)
    settings = EvaluationSettings(task="spartqa_train", dataset="mergeline-demo/spartqa-directions")
    evaluations = evaluate_models(
        [ModelToEvaluate(label, directory) for label, directory in directories.items()],
        settings,
        read_questions(settings.task, questions_file, settings.dataset),
        cache_dir=work / "cache",
    )
    return {evaluation.label: evaluation for evaluation in evaluations}


@pytest.fixture
def made_up():
    """Make an evaluation from one target and one prediction a question, without any model."""

    def make(
        label, targets, predictions, clusters=None, task_hash="same", split="test", columns=None,
        log_probabilities=None, **settings,
    ):  # fmt: skip
        answers = tuple(
            Answer(
                question=str(number),
                cluster=str(number) if clusters is None else clusters[number],
                target=target,
                prediction=prediction,
                log_probabilities=tuple(0.0 if choice == prediction else -1.0 for choice in range(4))
                if log_probabilities is None
                else tuple(log_probabilities[number]),
                columns={} if columns is None else columns[number],
            )
            for number, (target, prediction) in enumerate(zip(targets, predictions, strict=True))
        )
        return Evaluation(
            label=label,
            model_digest=f"digest of {label}",
            settings=EvaluationSettings(task="spartqa_train", **settings),
            accuracy=sum(answer.is_correct for answer in answers) / len(answers) if answers else 0.0,
            stderr=0.0147,
            task_version="1.0",
            task_hash=task_hash,
            table="",
            answers=answers,
            split=split,
        )

    return make
