"""A pipeline as the fields of a form, and back: what Prefect shows, and what one process hands another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import yaml

from mergeline.errors import PipelineError
from mergeline.pipeline.language import LoadedPipeline, checked, validated
from mergeline.support.yaml_document import YamlDocument, read_yaml

_FIELDS = {
    "tasks": ("evaluate", "tasks"),
    "limit": ("evaluate", "limit"),
    "publish": ("publish", "when"),
    "repo_id": ("publish", "repo_id"),
    "private": ("publish", "private"),
    "device": ("execute", "device"),
}
"""Field of the form -> section and key of the pipeline language. `recipe` and `name` are fields as well, and `more`
holds all other settings in YAML."""


def to_form(pipeline: LoadedPipeline) -> dict[str, Any]:
    """Return the fields that give this pipeline again; see :func:`read_form`."""
    settings = pipeline.settings.model_dump(mode="json")
    rest = pipeline.settings.model_dump(mode="json", exclude_defaults=True, exclude={"name", "recipe"})
    form = {field: settings[section][key] for field, (section, key) in _FIELDS.items()}
    for section, key in _FIELDS.values():
        rest.get(section, {}).pop(key, None)
    more = {section: keys for section, keys in rest.items() if keys}
    text = yaml.safe_dump(more, sort_keys=False) if more else ""
    return {"recipe": pipeline.recipe_text, "name": pipeline.settings.name, **form, "more": text}


def read_form(form: Mapping[str, Any]) -> LoadedPipeline:
    """Read a form's fields; those that are left out have the pipeline language's defaults.

    Raises:
        PipelineError: With one line per problem.
        RecipeError: Likewise, for the recipe.
    """
    more = str(form.get("more") or "")
    document = read_yaml(more, "more", PipelineError) if more.strip() else YamlDocument({}, "form", {})
    value = document.value
    for field, (section, key) in _FIELDS.items():
        if field in form:
            value[section] = {**cast("Mapping[str, Any]", value.get(section) or {}), key: form[field]}
    recipe = str(form["recipe"])
    value |= {"name": form["name"], "recipe": recipe}
    return checked(validated(document), recipe, "recipe")
