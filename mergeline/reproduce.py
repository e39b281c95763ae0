"""A merge made again from the plan that travels with it, and compared byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergeline.checkpoint import Checkpoint, fetch, open_checkpoint
from mergeline.errors import InputError, OutputError, VerificationError
from mergeline.execute import merge_shard
from mergeline.hub import Hub
from mergeline.lineage import MANIFEST_NAME, FileRecord, SourceRecord
from mergeline.merge_records import read_records
from mergeline.workspace import assemble, finished_output, open_workspace


def reproduce(model: str, output: Path, *, hub: Hub, workers: int = 1) -> tuple[FileRecord, ...]:
    """Merge again what a manifest says, from the same commits, and compare every shard.

    Args:
        model: Directory or Hub id of a finished merge.
        output: Directory to create.
        hub: Where it and its sources are looked up.
        workers: Threads that merge tensors.

    Returns:
        The shards, equal to the published ones.

    Raises:
        InputError: If it is no merge of this tool, or a source is not what it was.
        VerificationError: If a shard came out otherwise; what was made stays in ``output``.
    """
    records = read_records(model, hub)
    plan = records.plan
    if finished_output(plan, output) is not None:
        raise OutputError(f"{output}: already holds this merge; choose another place.")
    checkpoints = [_same_source(source, hub) for source in plan.sources]
    with open_workspace(plan, output) as workspace:
        sources = [fetch(checkpoint, hub) for checkpoint in checkpoints]
        results = [merge_shard(plan, shard, sources, workspace.partial, workers=workers) for shard in plan.shards]
        again = assemble(plan, results, records.recipe_text, sources[plan.donor], workspace)
    _compare(records.manifest.shards, again.shards)
    return again.shards


def _same_source(source: SourceRecord, hub: Hub) -> Checkpoint:
    """Find a source again, at its commit, and make sure that it is the same."""
    reference = f"{source.repo_id}@{source.commit}" if source.repo_id else source.label
    checkpoint = open_checkpoint(reference, hub)
    if checkpoint.record.fingerprint != source.fingerprint:
        raise InputError(f"{reference}: is not what it was when it was merged; find the same files to make it again.")
    return checkpoint


def _compare(expected: Sequence[FileRecord], found: Sequence[FileRecord]) -> None:
    differing = [ours.name for ours, theirs in zip(found, expected, strict=True) if ours.sha256 != theirs.sha256]
    if differing:
        raise VerificationError(
            f"{len(differing)} of {len(found)} shards came out otherwise, first {differing[0]}; compare the versions "
            f"in {MANIFEST_NAME}."
        )
