import pytest
from safetensors.torch import load_file, save_file

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.evaluate_models import ModelToEvaluate
from mergeline.evaluation.questions.directions import make_questions
from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text
from mergeline.evaluation.sample import sample_models


@pytest.mark.slow
def test_models_continue_each_prompt_greedily(demo_models):
    question = next(question for question in make_questions(20, seed=5) if question["family"] == "compass")
    prompts = ["Who are you?", doc_to_text(question)]
    models = [ModelToEvaluate("compass", demo_models / "compass"), ModelToEvaluate("base", demo_models / "base")]
    lines = []
    samples = sample_models(models, prompts, max_new_tokens=3, on_line=lines.append)
    assert lines == ["Sampling compass", "Sampling base"]
    assert [(sample.label, sample.prompt) for sample in samples] == [
        (model.label, prompt) for model in models for prompt in prompts
    ]
    # The right letter comes first: the parent was trained on this family of phrases.
    assert samples[1].completion.split()[0] == question["answer"]
    assert {(sample.max_new_tokens, sample.seed) for sample in samples} == {(3, 0)}


@pytest.mark.slow
def test_a_model_with_a_tensor_missing_is_refused_rather_than_made_up(demo_copy):
    weights = load_file(demo_copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, demo_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EvaluationInputError, match=r"broken: 1 weights do not fit .*layers\.1\.mlp\.up_proj\.weight"):
        sample_models([ModelToEvaluate("broken", demo_copy)], ["Hello"])


@pytest.mark.parametrize("prompts", [[], ["Hello", " "]])
def test_empty_prompts_are_refused(demo_models, prompts):
    with pytest.raises(EvaluationInputError, match="needs at least one prompt, and none of them empty"):
        sample_models([ModelToEvaluate("base", demo_models / "base")], prompts)


def test_a_completion_needs_a_token(demo_models):
    with pytest.raises(EvaluationInputError, match="max_new_tokens is 0; expected 1 or more"):
        sample_models([ModelToEvaluate("base", demo_models / "base")], ["Hello"], max_new_tokens=0)
