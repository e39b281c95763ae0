import json

import pytest
import torch
from safetensors.torch import load_file

from deployments.local.train_demo_models import Training, build_tokenizer, model_card, new_model, train


@pytest.fixture(autouse=True)
def single_threaded_torch():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_tokenizer_is_the_one_in_the_repository(demo_models):
    for name in ("base", "compass", "clock"):
        stored = json.loads((demo_models / name / "tokenizer.json").read_text())
        assert json.loads(build_tokenizer().backend_tokenizer.to_str())["model"] == stored["model"]


def test_each_letter_is_one_token():
    tokenizer = build_tokenizer()
    assert [len(tokenizer(f" {letter}")["input_ids"]) for letter in "ABCD"] == [1, 1, 1, 1]


def test_the_cards_in_the_repository_are_the_scripts(demo_models):
    for name in ("base", "compass", "clock"):
        assert (demo_models / name / "README.md").read_text() == model_card(name)


@pytest.mark.slow
def test_training_starts_on_the_way_to_the_stored_weights(demo_models):
    """All 150 steps of ``base``: other processors add in another order, hence not the same bits."""
    tokenizer = build_tokenizer()
    untrained = new_model(len(tokenizer), seed=0)
    base = Training("base", ("plain",), steps=150, learning_rate=3e-3, seed=1)
    trained = train(untrained, tokenizer, base).state_dict()
    stored = load_file(demo_models / "base" / "model.safetensors")
    assert trained.keys() == stored.keys()
    assert max((trained[name] - stored[name]).abs().max().item() for name in stored) < 1e-3
