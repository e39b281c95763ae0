import json

import datasets
import pytest

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.dataset_reference import DatasetReference, parse_dataset
from mergeline.evaluation.questions.directions import DEMONSTRATION_SEED, make_questions
from mergeline.evaluation.questions.four_choice import load_questions
from mergeline.evaluation.questions.task_questions import read_questions


def test_the_published_selection_is_that_of_the_datasets_library():
    """`shuffle(seed=9163).select(range(1000))`, the selection that made spartqa-train-1k, of 22,794 rows."""
    published = datasets.Dataset.from_dict({"number": list(range(22_794))}).shuffle(seed=9163).select(range(1000))
    reference = parse_dataset("tasksource/spartqa-mchoice?shuffle=9163&take=1000")
    assert reference.select(range(22_794)) == published["number"][:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-hf-username/spartqa-train-1k", DatasetReference("my-hf-username/spartqa-train-1k")),
        ("owner/data@main?take=5", DatasetReference("owner/data", revision="main", take=5)),
        ("questions.jsonl?shuffle=1", DatasetReference("questions.jsonl", shuffle=1)),
        ("directions?seed=7&take=50", DatasetReference("directions", take=50, seed=7)),
    ],
)
def test_names_and_options(text, expected):
    assert parse_dataset(text) == expected


@pytest.mark.parametrize("option", ["take=0", "take=-1", "take=ten", "seed=3", "shuffle", "limit=4"])
def test_an_option_that_cannot_be_read_is_refused(option):
    with pytest.raises(EvaluationInputError, match=rf"cannot read '{option}'; expected shuffle=NUMBER or take=NUMBER"):
        parse_dataset(f"owner/data?{option}")


def test_more_questions_than_there_are_is_refused():
    with pytest.raises(EvaluationInputError, match="Dataset owner/data: take=4, but it holds 3 questions"):
        parse_dataset("owner/data?take=4").select([1, 2, 3])


def test_the_generator_is_a_dataset():
    assert parse_dataset("directions").generate() == make_questions(1000, DEMONSTRATION_SEED)
    assert parse_dataset("directions?seed=7&take=50").generate() == make_questions(50, 7)
    prompts = read_questions("spartqa_train", None, "directions?take=3").prompts()
    assert list(prompts) == ["directions-0", "directions-1", "directions-2"]
    assert prompts["directions-0"].endswith("\nAnswer:")


def test_the_real_questions_are_read_whole(real_questions):
    rows = load_questions(real_questions)
    assert [sum(row["answer"] == letter for row in rows) for letter in "ABCD"] == [244, 247, 478, 31]
    assert len({row["story_id"] for row in rows}) == 868


def test_the_hubs_columns_alone_give_the_same_stories_and_relations(real_questions, tmp_path):
    """The Hub's copy has neither clusters nor relations; its answers are numbers."""
    rows = [json.loads(line) for line in real_questions.read_text("utf-8").splitlines()]
    path = tmp_path / "train.jsonl"
    kept = ("story", "question", "candidate_answers")
    path.write_text(
        "".join(
            json.dumps({name: row[name] for name in kept} | {"answer": "ABCD".index(row["answer"])}) + "\n"
            for row in rows
        )
    )
    bare, whole = load_questions(path), load_questions(real_questions)
    assert [row["relation"] for row in bare] == [row["relation"] for row in whole]
    assert [row["answer"] for row in bare] == [row["answer"] for row in whole]
    assert len({row["story_id"] for row in bare}) == 868


def test_a_model_that_always_says_a_on_the_real_questions(real_questions, made_up):
    from mergeline.evaluation.compare.comparison import compare_with_parents

    rows = load_questions(real_questions)
    targets = ["ABCD".index(row["answer"]) for row in rows]
    parrot = made_up("parrot", targets, [0] * 1000, [row["story_id"] for row in rows])
    result = compare_with_parents(parrot, [], margin=0.02)
    assert (result.merge.accuracy, result.majority_accuracy) == (0.244, 0.478)
    assert result.flags == (
        "parrot: below majority baseline (0.244 < 0.478)",
        "parrot: single-letter predictor (A on 1000 of 1000)",
    )
