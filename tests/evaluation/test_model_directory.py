import json

import pytest
from safetensors.torch import load_file, save_file

from mergeline.errors import EvaluationInputError
from mergeline.evaluation.model_directory import model_digest


def test_every_demonstration_model_has_a_digest_of_its_own(demo_models):
    assert len({model_digest(demo_models / name) for name in ("base", "compass", "clock")}) == 3


def test_the_same_content_elsewhere_is_the_same_model(demo_models, demo_copy):
    assert model_digest(demo_copy) == model_digest(demo_models / "compass")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_changed_file_is_another_model(demo_models, demo_copy, name):
    (demo_copy / name).write_text((demo_copy / name).read_text() + "\n")
    assert model_digest(demo_copy) != model_digest(demo_models / "compass")


def test_one_changed_weight_is_another_model(demo_models, demo_copy):
    weights = load_file(demo_copy / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, demo_copy / "model.safetensors", metadata={"format": "pt"})
    assert model_digest(demo_copy) != model_digest(demo_models / "compass")


def test_a_chat_template_counts_and_a_card_or_manifest_does_not(demo_models, demo_copy):
    (demo_copy / "README.md").write_text("another card")
    (demo_copy / "mergeline_manifest.json").write_text("{}")
    (demo_copy / "mergekit_config.yml").write_text("merge_method: slerp")
    assert model_digest(demo_copy) == model_digest(demo_models / "compass")
    (demo_copy / "chat_template.jinja").write_text("{{ messages }}")
    assert model_digest(demo_copy) != model_digest(demo_models / "compass")


def test_what_cannot_be_loaded_is_refused(demo_copy, tmp_path):
    with pytest.raises(EvaluationInputError, match=r"absent: no such model directory\."):
        model_digest(tmp_path / "absent")
    (demo_copy / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(EvaluationInputError, match=r"compass: no \*\.safetensors weights"):
        model_digest(demo_copy)
    index = demo_copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(EvaluationInputError, match=r"names model-00001-of-00002\.safetensors, which is not there"):
        model_digest(demo_copy)
    index.write_text("[]")
    with pytest.raises(EvaluationInputError, match="not a weight map"):
        model_digest(demo_copy)
    (demo_copy / "config.json").unlink()
    with pytest.raises(EvaluationInputError, match=r"compass: no config\.json"):
        model_digest(demo_copy)


def test_a_model_without_a_tokenizer_is_refused(demo_copy):
    (demo_copy / "tokenizer.json").unlink()
    with pytest.raises(EvaluationInputError, match=r"compass: no tokenizer \(tokenizer\.json, .*copy that of a parent"):
        model_digest(demo_copy)
