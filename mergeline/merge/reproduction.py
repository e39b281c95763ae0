"""A merge made again from the plan that travels with it, and compared byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergeline.errors import InputError, OutputError, VerificationError
from mergeline.merge.finished_merge import read_finished_merge
from mergeline.merge.job import Executor, merge_here
from mergeline.merge.manifest import MANIFEST_NAME
from mergeline.merge.merging import merge_planned
from mergeline.merge.workspace import finished_output
from mergeline.methods.numerics import NUMERICS_VERSION
from mergeline.plan.planning import PlannedMerge
from mergeline.sources.checkpoint import Checkpoint, fetch, open_checkpoint
from mergeline.sources.hub import Hub
from mergeline.sources.identity import FileDigest, SourceIdentity


def reproduce(
    model: str, output: Path, *, hub: Hub | None = None, executor: Executor = merge_here
) -> tuple[FileDigest, ...]:
    """Merge again what a manifest says, from the same commits, and compare every shard.

    Args:
        model: Directory or Hub id of a finished merge.
        output: Directory to create.
        hub: Where it and its sources are looked up; the environment's Hub by default.
        executor: Merges the shards.

    Returns:
        The shards, equal to the published ones.

    Raises:
        InputError: If it is no merge of this tool, was computed by another version of the arithmetic, or a source has
            changed.
        VerificationError: If a shard came out otherwise; what was made stays in ``output``.
    """
    hub = hub or Hub()
    merge = read_finished_merge(model, hub)
    if merge.plan.numerics_version != NUMERICS_VERSION:
        raise InputError(
            f"{model}: was merged with numerics version {merge.plan.numerics_version} by Mergeline "
            f"{merge.manifest.engine_version}, this one computes with version {NUMERICS_VERSION}, whose last bits "
            "differ; install the Mergeline that made it to make it again."
        )
    if finished_output(merge.plan, output) is not None:
        raise OutputError(f"{output}: already holds this merge; choose another place.")
    checkpoints = tuple(_same_source(source, hub) for source in merge.plan.sources)
    planned = PlannedMerge(merge.recipe_text, merge.plan, checkpoints)
    again = merge_planned(planned, output, lambda: [fetch(checkpoint, hub) for checkpoint in checkpoints], executor)
    _compare(merge.manifest.shards, again.manifest.shards)
    return again.manifest.shards


def _same_source(source: SourceIdentity, hub: Hub) -> Checkpoint:
    """Find a source again, at its commit, and make sure that it is the same."""
    reference = f"{source.repo_id}@{source.commit}" if source.repo_id else source.label
    checkpoint = open_checkpoint(reference, hub)
    if checkpoint.identity.fingerprint != source.fingerprint:
        raise InputError(f"{reference}: is not what it was when it was merged; find the same files to make it again.")
    return checkpoint


def _compare(expected: Sequence[FileDigest], found: Sequence[FileDigest]) -> None:
    differing = [ours.name for ours, theirs in zip(found, expected, strict=True) if ours.sha256 != theirs.sha256]
    if differing:
        raise VerificationError(
            f"{len(differing)} of {len(found)} shards came out otherwise, first {differing[0]}; compare the versions "
            f"in {MANIFEST_NAME}."
        )
