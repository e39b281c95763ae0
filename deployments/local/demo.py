"""The demonstration: a loopback Hub and two pipelines, one with a difference and one without."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from mergeline.evaluation.questions.directions import DEMONSTRATION_SEED, make_questions
from mergeline.support.state import state_directory, state_folder
from mergeline.support.text import table

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).parent / "demo_models"
QUESTION_COUNT = 1000
TOKEN = LOCAL_TOKEN

DATASET_CARD = """\
---
license: apache-2.0
---
Questions of the SpartQA kind about the direction between two objects, made by Mergeline's generator `directions`.
"""


def hub_directory() -> Path:
    """Return the folder of the demonstration's Hub."""
    return state_folder("demo-hub")


def fill(endpoint: str) -> None:
    """Upload the demonstration models and questions to a Hub, where they are not there already."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=TOKEN)
    for directory in sorted(path for path in MODELS.iterdir() if path.is_dir()):
        repo_id = f"mergeline-demo/{directory.name}"
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message="Add the trained model")
    repo_id = "mergeline-demo/spartqa-directions"
    api.create_repo(repo_id, repo_type="dataset", exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps(question) for question in make_questions(QUESTION_COUNT, DEMONSTRATION_SEED)]
        Path(folder, "train.jsonl").write_text("\n".join(lines) + "\n")
        Path(folder, "README.md").write_text(DATASET_CARD)
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="Add the questions")


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment in which a command uses the loopback Hub and none of the user's own settings."""
    return os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(state_folder("demo-hf")),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        # Models this small are slower with several threads.
        "OMP_NUM_THREADS": "1",
        "MERGELINE_HOME": str(state_directory()),
    }


def describe(result: Mapping[str, Any]) -> str:
    """Return scores, verdicts, samples and addresses as text, from the output of ``mergeline run --json``."""
    (report,) = result["reports"]
    rows = [
        (model["label"], f"{model['accuracy']:.3f}", f"±{model['stderr']:.4f}")
        for model in (*report["references"], report["merge"])
    ]
    lines = [*table(("model", "spartqa_train acc", "stderr"), rows), ""]
    for pair in report["comparisons"]:
        interval = f"95 % interval {pair['low']:+.3f} to {pair['high']:+.3f}"
        counts = f"{pair['wins']} won, {pair['losses']} lost"
        against = f"{pair['label']} against {pair['reference']}"
        lines.append(f"{against}: {pair['verdict']} ({pair['difference']:+.3f}, {interval}; {counts})")
    lines += ["", *(f"{sample['label']}: {sample['prompt']} ->{sample['completion']}" for sample in result["samples"])]
    lines += ["", f"Model: {result['directory']}", f"On the Hub: {result['publication']['url']}"]
    return "\n".join(lines)


def main() -> int:
    """Run both pipelines and print their results."""
    parser = argparse.ArgumentParser(prog="python -m deployments.local.demo", description=__doc__)
    parser.add_argument("--fill", metavar="ENDPOINT", help="only put models and questions on the local Hub there")
    if endpoint := parser.parse_args().fill:
        fill(endpoint)
        return 0
    with LocalHub(hub_directory()) as hub:
        os.environ.update(environment(hub.endpoint))
        print(f"Local Hub at {hub.endpoint}: putting the demonstration models there.", flush=True)
        fill(hub.endpoint)
        results: list[dict[str, Any]] = []
        for name in ("demo", "demo-gradients"):
            pipeline = ROOT / "configs" / "pipelines" / f"{name}.yaml"
            print(f"\n$ mergeline run {pipeline.relative_to(ROOT)}", flush=True)
            command = [sys.executable, "-m", "mergeline", "run", str(pipeline), "--json"]
            run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            if run.returncode:
                return run.returncode
            results.append(json.loads(run.stdout))
    for result in results:
        print(f"\n{describe(result)}")
    print(
        "\nThe prompts mean nothing to models of 55 words; questions about directions are what they learned.\n"
        "Next: `make up` opens the Hub with both models, every Prefect run, and MLflow, where the runs of "
        "experiment `demo` stand side by side.\n"
        "Your own merge: copy configs/pipelines/demo.yaml and its recipe, name your models, `mergeline run` it."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
