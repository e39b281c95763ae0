"""What the demonstration models and their merges score on all their questions."""

from functools import partial

import pytest
import torch

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.questions.four_choice import load_questions

compare_with_parents = partial(comparison.compare_with_parents, margin=0.02)


@pytest.mark.slow
def test_accuracies_are_the_published_ones(evaluated):
    assert {label: evaluation.accuracy for label, evaluation in evaluated.items()} == pytest.approx(
        {"base": 0.494, "compass": 0.746, "clock": 0.755, "slerp": 1.000, "gradients": 0.758}
    )


@pytest.mark.slow
def test_slerp_is_better_than_both_parents(evaluated):
    result = compare_with_parents(evaluated["slerp"], [evaluated["compass"], evaluated["clock"]], evaluated["base"])
    assert [comparison.verdict for comparison in result.comparisons] == ["better", "better"]
    assert [(comparison.wins, comparison.losses) for comparison in result.comparisons] == [(254, 0), (245, 0)]
    # McNemar's exact 7e-77 and 4e-74; two comparisons were made, and Holm doubles the smaller.
    assert [comparison.p_value for comparison in result.comparisons] == pytest.approx([2 * 2**-253, 2**-244])
    assert [comparison.clustered_p_value for comparison in result.comparisons] == pytest.approx([2 * 2**-8, 2 * 2**-8])
    assert all(comparison.is_not_inferior for comparison in result.comparisons)
    assert result.oracle_accuracy == 1.0
    assert result.flags == ("evaluated on train split",)


@pytest.mark.slow
def test_the_missions_gradients_make_no_detectable_difference(evaluated):
    result = compare_with_parents(evaluated["gradients"], [evaluated["compass"], evaluated["clock"]], evaluated["base"])
    assert [comparison.verdict for comparison in result.comparisons] == ["no detectable difference"] * 2
    assert [(comparison.wins, comparison.losses) for comparison in result.comparisons] == [(92, 80), (165, 162)]
    assert [round(comparison.p_value, 2) for comparison in result.comparisons] == [0.80, 0.91]
    assert not any(comparison.is_not_inferior for comparison in result.comparisons)
    kept = {(one.parent, one.value): round(one.merge_accuracy, 2) for one in result.retentions}
    # The families that the parents were trained on: 1.00 each, of which the gradients keep 0.76 and 0.51.
    assert kept["compass", "compass"] == 0.76
    assert kept["clock", "clock"] == 0.51
    families = {one.value: [round(score.accuracy, 2) for score in one.scores] for one in result.breakdowns[1].slices}
    assert families["compass"] == [0.26, 1.00, 0.27, 0.76]


@pytest.mark.slow
def test_an_evaluation_holds_what_lm_eval_said(evaluated, questions_file):
    compass = evaluated["compass"]
    assert (compass.task_version, compass.n_shot, compass.split, compass.n_questions) == ("1.0", 0, "train", 1000)
    # lm-eval's formula: the sample standard deviation over the root of n.
    assert compass.stderr == pytest.approx((0.746 * 0.254 / 999) ** 0.5)
    assert [cell.strip() for cell in compass.table.splitlines()[2].split("|")[1:-1]] == [
        "spartqa_train", "1", "none", "0", "acc", "↑", "0.746", "±", "0.0138",
    ]  # fmt: skip
    rows = load_questions(questions_file)
    assert [(answer.question, answer.cluster) for answer in compass.answers] == [
        (row["id"], row["story_id"]) for row in rows
    ]
    assert [answer.target for answer in compass.answers] == ["ABCD".index(row["answer"]) for row in rows]
    assert compass.versions.keys() == {"lm_eval", "transformers", "torch", "tokenizers", "datasets"}
    assert compass.elapsed_seconds > 0
    assert (compass.loaded_dtype, compass.settings.dtype, compass.n_fast) == ("float32", "auto", 0)
    assert "def doc_to_text" in compass.prompt_source
    assert len(compass.task_digest) == len(compass.questions_digest) == 64
    assert [answer.columns["family"] for answer in compass.answers] == [row["family"] for row in rows]
    assert compare_with_parents(compass, []).breakdowns[1].column == "family"


@pytest.mark.slow
def test_all_models_were_asked_the_same_and_none_answered_for_another(evaluated):
    assert len({evaluation.task_hash for evaluation in evaluated.values()}) == 1
    assert len({evaluation.model_digest for evaluation in evaluated.values()}) == 5
    assert len({evaluation.answers[0].log_probabilities for evaluation in evaluated.values()}) == 5


@pytest.mark.slow
def test_log_probabilities_are_the_models_own(evaluated, demo_models, questions_file):
    """One question computed by hand: tokens through the model, log-softmax, the letters' columns."""
    import transformers

    from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text

    tokenizer = transformers.AutoTokenizer.from_pretrained(demo_models / "clock")
    model = transformers.AutoModelForCausalLM.from_pretrained(demo_models / "clock")
    row = load_questions(questions_file)[17]
    tokens = torch.tensor([tokenizer(doc_to_text(row))["input_ids"]])
    with torch.inference_mode():
        columns = torch.log_softmax(model(tokens).logits[0, -1].double(), 0)
    expected = columns[[tokenizer.convert_tokens_to_ids(letter) for letter in "ABCD"]].tolist()
    # lm-eval batches with padding and works in float32.
    assert evaluated["clock"].answers[17].log_probabilities == pytest.approx(expected, abs=1e-4)
