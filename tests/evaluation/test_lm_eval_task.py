import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mergeline.evaluation
from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.questions.task_names import _indexed_names, installed_task_names

SHIPPED = Path(mergeline.evaluation.__file__).parent / "questions" / "lm_eval_tasks" / "spartqa_train"


@pytest.fixture
def task_copy(tmp_path):
    return Path(shutil.copytree(SHIPPED, tmp_path / "task")) / "spartqa_train.yaml"


def prompt_module():
    spec = importlib.util.spec_from_file_location("preprocess_spartqa", SHIPPED / "preprocess_spartqa.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_prompt_is_the_missions_with_candidates_stripped():
    question = {
        "story": "There are two blocks.",
        "question": "What is left?",
        "candidate_answers": ["the big square ", " a circle", "both of them", "none of them"],
    }
    assert prompt_module().doc_to_text(question) == (
        "Context:\nThere are two blocks.\n\nQuestion: What is left?\n"
        "A. the big square\nB. a circle\nC. both of them\nD. none of them\nAnswer:"
    )


def test_the_shipped_task_is_found_by_name():
    task = find_lm_eval_task("spartqa_train")
    assert (task.name, task.split, task.needs_questions) == ("spartqa_train", "train", True)
    assert task.yaml_path == SHIPPED / "spartqa_train.yaml"


def test_a_yaml_file_is_found_by_path_and_the_same_text_is_the_same_task(task_copy):
    task = find_lm_eval_task(str(task_copy))
    assert (task.name, task.split, task.needs_questions) == ("spartqa_train", "train", False)
    assert task.source_digest == find_lm_eval_task("spartqa_train").source_digest


def test_a_changed_yaml_prompt_or_included_file_is_another_task(task_copy):
    including = task_copy.with_name("including.yaml")
    including.write_text("include: spartqa_train.yaml\ntask: mine\n")
    before = find_lm_eval_task(str(including))
    assert (before.name, before.split) == ("mine", "train")
    task_copy.write_text(task_copy.read_text().replace("version: 1.0", "version: 1.1"))
    after_yaml = find_lm_eval_task(str(including))
    prompt = task_copy.with_name("preprocess_spartqa.py")
    prompt.write_text(prompt.read_text().replace("Answer:", "Reply:"))
    after_prompt = find_lm_eval_task(str(including))
    assert len({before.source_digest, after_yaml.source_digest, after_prompt.source_digest}) == 3


def test_lm_evals_own_tasks_are_found_by_name_without_its_index():
    task = find_lm_eval_task("arc_easy")
    assert (task.name, task.yaml_path.name, task.split, task.needs_questions) == (
        "arc_easy", "arc_easy.yaml", "test", False,
    )  # fmt: skip
    assert task.source_digest is not None


def test_a_group_is_left_to_lm_eval():
    task = find_lm_eval_task("mmlu")
    assert (task.name, task.yaml_path, task.split, task.source_digest) == ("mmlu", None, None, None)


@pytest.mark.slow
def test_an_unknown_task_is_refused_with_the_nearest_names():
    with pytest.raises(
        EvaluationInputError, match="lm-eval has no task 'spartqa_trian'; did you mean spartqa_train or"
    ):
        find_lm_eval_task("spartqa_trian")
    with pytest.raises(EvaluationInputError, match="no task 'arc_eazy'; did you mean arc_easy or"):
        find_lm_eval_task("arc_eazy")
    with pytest.raises(EvaluationInputError, match="no task 'zzqq'; give a task's name or the path of its YAML file"):
        find_lm_eval_task("zzqq")


@pytest.mark.slow
def test_lm_evals_index_holds_every_name_found_without_it():
    names, indexed = installed_task_names(), _indexed_names()
    assert len(names.tasks) > 10_000
    assert names.tasks.keys() <= indexed


def test_names_are_found_without_importing_lm_eval():
    code = (
        "import sys; from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task; "
        "find_lm_eval_task('arc_easy'); "
        "sys.exit('lm_eval' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_shots_from_the_very_questions_are_refused(task_copy):
    task_copy.write_text(task_copy.read_text() + "num_fewshot: 2\n")
    with pytest.raises(
        EvaluationInputError,
        match="'spartqa_train' shows 2 solved examples, which would be drawn from the very questions it asks",
    ):
        find_lm_eval_task(str(task_copy))
    task_copy.write_text(task_copy.read_text() + "fewshot_split: other\n")
    assert (find_lm_eval_task(str(task_copy)).n_shot, find_lm_eval_task(str(task_copy)).shot_split) == (2, "other")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dataset_path: x\n", "with a `task:` name; found none"),
        ("- a\n- b\n", "expected the YAML of an lm-eval task, found list"),
        ("task: [unclosed\n", "cannot be read as an lm-eval task"),
    ],
)
def test_a_file_that_is_no_task_is_refused(tmp_path, text, sentence):
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(EvaluationInputError, match=sentence):
        find_lm_eval_task(str(path))


def test_a_missing_file_is_refused():
    with pytest.raises(EvaluationInputError, match=r"lm-eval task 'no/such\.yaml': no such file"):
        find_lm_eval_task("no/such.yaml")
