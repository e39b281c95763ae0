import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

import mergeline.evaluation
from deployments.local.demo import TOKEN
from deployments.loopback_hub import LocalHub
from mergeline.errors import EvaluationError, EvaluationInputError
from mergeline.evaluation.compare import comparison
from mergeline.evaluation.evaluate_beside import evaluate_beside
from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.questions.task_questions import read_questions
from mergeline.evaluation.results import EvaluationSettings

compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)

SETTINGS = EvaluationSettings(task="spartqa_train", limit=20)


def evaluate_on(models, settings, *, questions, **options):
    """Read the questions at a place, None for the task's own or generated ones, and evaluate on them."""
    return evaluate_models(models, settings, read_questions(settings.task, questions, settings.dataset), **options)


def change_weights(directory, change):
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.slow
def test_a_task_from_a_file_is_remembered_and_the_same_weights_are_evaluated_once(
    tmp_path, demo_models, demo_copy, questions_file
):
    shipped = Path(mergeline.evaluation.__file__).parent / "questions" / "lm_eval_tasks" / "spartqa_train"
    task = Path(shutil.copytree(shipped, tmp_path / "task")) / "spartqa_train.yaml"
    task.write_text(task.read_text().replace("task: spartqa_train", "task: directions"))
    models = [ModelToEvaluate("compass", demo_models / "compass"), ModelToEvaluate("its copy", demo_copy)]
    settings = replace(SETTINGS, task=str(task))
    lines = []

    def evaluate(questions=questions_file, time_limit_seconds=300.0):
        return evaluate_on(
            models,
            settings,
            questions=questions,
            cache_dir=tmp_path / "cache",
            time_limit_seconds=time_limit_seconds,
            on_line=lines.append,
        )

    first = evaluate()
    assert [line for line in lines if line.startswith("Evaluating")] == ["Evaluating compass on directions (1 of 1)"]
    assert [evaluation.label for evaluation in first] == ["compass", "its copy"]
    assert first[0] == replace(first[1], label="compass")
    assert first[0].n_questions == 20
    assert "directions" in first[0].table

    # No process can start and finish in a millisecond.
    assert evaluate(time_limit_seconds=0.001) == first
    prompt = task.with_name("preprocess_spartqa.py")
    original = prompt.read_text()
    prompt.write_text(original.replace("Answer:", "Reply:"))
    with pytest.raises(EvaluationError, match="time limit"):
        evaluate(time_limit_seconds=0.001)
    prompt.write_text(original)
    other_questions = tmp_path / "other.jsonl"
    other_questions.write_text(questions_file.read_text().replace("circle", "ball"))
    with pytest.raises(EvaluationError, match="time limit"):
        evaluate(other_questions, time_limit_seconds=0.001)


@pytest.mark.slow
def test_a_nan_is_blamed_on_its_model_and_question_and_finished_models_are_kept(
    tmp_path, demo_models, demo_copy, questions_file
):
    change_weights(demo_copy, lambda weights: weights["lm_head.weight"].fill_(float("nan")))
    base, broken = ModelToEvaluate("base", demo_models / "base"), ModelToEvaluate("broken", demo_copy)
    with pytest.raises(EvaluationError, match=r"broken, question directions-0: log-probabilities .* not all finite"):
        evaluate_on([base, broken], SETTINGS, questions=questions_file, cache_dir=tmp_path / "cache")
    (kept,) = evaluate_on(
        [base], SETTINGS, questions=questions_file, cache_dir=tmp_path / "cache", time_limit_seconds=0.001
    )
    assert kept.label == "base"


@pytest.mark.slow
def test_a_question_longer_than_the_model_reads_is_refused(tmp_path, demo_models, questions_file):
    question = json.loads(questions_file.read_text().splitlines()[0])
    long = question | {"id": "long", "story": question["story"] * 20}
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps(long))
    with pytest.raises(EvaluationInputError, match=r"base: question long has \d+ tokens, the model reads 256"):
        evaluate_on(
            [ModelToEvaluate("base", demo_models / "base")], SETTINGS, questions=path, cache_dir=tmp_path / "cache"
        )


def children():
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def evaluate_and_strike(directory, model, questions, signals):
    """Evaluate; while a process does, send it the next signal as soon as it says that it has begun."""
    lines, waiting = [], list(signals)

    def strike(line):
        lines.append(line)
        if waiting and line.endswith("(1 of 1)"):
            number = waiting.pop(0)
            for pid in children():
                os.kill(pid, number)

    def evaluate():
        return evaluate_on(
            [ModelToEvaluate("base", model)], SETTINGS, questions=questions, cache_dir=directory, on_line=strike
        )

    return evaluate, lines


needs_proc = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc"
)


@pytest.mark.slow
@needs_proc
def test_a_process_killed_for_its_memory_is_tried_again_with_ever_smaller_batches(
    tmp_path, demo_models, questions_file
):
    signals = [signal.SIGKILL, signal.SIGKILL]
    evaluate, lines = evaluate_and_strike(tmp_path, demo_models / "base", questions_file, signals)
    (evaluation,) = evaluate()
    assert evaluation.settings == replace(SETTINGS, batch_size=8)
    assert [line.rpartition(". ")[2] for line in lines if "Trying" in line] == [
        "Trying again with batches of 16.", "Trying again with batches of 8.",
    ]  # fmt: skip
    assert lines[1].startswith(
        "Evaluating base on spartqa_train (1 of 1): the process was killed, most likely for want of memory; use a "
        "smaller batch or another machine."
    )


@pytest.mark.slow
@needs_proc
def test_a_crash_ends_the_evaluation_and_not_its_caller(tmp_path, demo_models, questions_file):
    evaluate, lines = evaluate_and_strike(tmp_path, demo_models / "base", questions_file, [signal.SIGSEGV])
    with pytest.raises(EvaluationError, match=r"\(1 of 1\): the process ended with signal SIGSEGV"):
        evaluate()
    assert len(lines) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'; expected one of auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "device is 'gpu'; expected cpu, cuda or cuda:n"),
        ({"batch_size": 0}, "batch_size is 0; expected 1 or more"),
        ({"engine": "turbo"}, "engine is 'turbo'; expected stock or fast"),
        ({"limit": 0}, "limit is 0; expected 1 or more questions"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(tmp_path, demo_models, questions_file, change, sentence):
    with pytest.raises(EvaluationInputError, match=sentence):
        evaluate_on(
            [ModelToEvaluate("base", demo_models / "base")],
            replace(SETTINGS, **change),
            questions=questions_file,
            cache_dir=tmp_path,
        )


def test_models_need_labels_of_their_own(tmp_path, demo_models, questions_file):
    twice = [ModelToEvaluate("model", demo_models / name) for name in ("base", "clock")]
    for models, sentence in ((twice, "Two models are called 'model'"), ([], "No model to evaluate was given")):
        with pytest.raises(EvaluationInputError, match=sentence):
            evaluate_on(models, SETTINGS, questions=questions_file, cache_dir=tmp_path)


def test_the_shipped_task_asks_for_questions(tmp_path, demo_models):
    with pytest.raises(
        EvaluationInputError, match="'spartqa_train' has no data of its own; name a dataset with the questions"
    ):
        evaluate_on([ModelToEvaluate("base", demo_models / "base")], SETTINGS, questions=None, cache_dir=tmp_path)


BROKEN_TASK = """\
task: broken
dataset_path: none
output_type: multiple_choice
test_split: train
doc_to_text: !function broken_prompt.doc_to_text
doc_to_choice: ['A', 'B', 'C', 'D']
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            'def doc_to_text(doc):\n    return doc["context"]\n',
            r"'broken' fails on the questions given \(KeyError: 'context'\); mend the task, or give it questions",
        ),
        (
            "import no_such_module\n",
            r"'broken' fails on the questions given \(ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_a_task_whose_code_fails_is_refused_before_a_model_is_loaded(
    tmp_path, demo_models, questions_file, code, sentence
):
    (tmp_path / "broken.yaml").write_text(BROKEN_TASK)
    (tmp_path / "broken_prompt.py").write_text(code)
    lines = []
    with pytest.raises(EvaluationInputError, match=sentence):
        evaluate_on(
            [ModelToEvaluate("base", demo_models / "base")],
            replace(SETTINGS, task=str(tmp_path / "broken.yaml")),
            questions=questions_file,
            cache_dir=tmp_path / "cache",
            on_line=lines.append,
        )
    assert lines == []


@pytest.mark.slow
def test_an_answer_outside_a_tasks_own_choices_is_refused_before_a_model_is_loaded(
    tmp_path, demo_models, questions_file
):
    task = tmp_path / "strict.yaml"
    task.write_text(
        BROKEN_TASK.replace("!function broken_prompt.doc_to_text", '"{{question}}"')
        .replace("task: broken", "task: strict")
        .replace("['A', 'B', 'C', 'D']", "['A', 'B', 'C']")
    )
    lines = []
    with pytest.raises(EvaluationInputError, match=r"Question directions-\d+: the right answer 'D' is none of"):
        evaluate_on(
            [ModelToEvaluate("base", demo_models / "base")],
            replace(SETTINGS, task=str(task)),
            questions=questions_file,
            cache_dir=tmp_path / "cache",
            on_line=lines.append,
        )
    assert lines == []


@pytest.mark.slow
def test_generated_questions_and_a_loaded_dtype(tmp_path, demo_models):
    settings = EvaluationSettings("spartqa_train", "directions?seed=7&take=12", dtype="bfloat16", engine="fast")
    (evaluation,) = evaluate_on(
        [ModelToEvaluate("base", demo_models / "base")], settings, questions=None, cache_dir=tmp_path
    )
    assert (evaluation.n_questions, evaluation.loaded_dtype, evaluation.n_fast) == (12, "bfloat16", 12)


OWN_DATA = """\
task: own
dataset_path: {repository}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{story}}}} {{{{question}}}}"
doc_to_choice: ['A', 'B', 'C', 'D']
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""


@pytest.mark.slow
def test_a_tasks_own_data_is_fetched_from_the_hub_once_by_a_process_without_a_model(
    tmp_path, demo_models, questions_file, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    lines = []
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        repository = api.create_repo("own", repo_type="dataset").repo_id
        rows = "".join(f"{line}\n" for line in questions_file.read_text().splitlines()[:12])
        api.upload_file(
            path_or_fileobj=rows.encode(), path_in_repo="test.jsonl", repo_id=repository, repo_type="dataset"
        )
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        (tmp_path / "own.yaml").write_text(OWN_DATA.format(repository=repository))
        (evaluation,) = evaluate_on(
            [ModelToEvaluate("base", demo_models / "base")],
            EvaluationSettings(str(tmp_path / "own.yaml"), engine="fast"),
            questions=None,
            cache_dir=tmp_path / "cache",
            on_line=lines.append,
        )
    assert [answer.question for answer in evaluation.answers] == [f"directions-{number}" for number in range(12)]
    assert [line.partition(" (")[0] for line in lines[:2]] == [
        "Fetching the data of lm-eval task own", "Evaluating base on own",
    ]  # fmt: skip
    # What nobody can vouch for is not kept.
    assert not (tmp_path / "cache").exists()


def test_questions_of_another_task_or_dataset_are_refused(tmp_path, demo_models):
    questions = read_questions("spartqa_train", None, "directions?take=3")
    with pytest.raises(EvaluationInputError, match=r"name task and dataset \('spartqa_train', None\), the questions"):
        evaluate_models([ModelToEvaluate("base", demo_models / "base")], SETTINGS, questions, cache_dir=tmp_path)


@pytest.mark.slow
def test_a_whole_evaluation_compares_the_last_model_with_all_but_the_base(tmp_path, demo_models):
    settings = EvaluationSettings("spartqa_train", "directions?take=40", engine="fast")
    questions = read_questions(settings.task, None, settings.dataset)
    models = [ModelToEvaluate(name, demo_models / name) for name in ("base", "clock", "compass")]

    def evaluate(columns, time_limit_seconds):
        return evaluate_beside(
            models, settings, questions, base_count=1, margin=0.1, columns=columns, cache_dir=tmp_path / "cache",
            time_limit_seconds=time_limit_seconds,
        )  # fmt: skip

    # A column that the questions lack is refused before any process starts.
    with pytest.raises(EvaluationInputError, match="no column 'kind' to break accuracy down by"):
        evaluate(["kind"], 0.001)
    report = evaluate(["family"], 300.0)
    assert [evaluation.label for evaluation in report.evaluations] == ["base", "clock", "compass"]
    assert [(pair.label, pair.reference, pair.margin) for pair in report.comparisons] == [("compass", "clock", 0.1)]
    assert [breakdown.column for breakdown in report.breakdowns] == ["family"]
