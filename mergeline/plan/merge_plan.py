"""The plan of a merge: every output tensor, its inputs, its parameters, and its place in a shard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mergeline.methods import TensorSettings
from mergeline.methods.numerics import NUMERICS_VERSION
from mergeline.plan.shard_layout import safetensors_header
from mergeline.sources.identity import SourceIdentity
from mergeline.sources.safetensors_header import TensorSpec
from mergeline.support.digests import digest


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
    """Whether the method takes differences of the other inputs from the first."""
    common_rows: int | None = None
    """Number of rows that every input has; the rows after are copied from the first input. None: all rows."""
    is_copied: bool = False
    """Whether the first input is copied unchanged (integer buffers)."""

    @property
    def element_count(self) -> int:
        return math.prod(self.shape)

    def method_settings(self) -> TensorSettings:
        """Return the method's settings for this tensor; its shape counts only rows that every input has."""
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
    """Everything a merge will do. It contains no local path, so equal merges on any machine have equal digests."""

    merge_method: str
    recipe: dict[str, Any]
    """The normalised recipe."""
    sources: tuple[SourceIdentity, ...]
    donor: int
    """Index of the source that gives config, tokenizer and vocabulary."""
    shards: tuple[ShardPlan, ...]
    config: dict[str, Any]
    """config.json of the output."""
    copied_files: tuple[str, ...]
    """Tokenizer and generation files taken from the donor."""
    notes: tuple[str, ...]
    """Sentences: what was decided where the recipe is silent, and what the user should check."""
    numerics_version: int = NUMERICS_VERSION

    @cached_property
    def digest(self) -> str:
        """sha256 over what determines the bytes written; labels, comments and notes do not."""
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
        """Return the safetensors header of a shard's file, which contains this plan's digest."""
        return safetensors_header(shard.tensors, {"format": "pt", "mergeline_plan": self.digest})

    def shard_nbytes(self, shard: ShardPlan) -> int:
        return len(self.shard_header(shard)) + shard.data_nbytes
