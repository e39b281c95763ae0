"""The pipeline language: what to do with a merge, and the defaults of everything that is done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mergeline.errors import PipelineError
from mergeline.publish.policy import PublishWhen
from mergeline.recipe.recipe import ModelReference, read_recipe
from mergeline.support.state import default_tracking_uri
from mergeline.support.text import parse_size, read_text
from mergeline.support.yaml_document import StrictModel, YamlDocument, problems_of, read_yaml, read_yaml_value

MARGIN = 0.02
"""Accuracy that a merge may lose and still count as not worse, unless a pipeline says otherwise."""

DEFAULT_PROMPTS = ("Who are you?", "Translate this sentence to Vietnamese: Good morning")
"""What models continue unless a pipeline says otherwise."""


class Execute(StrictModel):
    """How the merge is computed; changes no byte of it except the shards' size."""

    engine: Literal["threads", "ray", "workers"] = "threads"
    """``threads`` of this process, tasks on a ``ray`` cluster, or runs on the Prefect ``workers`` of a pool."""
    ray_address: str | None = None
    """Of the cluster; ``$RAY_ADDRESS``, the one on this machine, or a new one by default."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    max_shard_size: str = "5GB"
    """Largest output file."""

    @field_validator("max_shard_size")
    @classmethod
    def _check_size(cls, text: str) -> str:
        parse_size(text)
        return text

    @model_validator(mode="after")
    def _check_device(self) -> Execute:
        if self.engine != "threads" and ":" in self.device:
            raise ValueError(
                f"device {self.device} is one of this machine's; with engine {self.engine} each worker takes its own: "
                "write cuda."
            )
        return self

    @property
    def resolved_ray_address(self) -> str | None:
        return self.ray_address or os.environ.get("RAY_ADDRESS") or None


class Evaluate(StrictModel):
    """Which questions the merge, its parents and its base are asked."""

    tasks: tuple[str, ...] = ("spartqa_train",)
    """lm-eval tasks; none: no evaluation."""
    dataset: str | None = None
    """Hub dataset id, local file or ``directions`` (made-up questions), with a choice of questions if wanted:
    ``tasksource/spartqa-mchoice?shuffle=9163&take=1000``."""
    base: ModelReference | None = None
    """A further model to show beside the parents, e.g. their common ancestor."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first this many questions."""
    batch_size: int = Field(default=32, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    engine: Literal["stock", "fast"] = "stock"
    """``fast``: the same scores from the last position's logits alone; stock lm-eval where that cannot be."""
    margin: float = Field(default=MARGIN, ge=0, le=1)
    """Accuracy that a merge may lose and still count as not worse."""
    breakdown: tuple[str, ...] | None = None
    """Columns of the questions to break accuracy down by; by default those with 2 to 20 values."""
    time_limit_minutes: int = Field(default=600, ge=1)
    """The evaluation is ended after this long."""


class Samples(StrictModel):
    """Prompts that the models continue."""

    prompts: tuple[str, ...] = DEFAULT_PROMPTS
    max_new_tokens: int = Field(default=100, ge=1)
    seed: int = 0


class Publish(StrictModel):
    """Whether and where the merge goes on the Hub."""

    when: PublishWhen = "never"
    """``better_than_parents`` and ``not_worse_than_parents`` go by the evaluation; ``after_approval`` leaves it to a
    person: the deployment asks, a run without one publishes nothing."""
    repo_id: str = ""
    """``owner/name``; without an owner, the token's own."""
    private: bool = True


class Track(StrictModel):
    """Where MLflow keeps the record."""

    experiment: str = "mergeline"
    uri: str | None = Field(default=None, pattern=r"^(sqlite:///.|https?://.)")
    """MLflow tracking address, ``sqlite:///<file>`` or a server's; by default ``$MLFLOW_TRACKING_URI`` or a SQLite file
    in the state directory."""

    @property
    def resolved_uri(self) -> str:
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()


class Pipeline(StrictModel):
    """A merge and everything done with it."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][\w.\-]*$")
    """Names runs and directories."""
    recipe: str
    """Path of the recipe relative to this file, or the recipe's own text."""
    execute: Execute = Execute()
    evaluate: Evaluate = Evaluate()
    sample: Samples = Samples()
    publish: Publish = Publish()
    track: Track = Track()


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline with its recipe read."""

    settings: Pipeline
    recipe_text: str
    recipe_origin: str
    """What messages call the recipe."""

    def as_yaml(self) -> str:
        """Render the whole pipeline, recipe included, as it will run."""
        value = self.settings.model_dump(mode="json") | {"recipe": self.recipe_text}
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> LoadedPipeline:
    """Read a pipeline file and the recipe it names.

    Args:
        path: The YAML file.
        overrides: ``key=value`` pairs, keys dotted, values in YAML; they replace what the file says.

    Raises:
        PipelineError: With one line per problem.
        RecipeError: Likewise, for the recipe.
    """
    document = read_yaml(read_text(path, PipelineError, "pipeline"), str(path), PipelineError)
    for override in overrides:
        _override(document.value, override)
    settings = validated(document)
    text, origin = settings.recipe, f"{path}: recipe"
    if "\n" not in text:
        recipe_path = path.parent / text
        text, origin = read_text(recipe_path, PipelineError, "recipe"), str(recipe_path)
    return checked(settings, text, origin)


def read_evaluate(settings: Mapping[str, Any], origin: str) -> Evaluate:
    """Read the settings of an evaluation that is no part of a pipeline; ``origin`` is what messages call them.

    Raises:
        PipelineError: With one line per problem.
    """
    try:
        return Evaluate.model_validate(settings)
    except ValidationError as problem:
        raise PipelineError(problems_of(YamlDocument(dict(settings), origin, {}), problem, Evaluate)) from None


def validated(document: YamlDocument) -> Pipeline:
    """Read a pipeline's settings, each problem with its line."""
    try:
        return Pipeline.model_validate(document.value)
    except ValidationError as problem:
        raise PipelineError(problems_of(document, problem, Pipeline)) from None


def checked(settings: Pipeline, recipe_text: str, recipe_origin: str) -> LoadedPipeline:
    """Find what only the whole pipeline shows."""
    read_recipe(recipe_text, recipe_origin)
    if settings.publish.when != "never" and not settings.publish.repo_id:
        raise PipelineError(
            f"{settings.name}: publish.repo_id is empty and publish.when is `{settings.publish.when}`; "
            "name a repository, or set publish.when to never."
        )
    if settings.publish.when.endswith("_parents") and not settings.evaluate.tasks:
        raise PipelineError(f"{settings.name}: publish.when needs an evaluation; add one to evaluate.tasks.")
    return LoadedPipeline(settings, recipe_text, recipe_origin)


def _override(value: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise PipelineError(f"--set {override!r}: write key=value, for example evaluate.limit=100.")
    *sections, last = key.split(".")
    for section in sections:
        inner = value.setdefault(section, {})
        if not isinstance(inner, dict):
            raise PipelineError(f"--set {override!r}: {section} is no group of settings.")
        value = cast("dict[str, Any]", inner)
    value[last] = read_yaml_value(text, f"--set {key}", PipelineError)
