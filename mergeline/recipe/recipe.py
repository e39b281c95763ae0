"""The merge language: mergekit's YAML, read strictly, every problem reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from mergeline.errors import RecipeError
from mergeline.support.dtypes import RecipeDtype
from mergeline.support.yaml_document import StrictModel, did_you_mean, problems_of, read_yaml

Scalar = float | int | bool | str
"""A number, flag or word as the recipe gives it."""


class Conditional(StrictModel):
    """A value, or a gradient over the layers of a slice, for tensors whose name contains ``filter``."""

    filter: str | None = None
    """Case-sensitive substring of the tensor's name; None (or ``"*"``) matches all."""
    value: Scalar | tuple[Scalar, ...]
    """One value, or a list spread evenly over the slice's layers and interpolated between."""

    def matches(self, tensor_name: str) -> bool:
        return self.filter is None or self.filter == "*" or self.filter in tensor_name


Setting = tuple[Conditional, ...]
"""All values of a parameter in one place of the recipe: the first conditional that matches a tensor gives its value."""


def _read_setting(raw: Any) -> Setting:
    """Read a scalar, a gradient or a list of filtered values as conditionals."""
    if isinstance(raw, tuple) and all(isinstance(item, Conditional) for item in cast("tuple[Any, ...]", raw)):
        return cast("Setting", raw)
    if isinstance(raw, Mapping):
        raw = [raw]
    if isinstance(raw, list) and any(isinstance(item, Mapping) for item in cast("list[Any]", raw)):
        items = cast("list[Any]", raw)
        return tuple(_read_conditional(item) for item in items)
    return (Conditional(value=_read_value(raw)),)


def _read_conditional(raw: Any) -> Conditional:
    if not isinstance(raw, Mapping):
        raise ValueError(f"expected `filter:` and `value:` in every item of the list, found {raw!r}.")
    item = cast("Mapping[str, Any]", raw)
    unknown = [key for key in item if key not in ("filter", "value")]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}.{did_you_mean(unknown[0], ('filter', 'value'))}")
    if "value" not in item:
        raise ValueError(f"the item for filter {item.get('filter')!r} has no `value`; add one.")
    condition = item.get("filter")
    if condition is not None and not isinstance(condition, str):
        raise ValueError(f"`filter` must be a part of a tensor's name, found {condition!r}.")
    return Conditional(filter=condition, value=_read_value(item["value"]))


def _read_value(raw: Any) -> Scalar | tuple[Scalar, ...]:
    if isinstance(raw, list):
        values = cast("list[Any]", raw)
        if not values:
            raise ValueError("an empty list is no gradient; give at least one value.")
        if not all(isinstance(value, int | float | str) for value in values):
            raise ValueError(f"a gradient is a list of numbers, found {values!r}.")
        return tuple(values)
    if isinstance(raw, int | float | str):
        return raw
    raise ValueError(f"expected a number, a list of numbers or a list of filter/value pairs, found {raw!r}.")


def _write_setting(setting: Setting) -> Any:
    if len(setting) == 1 and setting[0].filter is None:
        value = setting[0].value
        return list(value) if isinstance(value, tuple) else value
    return [
        ({"filter": c.filter} if c.filter is not None else {})
        | {"value": list(c.value) if isinstance(c.value, tuple) else c.value}
        for c in setting
    ]


_SettingForm = Scalar | list[Scalar] | Conditional | list[Conditional]
"""What a recipe may write for a setting; for the JSON schema that editors read."""


_SettingField = Annotated[
    Setting, BeforeValidator(_read_setting, json_schema_input_type=_SettingForm), PlainSerializer(_write_setting)
]


Parameters = dict[str, _SettingField]
"""Parameter name -> setting; planning checks the names against the merge method."""


def _read_reference(raw: Any) -> Any:
    """Accept mergekit's mapping form of a model reference beside the plain string."""
    if isinstance(raw, Mapping):
        outer = cast("Mapping[str, Any]", raw)
        if outer.get("lora") or outer.get("override_architecture"):
            raise ValueError("LoRA and architecture overrides are not supported yet; merge the adapter first.")
        inner: Any = outer.get("model", outer)
        if isinstance(inner, Mapping):
            model = cast("Mapping[str, Any]", inner)
            path, revision = model.get("path"), model.get("revision")
            if isinstance(path, str):
                return f"{path}@{revision}" if revision else path
        raw = inner
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"expected a Hub id or a local directory, found {raw!r}.")
    if "+" in raw and not Path(raw).exists():
        raise ValueError(f"LoRA references such as {raw!r} are not supported yet; merge the adapter first.")
    return raw.strip()


ModelReference = Annotated[str, BeforeValidator(_read_reference, json_schema_input_type=str | dict[str, Any])]
"""Hub id with an optional ``@revision``, or a local directory relative to the working directory."""


class Source(StrictModel):
    """Layers of one model inside a slice."""

    model: ModelReference
    layer_range: tuple[int, int]
    """First layer and one past the last, counted from 0."""
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_range(self) -> Source:
        first, end = self.layer_range
        if not 0 <= first < end:
            raise ValueError(
                f"layer_range [{first}, {end}] holds no layer; give [first, one past the last], counted from 0."
            )
        return self


class Slice(StrictModel):
    """Consecutive layers of the output and the models they are merged from."""

    sources: tuple[Source, ...] = Field(min_length=1)
    base_model: ModelReference | None = None
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_lengths(self) -> Slice:
        lengths = {source.model: source.layer_range[1] - source.layer_range[0] for source in self.sources}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{model} {length}" for model, length in lengths.items())
            raise ValueError(f"the sources of one slice must have equally many layers, found {counts}.")
        return self


class Model(StrictModel):
    """A whole model as an input."""

    model: ModelReference
    parameters: Parameters = Field(default_factory=dict)


_NOT_YET = {
    "modules": "merging the modules of a multimodal model is not supported yet",
    "tokenizer": "token-by-token embedding rules are not supported yet; `tokenizer_source: base` is",
    "chat_template": "replacing the chat template is not supported yet; the base model's is kept",
}


class Recipe(StrictModel):
    """A merge as mergekit's YAML describes it."""

    merge_method: str
    models: tuple[Model, ...] | None = None
    slices: tuple[Slice, ...] | None = None
    base_model: ModelReference | None = None
    dtype: RecipeDtype | None = None
    """Weights are rounded to this, once, unless ``out_dtype`` says otherwise."""
    out_dtype: RecipeDtype | None = None
    parameters: Parameters = Field(default_factory=dict)
    tokenizer_source: str | None = None
    """``base``: the base model's vocabulary and tokenizer, which is also the default."""

    @model_validator(mode="before")
    @classmethod
    def _check_not_yet(cls, raw: Any) -> Any:
        for key, reason in _NOT_YET.items():
            if isinstance(raw, Mapping) and key in raw:
                raise ValueError(f"`{key}`: {reason}.")
        return raw

    @model_validator(mode="after")
    def _check_inputs(self) -> Recipe:
        if (self.models is None) == (self.slices is None):
            found = "neither" if self.models is None else "both"
            raise ValueError(f"give either `models` or `slices`, found {found}.")
        if not (self.models or self.slices):
            raise ValueError("the list of inputs is empty; name at least one model.")
        return self

    @property
    def output_dtype(self) -> RecipeDtype | None:
        return self.out_dtype or self.dtype

    def as_yaml(self) -> str:
        """Render the recipe as YAML that :func:`read_recipe` reads."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)

    def references(self) -> tuple[str, ...]:
        """Return all models that the recipe names, base models included, in the order of first mention."""
        named: dict[str, None] = {}
        for model in self.models or ():
            named[model.model] = None
        for slice_ in self.slices or ():
            named.update((source.model, None) for source in slice_.sources)
            if slice_.base_model:
                named[slice_.base_model] = None
        if self.base_model:
            named[self.base_model] = None
        return tuple(named)


def read_recipe(text: str, origin: str = "recipe") -> Recipe:
    """Read a recipe from YAML text.

    Raises:
        RecipeError: With one line per problem, each naming file, line and path.
    """
    document = read_yaml(text, origin, RecipeError)
    try:
        return Recipe.model_validate(document.value)
    except ValidationError as problem:
        raise RecipeError(problems_of(document, problem, Recipe)) from None
