"""`mergeline evaluate` and `mergeline sample`: what they refuse, and a model that has learned a letter."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeline.cli.command_line import main
from mergeline.evaluation.questions.directions import make_questions
from mergeline.pipeline.language import Evaluate
from mergeline.pipeline.preflight import find_questions
from mergeline.sources.hub import Hub

QUESTION = make_questions(1, 7)[0]
TASK = """\
task: mine
dataset_path: none
output_type: multiple_choice
test_split: test
doc_to_text: "{{prompt}}"
doc_to_choice: ['A', 'B']
doc_to_target: 0
metric_list:
  - metric: acc
"""


@pytest.fixture
def workplace(tmp_path, demo_models, monkeypatch):
    """A directory with a model, one without a tokenizer, questions, and an lm-eval task of another form."""
    shutil.copytree(demo_models / "compass", tmp_path / "model")
    shutil.copytree(demo_models / "clock", tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    (tmp_path / "good.jsonl").write_text(json.dumps(QUESTION) + "\n")
    (tmp_path / "other.jsonl").write_text('{"prompt": "One? "}\n')
    (tmp_path / "task.yaml").write_text(TASK)
    (tmp_path / "shots.yaml").write_text(TASK + "num_fewshot: 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MERGELINE_HOME", str(tmp_path / "state"))
    return tmp_path


GOOD = "evaluate model --dataset good.jsonl"
BROKEN = {
    "no questions": ("evaluate model", "'spartqa_train' has no data of its own; name a dataset with the questions"),
    "no such file": ("evaluate model --dataset no.jsonl", "no.jsonl: no such file"),
    "too few questions": ("evaluate model --dataset good.jsonl?take=2", "take=2, but it holds 1 questions; take fewer"),
    "no such task file": (f"{GOOD} --tasks no.yaml", "lm-eval task 'no.yaml': no such file"),
    "few-shot": ("evaluate model --tasks shots.yaml --dataset other.jsonl", "drawn from the very questions it asks"),
    "no model": ("evaluate ./nothing --dataset good.jsonl", "./nothing: no such directory"),
    "no tokenizer": ("evaluate mute --dataset good.jsonl", "mute: no tokenizer (tokenizer.json, tokenizer.model"),
    "the same model twice": ("evaluate model model --dataset good.jsonl", "Two models are called 'model'"),
    "no such column": (f"{GOOD} --breakdown kind", "no column 'kind' to break accuracy down by; they have family"),
    "engine": (
        f"{GOOD} --engine turbo",
        "mergeline evaluate: engine: input should be 'stock' or 'fast', found 'turbo'",
    ),
    "dtype": (f"{GOOD} --dtype int8", "mergeline evaluate: dtype: input should be 'auto'"),
    "batch size": (f"{GOOD} --batch-size 0", "batch_size: input should be greater than or equal to 1, found 0"),
    "limit": (f"{GOOD} --limit 0", "limit: input should be greater than or equal to 1, found 0"),
    "margin": (f"{GOOD} --margin 2", "margin: input should be less than or equal to 1, found 2.0"),
    "time limit": (f"{GOOD} --time-limit 0", "time_limit_minutes: input should be greater than or equal to 1"),
    "device": (f"{GOOD} --device gpu", "device gpu: torch "),
    "missing GPU": (f"{GOOD} --device cuda:99", "device cuda:99: torch "),
    "page in no directory": (f"{GOOD} --report no/page.html", "--report no/page.html: its directory does not exist"),
    "page for two tasks": (f"{GOOD} --tasks spartqa_train,task.yaml --report p.html", "a page shows one lm-eval task"),
    "no prompt": ("sample model --prompt ''", "needs at least one prompt, and none of them empty"),
    "no new token": ("sample model --max-new-tokens 0", "--max-new-tokens: must be 1 or more, found 0"),
}
ROWS = {
    "a field missing": ({"story": None}, "row 1: `story` is null; expected text."),
    "an answer with a blank": (
        {"answer": "A "},
        'row 1: `answer` is "A "; expected a letter A to D or an index 0 to 3.',
    ),
    "a small letter": ({"answer": "a"}, 'row 1: `answer` is "a"; expected a letter A to D or an index 0 to 3.'),
    "an index too large": ({"answer": 4}, "row 1: `answer` is 4; expected a letter A to D or an index 0 to 3."),
    "no questions": (None, "bad.jsonl: holds no questions."),
}


def assert_refused(workplace, capsys, command, sentence):
    before = sorted(workplace.rglob("*"))
    arguments = [argument.strip("'") for argument in command.split(" ")]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    # One line: no model was even named as being evaluated.
    (line,) = output.err.splitlines()
    assert line.startswith("mergeline: error: ")
    assert sentence in line
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_work_is_one_line_before_a_model_is_loaded(workplace, capsys, kind):
    assert_refused(workplace, capsys, *BROKEN[kind])


@pytest.mark.parametrize("kind", ROWS)
def test_a_question_that_cannot_be_asked_is_one_line_before_a_model_is_loaded(workplace, capsys, kind):
    change, sentence = ROWS[kind]
    (workplace / "bad.jsonl").write_text("" if change is None else json.dumps(QUESTION | change) + "\n")
    assert_refused(workplace, capsys, "evaluate model --dataset bad.jsonl", sentence)


def test_another_task_takes_a_file_with_its_own_fields(workplace):
    wanted = Evaluate(tasks=("task.yaml",), dataset="other.jsonl")
    assert find_questions(wanted, Hub()).place == Path("other.jsonl")


@pytest.mark.slow
def test_a_model_that_always_says_a_has_its_flags_on_the_real_questions(workplace, capsys, real_questions):
    """Every token carries a large first coordinate, which survives the layers and is what `A` asks for."""
    directory = workplace / "model"
    weights = load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"][:, 0] = 1000.0
    weights["model.norm.weight"].fill_(1.0)
    letter = json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"]["A"]
    weights["lm_head.weight"].zero_()
    weights["lm_head.weight"][letter, 0] = 10.0
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    tokenizer = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"model_max_length": 1024}))
    assert main(["evaluate", "model", "--dataset", str(real_questions), "--engine", "fast", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["merge"]["accuracy"], report["majority_accuracy"]) == (0.244, 0.478)
    assert report["flags"] == [
        "model: below majority baseline (0.244 < 0.478)",
        "model: single-letter predictor (A on 1000 of 1000)",
        "evaluated on train split",
    ]
    assert report["summaries"][0]["histogram"] == [1000, 0, 0, 0]
    assert torch.isfinite(torch.tensor(report["merge"]["answers"][0]["log_probabilities"])).all()
