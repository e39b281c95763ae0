"""A merge, decided: every output tensor, its inputs, its numbers and its place in which shard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mergeline.checkpoint import BITS, Checkpoint, TensorSpec
from mergeline.errors import MissingTensorError, PlanError, ShapeMismatchError
from mergeline.lineage import NUMERICS_VERSION, SourceRecord, digest
from mergeline.methods import METHODS, TensorSettings
from mergeline.output_config import output_config
from mergeline.plan_inputs import Problems, TensorDraft, draft_tensors
from mergeline.recipe import Recipe
from mergeline.shard_layout import pack, safetensors_header, shard_filename
from mergeline.yaml_document import did_you_mean

DEFAULT_MAX_SHARD_BYTES = 5 * 10**9

_SAFETENSORS_DTYPE = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class TensorInput:
    """One tensor that an output tensor is computed from."""

    source: int
    """Index into :attr:`MergePlan.sources`."""
    spec: TensorSpec
    settings: dict[str, float | bool]
    """The method's per-model parameters, resolved."""


@dataclass(frozen=True)
class TensorPlan:
    """One output tensor."""

    name: str
    dtype: str
    """safetensors' name of the dtype written."""
    shape: tuple[int, ...]
    offset: int
    """First byte, counted from the start of the shard's data section."""
    nbytes: int
    inputs: tuple[TensorInput, ...]
    """The base model's (or first model's) tensor first."""
    settings: dict[str, float | bool]
    """The method's shared parameters, resolved."""
    has_origin: bool = False
    """Whether the first input is what the others' differences are taken from."""
    common_rows: int | None = None
    """Rows that every input has; those after are the first input's. None: all rows."""
    is_copied: bool = False
    """Whether the first input's bytes are taken as they are (integer buffers)."""

    @property
    def element_count(self) -> int:
        return math.prod(self.shape)

    def method_settings(self) -> TensorSettings:
        """Return what the method is told of this tensor: of the rows that every input has."""
        per_model = tuple(item.settings for item in self.inputs)
        shape = self.shape if self.common_rows is None else (self.common_rows, *self.shape[1:])
        return TensorSettings(self.name, shape, self.settings, per_model, self.has_origin)


@dataclass(frozen=True)
class ShardPlan:
    """One output file."""

    filename: str
    tensors: tuple[TensorPlan, ...]

    @property
    def data_nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class MergePlan:
    """Everything a merge will do; holds no path of one machine, so that equal merges have equal digests."""

    merge_method: str
    recipe: dict[str, Any]
    """The normalised recipe."""
    sources: tuple[SourceRecord, ...]
    donor: int
    """Index of the source that gives config, tokenizer and vocabulary."""
    shards: tuple[ShardPlan, ...]
    config: dict[str, Any]
    """config.json of the output."""
    copied_files: tuple[str, ...]
    """Tokenizer and generation files taken from the donor."""
    notes: tuple[str, ...]
    """What was decided where the recipe is silent, and what deserves a second look, in sentences."""
    numerics_version: int = NUMERICS_VERSION

    @cached_property
    def digest(self) -> str:
        """sha256 over what decides the bytes written: not labels, comments or the wording of notes."""
        return digest(
            {
                "numerics": self.numerics_version,
                "method": self.merge_method,
                "sources": [source.fingerprint for source in self.sources],
                "donor": self.donor,
                "shards": self.shards,
                "config": self.config,
                "copied": self.copied_files,
            }
        )

    @property
    def tensor_count(self) -> int:
        return sum(len(shard.tensors) for shard in self.shards)

    @property
    def parameter_count(self) -> int:
        return sum(tensor.element_count for shard in self.shards for tensor in shard.tensors)

    @property
    def output_nbytes(self) -> int:
        """Bytes of weights written; headers and small files come on top."""
        return sum(shard.data_nbytes for shard in self.shards)

    @property
    def read_nbytes(self) -> int:
        """Bytes of weights in the sources' files, each counted once."""
        return sum(file.nbytes for source in self.sources for file in source.files)

    def shard_header(self, shard: ShardPlan) -> bytes:
        """Return the first bytes of a shard's file; the digest in it ties the file to this plan."""
        return safetensors_header(shard.tensors, {"format": "pt", "mergeline_plan": self.digest})

    def shard_nbytes(self, shard: ShardPlan) -> int:
        return len(self.shard_header(shard)) + shard.data_nbytes


def plan_merge(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], *, max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES
) -> MergePlan:
    """Decide everything about a merge from the recipe and the checkpoints' headers.

    Args:
        recipe: What to merge.
        checkpoints: One per entry of ``recipe.references()``.
        max_shard_bytes: Largest output file, in bytes; a single larger tensor still gets a file of its own.

    Raises:
        PlanError: With one line per problem; :class:`MissingTensorError` or :class:`ShapeMismatchError` where all
            problems are of that kind.
    """
    method = METHODS.get(recipe.merge_method)
    if method is None:
        raise PlanError(
            f"merge_method: unknown method {recipe.merge_method!r}.{did_you_mean(recipe.merge_method, METHODS)}"
        )
    order = recipe.references()
    problems = Problems()
    draft = draft_tensors(recipe, method, checkpoints, problems)
    if draft is not None and not problems:
        config = output_config(recipe, [checkpoints[name] for name in order], draft, problems)
        if not problems:
            donor = checkpoints[draft.donor]
            return MergePlan(
                merge_method=recipe.merge_method,
                recipe=recipe.model_dump(mode="json", exclude_defaults=True),
                sources=tuple(checkpoints[name].record for name in order),
                donor=order.index(draft.donor),
                shards=_shards(draft.tensors, order, recipe.output_dtype, max_shard_bytes),
                config=config,
                copied_files=tuple(name for name in donor.auxiliary_files if name != "config.json"),
                notes=tuple(problems.notes),
            )
    raise _error(problems)


def _shards(
    drafts: list[TensorDraft], order: tuple[str, ...], output_dtype: str | None, max_shard_bytes: int
) -> tuple[ShardPlan, ...]:
    """Give every tensor its dtype, size, shard and offset."""
    sized = [_tensor(draft, order, output_dtype) for draft in drafts]
    shards = pack(sized, max_shard_bytes)
    return tuple(
        ShardPlan(shard_filename(index, len(shards)), _placed(tensors)) for index, tensors in enumerate(shards)
    )


def _tensor(draft: TensorDraft, order: tuple[str, ...], output_dtype: str | None) -> TensorPlan:
    first = draft.inputs[0].spec
    dtype = first.dtype if draft.is_copied or output_dtype is None else _SAFETENSORS_DTYPE[output_dtype]
    return TensorPlan(
        name=draft.name,
        dtype=dtype,
        shape=first.shape,
        offset=0,
        nbytes=math.prod(first.shape) * BITS[dtype] // 8,
        inputs=tuple(TensorInput(order.index(item.source), item.spec, item.settings) for item in draft.inputs),
        settings=draft.settings,
        has_origin=draft.has_origin,
        common_rows=draft.common_rows,
        is_copied=draft.is_copied,
    )


def _placed(tensors: list[TensorPlan]) -> tuple[TensorPlan, ...]:
    """Lay tensors end to end; wider dtypes first, so that every tensor is aligned to its own element size."""
    placed: list[TensorPlan] = []
    offset = 0
    for tensor in sorted(tensors, key=lambda tensor: -BITS[tensor.dtype]):
        placed.append(replace(tensor, offset=offset))
        offset += tensor.nbytes
    return tuple(placed)


def _error(problems: Problems) -> PlanError:
    kinds = {kind for kind, _ in problems.found}
    lines = [line for _, line in problems.found]
    if kinds == {"shape"}:
        return ShapeMismatchError(lines)
    if kinds == {"missing"}:
        return MissingTensorError(lines)
    return PlanError(lines)
