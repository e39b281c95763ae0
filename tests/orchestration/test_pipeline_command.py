"""``mergeline run`` as a user runs it: a process of its own, a Hub over HTTP, nothing kept from earlier runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi

from deployments.local.demo import TOKEN, environment, fill
from deployments.loopback_hub import LocalHub
from mergeline.evaluation.questions.directions import DEMONSTRATION_SEED, make_questions
from mergeline.plan.plan_file import PLAN_NAME, read_plan
from tests.builders.tiny_checkpoints import make_mistral

pytestmark = [
    pytest.mark.slow,
    # huggingface_hub 2.4 hands the bodies of LFS uploads to httpx2 in a way that httpx2 is about to drop.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Workplace:
    """An empty directory to work in, a fresh state directory and a Hub with the demonstration models."""

    hub: LocalHub
    directory: Path
    variables: dict[str, str]

    @property
    def state(self) -> Path:
        return Path(self.variables["MERGELINE_HOME"])

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[str]:
        """Start Python in a process group of its own; what it says on stderr goes to ``log``."""
        with log.open("w") as stderr:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.directory,
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> tuple[dict[str, Any], str]:
        """Run Python to a good end; return the JSON it printed and what it said on stderr."""
        log = self.directory / "stderr.txt"
        with self.start(*arguments, log=log) as process:
            output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, log.read_text()
        return json.loads(output), log.read_text()

    def commit_titles(self, repo_id: str) -> list[str]:
        api = HfApi(endpoint=self.hub.endpoint, token=TOKEN)
        return [commit.title for commit in api.list_repo_commits(repo_id)]

    def task_runs(self, flow_run_name: str) -> list[tuple[str, str]]:
        """Return (name, state) of every task run of the flow runs of that name, from Prefect's database."""
        query = (
            "SELECT task_run.name, task_run.state_type FROM task_run JOIN flow_run "
            "ON flow_run.id = task_run.flow_run_id WHERE flow_run.name = ?"
        )
        with sqlite3.connect(self.state / "prefect" / "prefect.db") as database:
            rows = database.execute(query, [flow_run_name]).fetchall()
        database.close()
        return rows


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("command")
    (folder / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch, LocalHub(folder / "hub") as hub:
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        fill(hub.endpoint)
        patch.setenv("MERGELINE_HOME", str(folder / "state"))
        # The settings that other tests' Prefect needs are not those a user's shell has.
        own = ("PREFECT_", "MLFLOW_", "DO_NOT_TRACK")
        variables = {name: value for name, value in environment(hub.endpoint).items() if not name.startswith(own)}
        yield Workplace(hub, folder / "elsewhere", variables | {"PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def demo(workplace: Workplace) -> dict[str, Any]:
    """What ``mergeline run configs/pipelines/demo.yaml --json`` answers."""
    answer, _ = workplace.run("-m", "mergeline", "run", str(ROOT / "configs/pipelines/demo.yaml"), "--json")
    return answer


def test_the_merge_knows_what_its_parents_know_in_halves(demo: dict[str, Any]) -> None:
    report = demo["reports"][0]
    accuracies = {
        evaluation["label"]: evaluation["accuracy"] for evaluation in (*report["references"], report["merge"])
    }
    assert accuracies == {
        "mergeline-demo/base": 0.494,
        "mergeline-demo/compass": 0.746,
        "mergeline-demo/clock": 0.755,
        "demo-slerp": 1.0,
    }
    assert len(report["merge"]["answers"]) == 1000
    verdicts = {comparison["reference"]: comparison["verdict"] for comparison in report["comparisons"]}
    assert verdicts == {"mergeline-demo/compass": "better", "mergeline-demo/clock": "better"}
    assert len(demo["samples"]) == 3 * 2
    assert demo["publication"]["repo_id"] == "mergeline/demo-slerp"


def test_prefects_database_holds_every_task_run_in_a_final_state(workplace: Workplace, demo: dict[str, Any]) -> None:
    runs = workplace.task_runs("demo-slerp")
    assert {state for _, state in runs} == {"COMPLETED"}
    # Prefect adds three random digits to the names of Prefect tasks that have none of their own.
    bare = Counter(name if " " in name else name.rpartition("-")[0] for name, _ in runs)
    assert bare == Counter(
        [
            "plan",
            *(f"fetch mergeline-demo/{model}" for model in ("compass", "clock", "base")),
            *(f"merge model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)),
            *("assemble", "verify", "fetch-questions", "evaluate spartqa_train", "sample"),
            *("open-run", "publish mergeline/demo-slerp", "track"),
        ]
    )
    assert [path.name for path in workplace.directory.iterdir()] == ["stderr.txt"]


SCORE = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
repo_id, prompts = sys.argv[1], json.load(open(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(repo_id)
model = AutoModelForCausalLM.from_pretrained(repo_id)
letters = [tokenizer(f" {letter}")["input_ids"][-1] for letter in "ABCD"]
answers = []
for prompt in prompts:
    with torch.inference_mode():
        logits = model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits
    answers.append("ABCD"[int(logits[0, -1, letters].argmax())])
print(json.dumps(answers))
"""


def test_what_is_published_loads_in_transformers_and_knows_as_much(workplace: Workplace, demo: dict[str, Any]) -> None:
    questions = make_questions(1000, DEMONSTRATION_SEED)
    prompts = [
        f"Context:\n{question['story']}\n\nQuestion: {question['question']}\n"
        "A. left\nB. right\nC. above\nD. below\nAnswer:"
        for question in questions
    ]
    (workplace.directory / "prompts.json").write_text(json.dumps(prompts))
    answers, _ = workplace.run("-c", SCORE, "mergeline/demo-slerp", "prompts.json")
    right = [answer == question["answer"] for answer, question in zip(answers, questions, strict=True)]
    assert sum(right) / len(right) == demo["reports"][0]["merge"]["accuracy"] == 1.0


HEADLINE_PARENTS = {
    "OpenPipe/mistral-ft-optimized-1218": (torch.bfloat16, 32_000),
    "mlabonne/NeuralHermes-2.5-Mistral-7B": (torch.float16, 32_002),
}
"""Names, dtypes and vocabularies are the true ones; the width is not."""


@pytest.fixture
def headline_parents(workplace: Workplace, tmp_path: Path) -> None:
    """What configs/pipelines/marcoro14-7b-slerp.yaml names, on the Hub: 32 narrow layers each, and questions."""
    api = HfApi(endpoint=workplace.hub.endpoint, token=TOKEN)
    base = None
    for seed, (repo_id, (dtype, rows)) in enumerate(HEADLINE_PARENTS.items()):
        folder = tmp_path / repo_id
        shape = {"vocabulary": rows, "layers": 32, "hidden": 32, "intermediate": 64}
        base = make_mistral(folder, seed, dtype=dtype, base=base, **shape)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "deployments/local/demo_models/base" / name, folder)
        api.create_repo(repo_id)
        api.upload_folder(repo_id=repo_id, folder_path=folder)
    questions = "\n".join(json.dumps(question) for question in make_questions(40, DEMONSTRATION_SEED))
    dataset = {"repo_id": "my-hf-username/spartqa-train-1k", "repo_type": "dataset"}
    api.create_repo(**dataset)
    api.upload_file(path_or_fileobj=f"{questions}\n".encode(), path_in_repo="train.jsonl", **dataset)


def test_the_headline_pipeline_runs_as_it_stands(workplace: Workplace, headline_parents: None) -> None:
    pipeline = str(ROOT / "configs/pipelines/marcoro14-7b-slerp.yaml")
    answer, _ = workplace.run("-m", "mergeline", "run", pipeline, "--set", "sample.max_new_tokens=8", "--json")
    directory = Path(answer["directory"])
    plan = read_plan(directory / PLAN_NAME)
    assert plan.tensor_count == 291
    assert {tensor.dtype for shard in plan.shards for tensor in shard.tensors} == {"BF16"}
    fractions = {tensor.name: tensor.settings["t"] for shard in plan.shards for tensor in shard.tensors}
    # Layer k stands at 4 k / 31 of the five values given.
    for k in range(32):
        position, left = (4 * k / 31) % 1, min(4 * k // 31, 3)
        position = 1.0 if k == 31 else position
        for kind, curve in (("self_attn.q_proj", [0, 0.5, 0.3, 0.7, 1]), ("mlp.up_proj", [1, 0.5, 0.7, 0.3, 0])):
            expected = (1 - position) * curve[left] + position * curve[left + 1]
            assert fractions[f"model.layers.{k}.{kind}.weight"] == pytest.approx(expected, abs=1e-12)
    assert fractions["lm_head.weight"] == fractions["model.layers.7.input_layernorm.weight"] == 0.5
    assert json.loads((directory / "config.json").read_text())["vocab_size"] == 32_000
    report = answer["reports"][0]
    assert [each["label"] for each in report["references"]] == list(HEADLINE_PARENTS)
    assert len(report["merge"]["answers"]) == 40
    words = {"better", "worse", "no detectable difference"}
    assert {comparison["verdict"] for comparison in report["comparisons"]} <= words
    prompts = Counter(sample["prompt"] for sample in answer["samples"])
    assert prompts == {"Who are you?": 3, "Translate this sentence to Vietnamese: Good morning": 3}
    assert answer["publication"]["repo_id"] == "mergeline/Marcoro14-7B-slerp"
    card = HfApi(endpoint=workplace.hub.endpoint, token=TOKEN).hf_hub_download(
        "mergeline/Marcoro14-7B-slerp", "README.md", local_dir=directory.parent / "card"
    )
    text = Path(card).read_text()
    assert "base_model_relation: merge" in text
    assert all(f"- {name}\n" in text for name in HEADLINE_PARENTS)


RECIPE = """\
merge_method: slerp
base_model: {directory}/first
models:
  - model: {directory}/first
  - model: {directory}/second
parameters:
  t: 0.3
"""

PIPELINE = """\
name: interrupted
recipe: recipe.yaml
execute: {max_shard_size: 8MB}
evaluate: {tasks: []}
sample: {prompts: []}
publish: {when: always, repo_id: interrupted}
"""


def test_a_killed_run_goes_on_where_it_was_and_publishes_once(
    workplace: Workplace, demo: dict[str, Any], tmp_path: Path
) -> None:
    for seed, name in enumerate(("first", "second")):
        size = {"vocabulary": 4096, "layers": 10, "hidden": 512, "intermediate": 1536}
        make_mistral(tmp_path / name, seed, dtype=torch.float32, **size)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(directory=tmp_path))
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    command = ("-m", "mergeline", "run", str(tmp_path / "pipeline.yaml"), "--json")

    with workplace.start(*command, log=tmp_path / "killed.txt") as process:
        partial = killed_after_a_shard(process, workplace.state / "merges")
        assert process.stdout is not None
        assert process.stdout.read() == ""
    finished = {path.name[1:].removesuffix(".done.json") for path in partial.glob(".*.done.json")}
    before = {name: (partial / name).stat() for name in finished}
    assert not list(partial.parent.glob("interrupted-*"))

    answer, log = workplace.run(*command)

    directory = Path(answer["directory"])
    shards = {path.name for path in directory.glob("*.safetensors")}
    assert 0 < len(finished) < len(shards)
    for name, earlier in before.items():
        found = (directory / name).stat()
        assert (found.st_ino, found.st_mtime_ns) == (earlier.st_ino, earlier.st_mtime_ns)
        assert f"Found finished {name}" in log
    assert all(f"Wrote {name}" in log for name in shards - finished)
    assert log.count("Found finished") == len(finished)
    assert not partial.exists()
    title, initial = workplace.commit_titles("mergeline/interrupted")
    assert title.startswith("Publish a merge made by Mergeline")
    assert initial == "initial commit"
    # Of the killed run itself Prefect may know nothing: it was told by a process that is no more.
    completed = Counter(name for name, state in workplace.task_runs("interrupted") if state == "COMPLETED")
    assert {f"merge {name}" for name in shards} <= set(completed)


def killed_after_a_shard(process: subprocess.Popen[str], merges: Path) -> Path:
    """Kill a run's process group as soon as one shard is finished; return the unfinished directory."""
    deadline = time.monotonic() + 120
    while True:
        records = list(merges.glob(".interrupted-*.partial/.*.done.json"))
        if records:
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            return records[0].parent
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
