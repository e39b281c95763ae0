"""The fields of the main flow: what Prefect's form offers, and who judges what is filled in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from flows.form import EXAMPLE_RECIPE
from flows.merge_and_evaluate import EXAMPLE_SETTINGS, merge_and_evaluate
from mergeline.errors import InputError, PipelineError, RecipeError
from mergeline.pipeline.form import read_form, to_form
from mergeline.pipeline.language import load_pipeline
from mergeline.publish.policy import PublishWhen

WRONG_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "limit": ({"limit": 0}, "evaluate: {limit: 0}"),
    "name": ({"name": "two words"}, "name: two words"),
    "tasks": (
        {"tasks": [], "publish": "better_than_parents", "repo_id": "x"},
        "evaluate: {tasks: []}\npublish: {when: better_than_parents, repo_id: x}",
    ),
    "publish": ({"publish": "sometimes"}, "publish: {when: sometimes}"),
    "repo_id": ({"publish": "always"}, "publish: {when: always}"),
    "device": ({"device": "gpu"}, "execute: {device: gpu}"),
    "more": ({"more": "evaluate: {batch: 8}"}, "evaluate: {batch: 8}"),
    "recipe": ({"recipe": EXAMPLE_RECIPE.replace("base_model", "base_modle")}, ""),
}


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_a_wrong_field_is_refused_with_the_sentence_of_a_file(field: str, tmp_path: Path) -> None:
    form, in_file = WRONG_FIELDS[field]
    recipe = "".join(f"  {line}\n" for line in form.get("recipe", EXAMPLE_RECIPE).splitlines())
    name = "" if "name" in form else "name: wrong\n"
    (tmp_path / "wrong.yaml").write_text(f"{name}recipe: |\n{recipe}{in_file}\n")
    with pytest.raises((PipelineError, RecipeError)) as from_file:
        load_pipeline(tmp_path / "wrong.yaml")
    # What Prefect itself thinks of the fields comes first; it must leave the judgement to the pipeline language.
    fields = merge_and_evaluate.validate_parameters({"name": "wrong"} | form)
    with pytest.raises((PipelineError, RecipeError)) as from_form:
        merge_and_evaluate.fn(**fields)
    assert type(from_form.value) is type(from_file.value)
    assert sentence(from_form.value) == sentence(from_file.value)
    assert len(str(from_form.value).splitlines()) == 1


def sentence(error: InputError) -> str:
    """Return what an error says without its place: a line of a file there, a field of the form here."""
    return re.sub(r"^(\S+wrong\.yaml(:\d+)?: (recipe:\d+: )?|form: |more:\d+: |recipe:\d+: )", "", str(error))


def test_a_file_may_name_a_device_that_the_form_does_not_offer(tmp_path: Path) -> None:
    recipe = "".join(f"  {line}\n" for line in EXAMPLE_RECIPE.splitlines())
    (tmp_path / "cuda.yaml").write_text(f"name: cuda\nrecipe: |\n{recipe}execute: {{device: 'cuda:1'}}\n")
    pipeline = load_pipeline(tmp_path / "cuda.yaml")
    assert read_form(merge_and_evaluate.validate_parameters(to_form(pipeline))).settings == pipeline.settings


def test_the_form_is_what_people_have_learnt_to_fill_in() -> None:
    schema = merge_and_evaluate.parameters.model_dump()
    fields = {
        name: {key: value for key, value in field.items() if key not in ("description", "title", "position")}
        for name, field in schema["properties"].items()
    }
    assert fields == {
        "recipe": {"type": "string", "format": "json-string", "default": EXAMPLE_RECIPE},
        "name": {"type": "string", "default": "demo-slerp"},
        "tasks": {"type": "array", "items": {"type": "string"}, "default": ["spartqa_train"]},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "publish": {"type": "string", "enum": list(get_args(PublishWhen)), "default": "never"},
        "repo_id": {"type": "string", "default": ""},
        "private": {"type": "boolean", "default": True},
        "device": {"type": "string", "enum": ["auto", "cpu", "cuda"], "default": "auto"},
        "more": {"type": "string", "format": "json-string", "default": EXAMPLE_SETTINGS},
    }
    order = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
    assert order == list(fields)
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["required"] == []
