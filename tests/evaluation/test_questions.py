import json

import pyarrow
import pyarrow.parquet
import pytest

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.questions.four_choice import load_questions

QUESTION = {
    "id": "q1",
    "story_id": "s1",
    "story": "There is a block called A.",
    "question": "Which object is it?",
    "candidate_answers": ["the big square ", "a circle", "both of them", "none of them"],
    "answer": "C",
    "relation": "left",
}


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="questions.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return write


def without(name):
    return {key: value for key, value in QUESTION.items() if key != name}


def test_letters_and_indices_become_letters(write):
    rows = load_questions(write(QUESTION, QUESTION | {"answer": 0}, QUESTION | {"answer": 3}))
    assert [row["answer"] for row in rows] == ["C", "A", "D"]


def test_the_id_falls_back_to_the_row_and_the_cluster_to_the_story(write):
    other = without("story_id") | {"story": "Another."}
    rows = load_questions(write(QUESTION, without("story_id"), without("story_id"), other, without("id")))
    assert [row["id"] for row in rows] == ["q1", "q1", "q1", "q1", "5"]
    _, second, third, fourth, last = [row["story_id"] for row in rows]
    assert (second, last) == (third, "s1")
    assert second != fourth


def test_further_columns_are_kept_as_text_and_a_missing_relation_is_read_from_the_question(write):
    bare = without("relation") | {"question": "What is Below the circle, to the left?", "level": 3, "kinds": ["a", "b"]}
    first, second = load_questions(write(QUESTION, bare))
    assert first["relation"] == "left"
    assert (second["relation"], second["level"], second["kinds"]) == ("below", "3", "a, b")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (QUESTION | {"answer": "A "}, '`answer` is "A "; expected a letter A to D or an index 0 to 3.'),
        (QUESTION | {"answer": "a"}, '`answer` is "a"; expected a letter A to D or an index 0 to 3.'),
        (QUESTION | {"answer": "E"}, '`answer` is "E"; expected a letter A to D or an index 0 to 3.'),
        (QUESTION | {"answer": 4}, "`answer` is 4; expected a letter A to D or an index 0 to 3."),
        (QUESTION | {"answer": -1}, "`answer` is -1; expected a letter A to D or an index 0 to 3."),
        (QUESTION | {"answer": True}, "`answer` is true; expected a letter A to D or an index 0 to 3."),
        (QUESTION | {"answer": None}, "`answer` is null; expected a letter A to D or an index 0 to 3."),
        (without("answer"), "`answer` is missing; expected a letter A to D or an index 0 to 3."),
        (without("story"), "`story` is missing; expected text."),
        (QUESTION | {"question": "  "}, '`question` is "  "; expected text.'),
        (without("candidate_answers"), "`candidate_answers` is missing; expected four texts."),
        (QUESTION | {"candidate_answers": ["x"] * 3}, '`candidate_answers` is ["x", "x", "x"]; expected four texts.'),
        (QUESTION | {"candidate_answers": "ABCD"}, '`candidate_answers` is "ABCD"; expected four texts.'),
        (
            QUESTION | {"candidate_answers": ["x", "", "y", "z"]},
            '`candidate_answers` is ["x", "", "y", "z"]; expected four texts.',
        ),
    ],
)
def test_a_bad_row_is_named_with_its_number(write, row, sentence):
    with pytest.raises(EvaluationInputError) as raised:
        load_questions(write(QUESTION, row))
    assert str(raised.value) == f"questions.jsonl, row 2: {sentence}"


def test_every_bad_row_is_reported_up_to_twenty(write):
    with pytest.raises(EvaluationInputError) as raised:
        load_questions(write(*[QUESTION | {"answer": "e"}] * 25))
    assert len(raised.value.problems) == 21
    assert raised.value.problems[-1] == "questions.jsonl: and 5 more problems like these."


def test_a_long_value_is_cut_in_the_message(write):
    with pytest.raises(EvaluationInputError) as raised:
        load_questions(write(QUESTION | {"answer": "x" * 500}))
    assert len(str(raised.value)) < 200


def test_no_questions_at_all(write, tmp_path):
    with pytest.raises(EvaluationInputError, match=r"questions\.jsonl: holds no questions\."):
        load_questions(write())
    with pytest.raises(EvaluationInputError, match=r"absent\.jsonl: no such file or directory with questions\."):
        load_questions(tmp_path / "absent.jsonl")
    with pytest.raises(EvaluationInputError, match=r"no \.jsonl, \.json or \.parquet file in it"):
        load_questions(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty")


def test_broken_files_say_where(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(QUESTION) + '\n{"story": \n')
    with pytest.raises(EvaluationInputError, match=r"questions\.jsonl, row 2: not JSON \(Expecting value at character"):
        load_questions(path)
    path.write_text('["text"]')
    with pytest.raises(EvaluationInputError, match="row 1: expected an object with a question's fields, found str"):
        load_questions(path)
    path.write_bytes(b'{"story": "caf\xe9"}')
    with pytest.raises(EvaluationInputError, match=r"not UTF-8 text \(byte 14\)"):
        load_questions(path)
    (tmp_path / "questions.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(EvaluationInputError, match="cannot be read as Parquet"):
        load_questions(tmp_path / "questions.parquet")
    with pytest.raises(EvaluationInputError, match=r"expected a \.jsonl, \.json or \.parquet file"):
        load_questions(tmp_path.joinpath("questions.csv").write_text("a,b") and tmp_path / "questions.csv")


def test_jsonl_json_and_parquet_give_the_same_questions(write, tmp_path):
    lines = write(QUESTION, QUESTION | {"id": "q2"})
    array = tmp_path / "questions.json"
    array.write_text(json.dumps([QUESTION, QUESTION | {"id": "q2"}], indent=2))
    parquet = tmp_path / "questions.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([QUESTION, QUESTION | {"id": "q2"}]), parquet)
    assert load_questions(lines) == load_questions(array) == load_questions(parquet)


def test_a_repository_with_one_file_is_read_whatever_its_name(write):
    path = write(QUESTION, name="repository/spartqa.jsonl")
    path.with_name("dataset_infos.json").write_text("{}")
    path.with_name("README.md").write_text("")
    assert len(load_questions(path.parent)) == 1


def test_a_repository_gives_its_train_split_in_order(write, tmp_path):
    write(QUESTION, name="repository/data/test.jsonl")
    write(QUESTION | {"id": "second"}, name="repository/data/spartqa_CO_train-00001-of-00002.jsonl")
    write(QUESTION | {"id": "first"}, name="repository/data/spartqa_CO_train-00000-of-00002.jsonl")
    write(QUESTION, name="repository/.cache/train.jsonl")
    assert [row["id"] for row in load_questions(tmp_path / "repository")] == ["first", "second"]


def test_a_repository_without_a_clear_train_split_is_refused(write, tmp_path):
    write(QUESTION, name="repository/one.jsonl")
    write(QUESTION, name="repository/training.jsonl")
    with pytest.raises(
        EvaluationInputError, match=r"are the train split \(one\.jsonl, training\.jsonl\); name one file"
    ):
        load_questions(tmp_path / "repository")
