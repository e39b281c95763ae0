"""Each output tensor's input tensors and parameter values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mergeline.methods import MergeMethod, TensorSettings
from mergeline.plan.numbers import resolve
from mergeline.plan.problems import Problems
from mergeline.plan.segments import Segment, check_parameter_names, checked_segment, models_as_slice
from mergeline.recipe.parameters import first_match, gradient_position
from mergeline.recipe.recipe import Parameters, Recipe
from mergeline.sources.architecture import (
    TensorPlace,
    has_vocabulary_rows,
    input_embedding,
    is_head,
    is_tied,
    ordered,
    place_of,
)
from mergeline.sources.checkpoint import Checkpoint
from mergeline.sources.safetensors_header import TensorSpec
from mergeline.sources.vocabulary import describe_difference
from mergeline.support.dtypes import COMBINABLE


@dataclass(frozen=True)
class InputDraft:
    """One input of an output tensor."""

    source: str
    """The model's reference in the recipe."""
    spec: TensorSpec
    settings: dict[str, float | bool]


@dataclass(frozen=True)
class TensorDraft:
    """One output tensor before it has a dtype and a place in a file."""

    name: str
    inputs: tuple[InputDraft, ...]
    settings: dict[str, float | bool]
    has_origin: bool
    common_rows: int | None
    is_copied: bool


@dataclass(frozen=True)
class MergeDraft:
    """All output tensors, in the order data flows through the model."""

    tensors: list[TensorDraft]
    donor: str
    """Reference of the model that gives config, tokenizer and vocabulary."""
    layer_donors: list[tuple[str, int]]
    """For each output layer, the model and layer its config entries come from."""


def draft_tensors(
    recipe: Recipe, method: MergeMethod, checkpoints: Mapping[str, Checkpoint], problems: Problems
) -> MergeDraft | None:
    """Draft every output tensor; None, with problems added, if the recipe does not fit method and checkpoints."""
    check_parameter_names(recipe, method, problems)
    slices = recipe.slices or models_as_slice(recipe, checkpoints, problems)
    segments = [
        checked_segment(recipe, method, slice_, f"slices[{i}]" if recipe.slices else "models", checkpoints, problems)
        for i, slice_ in enumerate(slices)
    ]
    checked = [segment for segment in segments if segment is not None]
    if problems or len(checked) < len(segments):
        return None
    return _Drafting(recipe, method, checkpoints, problems).draft(checked)


class _Drafting:
    """Drafts the output tensors, and records which tensors of the sources are used."""

    def __init__(
        self, recipe: Recipe, method: MergeMethod, checkpoints: Mapping[str, Checkpoint], problems: Problems
    ) -> None:
        self.recipe, self.method, self.checkpoints, self.problems = recipe, method, checkpoints, problems
        self.used: dict[str, set[str]] = {name: set() for name in checkpoints}

    def draft(self, segments: Sequence[Segment]) -> MergeDraft:
        first, last = segments[0], segments[-1]
        donor = self.recipe.base_model or first.sources[0].model
        tensors: list[TensorDraft] = []
        layer_donors: list[tuple[str, int]] = []
        for segment in segments:
            for layer in range(segment.layers):
                source = segment.sources[0]
                layer_donors.append((source.model, source.layer_range[0] + layer))
                tensors += self._layer(segment, layer, len(layer_donors) - 1)
        tensors += self._outside(first, before=True) + self._outside(last, before=False)
        self._note_unused(segments)
        by_name = {tensor.name: tensor for tensor in tensors}
        return MergeDraft([by_name[name] for name in ordered(by_name)], donor, layer_donors)

    def _layer(self, segment: Segment, layer: int, output_layer: int) -> Iterator[TensorDraft]:
        """Draft the tensors of one output layer, as the segment's first source names them."""
        source = segment.sources[0]
        source_layer = source.layer_range[0] + layer
        position = gradient_position(layer, segment.layers)
        places = [
            place for place in map(place_of, self.checkpoints[source.model].tensors) if place.layer == source_layer
        ]
        if not places:
            self.problems.add(
                f"{source.model}: layer {source_layer} has no tensor; the checkpoint is not whole.", "missing"
            )
        for place in places:
            names = [place.name_in_layer(source.layer_range[0] + layer) for source in segment.sources]
            draft = self._tensor(segment, place.name_in_layer(output_layer), names, position)
            if draft is not None:
                yield draft

    def _outside(self, segment: Segment, before: bool) -> list[TensorDraft]:
        """Draft the tensors before (embeddings) or after (final norm, head) the layers."""
        names: dict[str, TensorPlace] = {}
        for source in segment.sources:
            for name in self.checkpoints[source.model].tensors:
                place = place_of(name)
                is_first = source is segment.sources[0]
                if place.layer is None and place.is_before_layers == before and (is_first or is_head(name)):
                    names.setdefault(name, place)
        drafts = (self._tensor(segment, name, [name] * len(segment.sources), 0.0) for name in names)
        return [draft for draft in drafts if draft is not None]

    def _tensor(self, segment: Segment, name: str, names: Sequence[str], position: float) -> TensorDraft | None:
        own_names = zip(segment.sources, names, strict=True)
        specs = [spec for source, own_name in own_names if (spec := self._find(source.model, own_name)) is not None]
        if len(specs) < len(names):
            return None
        is_copied = any(spec.dtype not in COMBINABLE for spec in specs)
        if any(spec.dtype.startswith("F8") for spec in specs):
            self.problems.add(
                f"{name}: float8 weights are not supported yet; convert the checkpoint to bfloat16 first."
            )
            return None
        rows = self._common_rows(segment, name, specs)
        try:
            shared, per_model = self._numbers(segment, name, names, position)
        except ValueError as problem:
            self.problems.add(f"parameters: {problem}.")
            return None
        settings = TensorSettings(name, specs[0].shape, shared, tuple(per_model), segment.has_origin)
        problem = None if is_copied else self.method.problem(settings)
        if problem:
            self.problems.add(f"parameters: {name}: {problem}.")
        if is_copied:
            self.problems.note(f"{name}: not floating point; copied from {segment.sources[0].model}.")
        inputs = tuple(
            InputDraft(source.model, spec, values)
            for source, spec, values in zip(segment.sources, specs, per_model, strict=True)
        )
        if is_copied:
            return TensorDraft(name, inputs[:1], {}, False, None, True)
        return TensorDraft(name, inputs, shared, segment.has_origin, rows, False)

    def _find(self, model: str, name: str) -> TensorSpec | None:
        """Return a model's tensor, its tied embedding where a head is missing, or None with a problem added."""
        checkpoint = self.checkpoints[model]
        spec = checkpoint.tensors.get(name)
        if spec is None and is_head(name) and is_tied(checkpoint.config, checkpoint.tensors):
            embedding = input_embedding(checkpoint.tensors)
            if embedding is not None:
                self.problems.note(f"{name}: {model} ties it to {embedding}; that is merged, and the output is untied.")
                spec = checkpoint.tensors[embedding]
        if spec is None:
            self.problems.add(
                f"{model}: tensor {name!r} is missing; the models must be of one architecture.", "missing"
            )
            return None
        self.used[model].add(spec.name)
        return spec

    def _common_rows(self, segment: Segment, name: str, specs: Sequence[TensorSpec]) -> int | None:
        """Compare shapes; return how many rows all inputs have, if fewer than the output, which has the first's."""
        base, first = segment.sources[0].model, specs[0]
        common: int | None = None
        for source, spec in zip(segment.sources[1:], specs[1:], strict=True):
            if spec.shape == first.shape:
                continue
            same_but_rows = spec.shape[1:] == first.shape[1:] and len(spec.shape) == len(first.shape)
            if has_vocabulary_rows(name) and same_but_rows:
                common = min(common or first.shape[0], spec.shape[0])
                rows = (first.shape[0], spec.shape[0])
                for sentence in describe_difference(
                    self.checkpoints[base], rows[0], self.checkpoints[source.model], rows[1]
                ):
                    self.problems.note(sentence)
            else:
                self.problems.add(
                    f"tensor {name!r}: {base} has shape {list(first.shape)}, {source.model} has {list(spec.shape)}; "
                    f"{self.method.name} needs equal shapes, so the models must be of one size and architecture.",
                    "shape",
                )
        return common if common is not None and common < first.shape[0] else None

    def _numbers(
        self, segment: Segment, name: str, names: Sequence[str], position: float
    ) -> tuple[dict[str, float | bool], list[dict[str, float | bool]]]:
        """Resolve the method's parameters for one tensor.

        Returns:
            The parameters shared by all models, matched by the output's name, and those of each model, matched by its
            own name of the tensor.
        """
        general = (segment.parameters, self.recipe.parameters)
        shared: dict[str, float | bool] = {}
        per_model: list[dict[str, float | bool]] = [{} for _ in names]
        for parameter in self.method.parameters:
            if not parameter.per_model:
                shared[parameter.name] = resolve(parameter, general, name, position)
                self._note_first_value(general, parameter.name, name)
                continue
            inputs = zip(per_model, segment.sources, names, strict=True)
            for settings, source, own_name in list(inputs)[segment.has_origin :]:
                scopes = (source.parameters, *general)
                settings[parameter.name] = resolve(parameter, scopes, own_name, position)
                self._note_first_value(scopes, parameter.name, own_name)
        return shared, per_model

    def _note_first_value(self, scopes: Sequence[Parameters], parameter: str, name: str) -> None:
        """Note that a tensor outside the layers takes a gradient's first value, as in mergekit."""
        conditional = first_match(scopes, parameter, name)
        if place_of(name).layer is None and conditional is not None and isinstance(conditional.value, tuple):
            self.problems.note(
                f"{name}: stands outside the layers and takes the first value of the gradient for `{parameter}` "
                f"({conditional.value[0]}); add a filter for it if another is meant."
            )

    def _note_unused(self, segments: Sequence[Segment]) -> None:
        """Note the tensors of the sources that are not in the output, so that none is dropped silently."""
        for model, used in self.used.items():
            sources = [source for segment in segments for source in segment.sources if source.model == model]
            ranges = [source.layer_range for source in sources]
            unused = [
                name
                for name in self.checkpoints[model].tensors
                if name not in used and _is_covered(place_of(name), ranges)
            ]
            if unused and ranges:
                more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
                self.problems.note(f"{model}: not in the output: {', '.join(unused[:3])}{more}.")


def _is_covered(place: TensorPlace, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether a tensor lies outside the layers, or in a layer that the recipe takes from its model."""
    return place.layer is None or any(first <= place.layer < end for first, end in ranges)
