from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeline.errors import CheckpointError, MissingTensorError, PlanError, ShapeMismatchError
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.plan_file import plan_json, read_plan
from mergeline.plan.planning import plan_merge
from mergeline.recipe.recipe import read_recipe
from mergeline.sources.checkpoint import open_checkpoint
from tests.builders.tiny_checkpoints import make_mistral

SLERP = "merge_method: slerp\nbase_model: {a}\nmodels:\n  - model: {a}\n  - model: {b}\nparameters: {{t: 0.5}}\n"


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Path]:
    paths = {"a": tmp_path / "a", "b": tmp_path / "b"}
    for seed, path in enumerate(paths.values()):
        make_mistral(path, seed)
    return paths


def planned(recipe_text: str, max_shard_bytes: int = 10**9) -> MergePlan:
    recipe = read_recipe(recipe_text)
    checkpoints = {name: open_checkpoint(name) for name in recipe.references()}
    return plan_merge(recipe, checkpoints, max_shard_bytes=max_shard_bytes)


def change_config(directory: Path, **entries: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | entries))


def change_tensors(directory: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) remove tensors of a single-file checkpoint; dots are written as double underscores."""
    tensors = load_file(directory / "model.safetensors")
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, directory / "model.safetensors")


def test_every_tensor_has_its_place_in_one_shard(parents: dict[str, Path]) -> None:
    plan = planned(SLERP.format(**parents), max_shard_bytes=20_000)
    names = [tensor.name for shard in plan.shards for tensor in shard.tensors]
    assert sorted(names) == sorted(load_file(parents["a"] / "model.safetensors"))
    assert names[0] == "model.embed_tokens.weight"
    assert names[-1] == "lm_head.weight"
    for shard in plan.shards:
        assert shard.data_nbytes <= 20_000
        ends = [tensor.offset + tensor.nbytes for tensor in shard.tensors]
        assert [tensor.offset for tensor in shard.tensors] == [0, *ends[:-1]]


def test_digest_names_what_decides_the_bytes_and_nothing_else(parents: dict[str, Path]) -> None:
    text = SLERP.format(**parents)
    digest = planned(text).digest
    assert planned(f"# a comment\n{text}").digest == digest
    assert planned(text.replace("0.5", "0.25")).digest != digest
    assert planned(text, max_shard_bytes=20_000).digest != digest
    make_mistral(parents["b"], seed=7)
    assert planned(text).digest != digest


def test_plan_reads_back_from_json_as_itself(parents: dict[str, Path], tmp_path: Path) -> None:
    plan = planned(SLERP.format(**parents))
    (tmp_path / "plan.json").write_text(plan_json(plan))
    assert read_plan(tmp_path / "plan.json") == plan
    assert read_plan(tmp_path / "plan.json").digest == plan.digest


def test_smaller_vocabulary_of_the_base_decides_the_rows(parents: dict[str, Path]) -> None:
    make_mistral(parents["b"], 1, vocabulary=66)
    plan = planned(SLERP.format(**parents))
    head = plan.shards[-1].tensors[-1]
    assert head.shape[0] == 64
    assert head.common_rows is None
    assert plan.config["vocab_size"] == 64
    assert any("has 64 rows" in note and "rows 64 to 65 are not in the output" in note for note in plan.notes)


def test_larger_vocabulary_of_the_base_keeps_its_own_rows(parents: dict[str, Path]) -> None:
    make_mistral(parents["a"], 1, vocabulary=66)
    head = planned(SLERP.format(**parents)).shards[-1].tensors[-1]
    assert (head.shape[0], head.common_rows) == (66, 64)


def test_tokens_that_are_lost_or_disagree_are_named(parents: dict[str, Path]) -> None:
    make_mistral(parents["b"], 1, vocabulary=66)
    words = {f"w{i}": i for i in range(64)}
    for path, extra in ((parents["a"], {}), (parents["b"], {"<|im_end|>": 64, "<|im_start|>": 65, "w9": 8, "w8": 9})):
        (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words | extra}, "added_tokens": []}))
    notes = "\n".join(planned(SLERP.format(**parents)).notes)
    assert "('<|im_end|>', '<|im_start|>')" in notes
    assert "2 of the 64 common rows mean different tokens" in notes


def test_tied_model_meets_an_untied_one(parents: dict[str, Path]) -> None:
    change_tensors(parents["a"], lm_head__weight=None)
    change_config(parents["a"], tie_word_embeddings=True)
    plan = planned(SLERP.format(**parents))
    head = next(tensor for shard in plan.shards for tensor in shard.tensors if tensor.name == "lm_head.weight")
    assert [item.spec.name for item in head.inputs] == ["model.embed_tokens.weight", "lm_head.weight"]
    assert plan.config["tie_word_embeddings"] is False
    assert any("the output is untied" in note for note in plan.notes)


def test_tensors_that_will_not_be_in_the_output_are_named(parents: dict[str, Path]) -> None:
    change_tensors(parents["b"], model__rotary__inv_freq=torch.ones(4))
    assert any("model.rotary.inv_freq" in note for note in planned(SLERP.format(**parents)).notes)


def test_stacked_layers_give_a_config_that_says_so(parents: dict[str, Path]) -> None:
    change_config(parents["a"], layer_types=["full", "slide", "full", "slide", "full"])
    change_config(parents["b"], layer_types=["b0", "b1", "b2", "b3", "b4"])
    text = "merge_method: passthrough\nslices:\n" + "".join(
        f"  - sources: [{{model: {parents[name]}, layer_range: {layers}}}]\n"
        for name, layers in (("a", "[0, 4]"), ("b", "[1, 5]"))
    )
    plan = planned(text)
    assert plan.config["num_hidden_layers"] == 8
    assert plan.config["layer_types"] == ["full", "slide", "full", "slide", "b1", "b2", "b3", "b4"]
    names = {tensor.name for shard in plan.shards for tensor in shard.tensors}
    assert "model.layers.7.mlp.up_proj.weight" in names


def test_first_value_of_a_gradient_outside_the_layers_is_pointed_out(parents: dict[str, Path]) -> None:
    plan = planned(SLERP.format(**parents).replace("t: 0.5", "t: [0, 1]"))
    assert any(note.startswith("lm_head.weight: stands outside the layers") for note in plan.notes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("slerp", "sleprp"), "merge_method: unknown method 'sleprp'. Did you mean `slerp`?"),
        (("t: 0.5", "tt: 0.5"), "parameters.tt: slerp has no such parameter. Did you mean `t`?"),
        (("t: 0.5", "t: [0.5, 1.5]"), "`t` must lie in [0, 1], found 1.5"),
        (("base_model: {a}\n", ""), "base_model: slerp needs to know where it starts from"),
        (("  - model: {b}\n", ""), "models: slerp merges exactly 2 models, found 1"),
        (("{b}\n", "{b}\n    parameters: {{t: 0.1}}\n"), "models[1].parameters.t: one value for all models"),
    ],
)  # fmt: skip
def test_recipe_that_does_not_fit_the_method(change: tuple[str, str], sentence: str, parents: dict[str, Path]) -> None:
    assert change[0] in SLERP
    with pytest.raises(PlanError) as caught:
        planned(SLERP.replace(*change).format(**parents))
    assert sentence in str(caught.value)


def test_weights_that_cancel_cannot_be_normalized(parents: dict[str, Path]) -> None:
    text = "merge_method: linear\nmodels:\n" + "".join(
        f"  - {{model: {parents[name]}, parameters: {{weight: {weight}}}}}\n" for name, weight in (("a", 1), ("b", -1))
    )
    with pytest.raises(PlanError, match="add up to 0 and cannot be normalized"):
        planned(text)


def test_other_shape_is_named_with_both_shapes(parents: dict[str, Path]) -> None:
    make_mistral(parents["b"], 1, intermediate=64)
    with pytest.raises(ShapeMismatchError, match=r"gate_proj.*\[48, 32\].*\[64, 32\]"):
        planned(SLERP.format(**parents))


def test_missing_tensor_is_named(parents: dict[str, Path]) -> None:
    change_tensors(parents["b"], model__norm__weight=None)
    with pytest.raises(MissingTensorError, match=r"b: tensor 'model.norm.weight' is missing"):
        planned(SLERP.format(**parents))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"model_type": "llama"}, "config `model_type`"),
        ({"num_attention_heads": 8}, "config `num_attention_heads`"),
        ({"quantization_config": {"bits": 4}}, "its weights are quantized"),
        ({"num_hidden_layers": 4}, "all models need equally many layers"),
    ],
)
def test_config_that_cannot_be_shared(entries: dict[str, Any], sentence: str, parents: dict[str, Path]) -> None:
    change_config(parents["b"], **entries)
    with pytest.raises(PlanError, match=sentence):
        planned(SLERP.format(**parents))


def test_layers_beyond_the_model_are_refused(parents: dict[str, Path]) -> None:
    text = f"merge_method: passthrough\nslices:\n  - sources: [{{model: {parents['a']}, layer_range: [0, 6]}}]\n"
    with pytest.raises(PlanError, match=r"slices\[0\].sources\[0\].layer_range: \[0, 6\] reaches beyond .* 5 layers"):
        planned(text)


def _header(content: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a safetensors file, or cut short"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "not a safetensors file, or cut short"),
        (_header(b"nonsense"), "header is malformed"),
        (_header(b"[" * 100_000), "header is malformed"),
        (_header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}') + bytes(4), "does not fit its place"),
        (_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + bytes(9), "17 bytes|describes"),
        (_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}') + bytes(8), "does not fit its place"),
        (_header(b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}') + bytes(4), "header is malformed"),
        (
            _header(
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":'
                b"[0,4]}}"
            )
            + bytes(4),
            "names a key twice",
        ),
    ],
)
def test_malformed_weight_file_is_refused(content: bytes, sentence: str, parents: dict[str, Path]) -> None:
    (parents["a"] / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(str(parents["a"]))


def test_index_may_not_name_files_outside_the_checkpoint(parents: dict[str, Path]) -> None:
    index = {"weight_map": {"model.norm.weight": "../b/model.safetensors"}}
    (parents["a"] / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no file of this checkpoint"):
        open_checkpoint(str(parents["a"]))


def test_pickled_weights_are_refused_with_the_way_out(parents: dict[str, Path]) -> None:
    (parents["a"] / "model.safetensors").rename(parents["a"] / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="convert them to safetensors first"):
        open_checkpoint(str(parents["a"]))
