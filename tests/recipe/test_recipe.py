from __future__ import annotations

from pathlib import Path

import pytest

from mergeline.errors import RecipeError
from mergeline.recipe.recipe import read_recipe

ROOT = Path(__file__).parents[2]
MISSION = (ROOT / "configs" / "merges" / "marcoro14-7b-slerp.yaml").read_text()


def test_missions_recipe_is_read_as_written() -> None:
    recipe = read_recipe(MISSION)
    assert recipe.references() == ("OpenPipe/mistral-ft-optimized-1218", "mlabonne/NeuralHermes-2.5-Mistral-7B")
    assert recipe.slices is not None
    assert [source.layer_range for source in recipe.slices[0].sources] == [(0, 32), (0, 32)]
    attention, mlp, others = recipe.parameters["t"]
    assert (attention.filter, attention.value) == ("self_attn", (0, 0.5, 0.3, 0.7, 1))
    assert (mlp.filter, mlp.value) == ("mlp", (1, 0.5, 0.7, 0.3, 0))
    assert (others.filter, others.value) == (None, 0.5)


def test_normalised_recipe_reads_back_as_itself() -> None:
    recipe = read_recipe(MISSION)
    assert type(recipe).model_validate(recipe.model_dump(mode="json", exclude_defaults=True)) == recipe


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "merges").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_we_ship_loads_and_begins_with_its_command(path: Path) -> None:
    read_recipe(path.read_text())
    assert path.read_text().startswith(f"# mergeline merge {path.relative_to(ROOT)} ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("dtype:", "dtpe:"), "recipe:17: dtpe: unknown key. Did you mean `dtype`?"),
        (("bfloat16", "bfloat"), "recipe:17: dtype: input should be 'bfloat16', 'float16', 'float32' or 'float64', "
         "found 'bfloat'."),
        (("merge_method: slerp\n", ""), "recipe:2: merge_method: required and missing."),
        (("- value: 0.5", "- valeu: 0.5"), "recipe:11: parameters.t: unknown key 'valeu'. Did you mean `value`?"),
        (("value: [1, 0.5", "value: [[1], 0.5"), "a gradient is a list of numbers"),
        (("[0, 32]", "[32, 0]"), "layer_range [32, 0] holds no layer"),
        (("slices:", "models: []\nslices:"), "give either `models` or `slices`, found both."),
        (("slices:", "slices: ["), "not valid YAML"),
        (("merge_method: slerp", "merge_method: slerp\nmerge_method: linear"), "merge_method is given twice"),
        (("slices:", "tokenizer: {source: union}\nslices:"), "`tokenizer`: token-by-token embedding rules"),
        (("OpenPipe/mistral-ft-optimized-1218\n        layer", "a/b+c/lora\n        layer"), "LoRA references"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(change: tuple[str, str], sentence: str) -> None:
    assert change[0] in MISSION
    with pytest.raises(RecipeError) as caught:
        read_recipe(MISSION.replace(*change, 1))
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_mistakes_are_told_at_once() -> None:
    text = MISSION.replace("dtype", "dtpe").replace("filter: mlp", "filtr: mlp").replace("[0, 32]", "[0, 0]", 1)
    with pytest.raises(RecipeError) as caught:
        read_recipe(text)
    assert len(caught.value.problems) == 3


def test_mapping_form_of_a_reference_carries_its_revision() -> None:
    recipe = read_recipe("merge_method: linear\nmodels:\n  - model: {model: {path: a/b, revision: v1}}\n")
    assert recipe.references() == ("a/b@v1",)
