"""Pipelines that cannot work: said in one line each, before a server is started or anything is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from deployments.local.demo import TOKEN
from deployments.loopback_hub import LocalHub
from mergeline.cli.command_line import main
from tests.builders.tiny_checkpoints import make_mistral

RECIPE = "merge_method: slerp\nbase_model: a\nmodels:\n  - model: a\n  - model: b\nparameters:\n  t: 0.5\n"

GOOD = {
    "name": "good",
    "recipe": "recipe.yaml",
    "evaluate": {"dataset": "questions.jsonl"},
    "publish": {"when": "always", "repo_id": "good"},
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with two models, a question, a recipe, and a Hub that has none of them."""
    workplace = tmp_path / "workplace"
    for seed, name in enumerate("ab"):
        make_mistral(workplace / name, seed, dtype=torch.float32)
    (workplace / "recipe.yaml").write_text(RECIPE)
    question = {"story": "A is left of B.", "question": "Where is A?", "candidate_answers": list("wxyz"), "answer": "A"}
    (workplace / "questions.jsonl").write_text(json.dumps(question) + "\n")
    # Whoever passes all checks ends here, with another sentence, and not in a server.
    monkeypatch.setitem(sys.modules, "flows.embedded", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.chdir(workplace)
    with LocalHub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MERGELINE_HOME", str(workplace / "state"))
        yield workplace


BROKEN: dict[str, tuple[dict[str, object], list[str], str]] = {
    "unknown key": ({"evalute": {}}, [], "pipeline.yaml:8: evalute: unknown key. Did you mean `evaluate`?"),
    "bad name": ({"name": "my merge"}, [], "pipeline.yaml:1: name: string should match pattern"),
    "no store of MLflow's": (
        {"track": {"uri": "file:///runs"}},
        [],
        "pipeline.yaml:9: track.uri: string should match pattern",
    ),
    "missing recipe": ({"recipe": "no.yaml"}, [], "no.yaml: no such recipe file; check the path."),
    "nowhere to publish": (
        {"publish": {"when": "always"}},
        [],
        "good: publish.repo_id is empty and publish.when is `always`; name a repository, or set publish.when to never.",
    ),
    "unknown lm-eval task": (
        {"evaluate": {"tasks": ["spartqa_trian"], "dataset": "questions.jsonl"}},
        [],
        "lm-eval has no task 'spartqa_trian'; did you mean spartqa_train",
    ),
    "missing dataset": ({"evaluate": {"dataset": "nobody/nothing"}}, [], "nobody/nothing at http://127.0.0.1:"),
    "missing questions": ({"evaluate": {"dataset": "no.jsonl"}}, [], "evaluate.dataset: no.jsonl: no such file"),
    "no question": ({}, ["--set", "evaluate.limit=0"], "evaluate.limit: input should be greater than or equal to 1"),
    "wrong option": ({}, ["--set", "evaluate.limit"], "--set 'evaluate.limit': write key=value"),
    "wrong device": ({"execute": {"device": "gpu"}}, [], "execute.device: string should match pattern"),
    "unknown engine": ({"execute": {"engine": "dask"}}, [], "execute.engine: input should be 'threads', 'ray' or"),
    "another machine's device": (
        {"execute": {"engine": "ray", "device": "cuda:1"}},
        [],
        "execute: device cuda:1 is one of this machine's; with engine ray each worker takes its own: write cuda.",
    ),
    "wrong policy": (
        {"publish": {"when": "sometimes", "repo_id": "good"}},
        [],
        "publish.when: input should be 'always', 'never', 'better_than_parents'",
    ),
}


# Before it calls a name unknown, Mergeline has lm-eval build its index of all tasks.
SLOW = {"unknown lm-eval task": [pytest.mark.slow]}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=SLOW.get(kind, [])) for kind in BROKEN])
def test_a_broken_pipeline_is_one_line_and_nothing_is_written(
    kind: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, options, sentence = BROKEN[kind]
    (workplace / "pipeline.yaml").write_text(yaml.safe_dump(GOOD | changes, sort_keys=False))
    before = sorted(workplace.rglob("*"))
    assert main(["run", "pipeline.yaml", *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("mergeline: error: ")
    assert sentence in output.err
    assert len(output.err.splitlines()) == 1
    assert sorted(workplace.rglob("*")) == before


def test_the_pipeline_that_was_broken_is_good(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "pipeline.yaml").write_text(yaml.safe_dump(GOOD, sort_keys=False))
    assert main(["run", "pipeline.yaml"]) == 2
    assert "flows.embedded is missing" in capsys.readouterr().err


def test_a_program_reads_the_same_sentence(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "pipeline.yaml").write_text(yaml.safe_dump(GOOD | {"recipe": "no.yaml"}))
    assert main(["run", "pipeline.yaml", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"error": "PipelineError", "problems": ["no.yaml: no such recipe file; check the path."]}
