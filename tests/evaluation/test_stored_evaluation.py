from dataclasses import replace

import pytest

from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.results import EvaluationSettings
from mergeline.evaluation.stored_evaluation import (
    evaluation_key,
    package_versions,
    read_evaluation,
    write_evaluation,
)


@pytest.fixture
def key():
    """Make a key with some of its parts changed."""
    parts = {
        "model_digest": "model",
        "task": find_lm_eval_task("spartqa_train"),
        "questions_digest": "questions",
        "settings": EvaluationSettings(task="spartqa_train"),
        "versions": {"lm_eval": "0.4.13"},
    }
    return lambda **changes: evaluation_key(**(parts | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"model_digest": "other"},
        {"task": replace(find_lm_eval_task("spartqa_train"), source_digest="another prompt")},
        {"questions_digest": "other"},
        {"versions": {"lm_eval": "0.4.14"}},
        *(
            {"settings": replace(EvaluationSettings(task="spartqa_train"), **setting)}
            for setting in (
                *({"limit": 10}, {"batch_size": 1}, {"dtype": "float32"}, {"device": "cuda"}, {"seed": 1}),
                {"engine": "fast"},
            )
        ),
    ],
)
def test_whatever_decides_a_score_changes_the_key(key, change):
    assert key(**change) != key()


def test_the_name_of_the_questions_does_not_change_the_key(key):
    assert key(settings=EvaluationSettings(task="spartqa_train", dataset="renamed/questions")) == key()


def test_an_evaluation_survives_the_disk(made_up, tmp_path):
    evaluation = made_up("modèle", [0, 1], [0, 3], clusters=["s", "s"], limit=2)
    write_evaluation(tmp_path / "new" / "evaluation.json", evaluation)
    assert read_evaluation(tmp_path / "new" / "evaluation.json") == evaluation
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize("text", ["", '{"label": "cut', "[]", '{"label": "incomplete"}'])
def test_what_is_not_a_whole_evaluation_is_as_good_as_absent(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    assert read_evaluation(tmp_path / "evaluation.json") is None
    assert read_evaluation(tmp_path / "absent.json") is None


def test_a_failed_write_leaves_nothing_behind(made_up, tmp_path):
    evaluation = replace(made_up("model", [0], [0]), accuracy=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation(tmp_path / "evaluation.json", evaluation)
    assert list(tmp_path.iterdir()) == []


def test_versions_name_every_package_that_scores():
    assert set(package_versions()) == {"lm_eval", "transformers", "torch", "tokenizers", "datasets"}
