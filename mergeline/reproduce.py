"""A merge made again from the plan that travels with it, and compared byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergeline.checkpoint import Checkpoint, fetch, open_checkpoint
from mergeline.errors import InputError, OutputError, VerificationError
from mergeline.execute import merge_shard
from mergeline.hub import Hub
from mergeline.lineage import MANIFEST_NAME, FileRecord, Manifest, SourceRecord
from mergeline.plan import MergePlan
from mergeline.workspace import (
    PLAN_NAME,
    RECIPE_NAME,
    assemble,
    finished_output,
    open_workspace,
    parse_manifest,
    parse_plan,
)


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
    manifest, plan, recipe_text = _records(model, hub)
    if finished_output(plan, output) is not None:
        raise OutputError(f"{output}: already holds this merge; choose another place.")
    checkpoints = [_same_source(source, hub) for source in plan.sources]
    with open_workspace(plan, output) as workspace:
        sources = [fetch(checkpoint, hub) for checkpoint in checkpoints]
        results = [merge_shard(plan, shard, sources, workspace.partial, workers=workers) for shard in plan.shards]
        again = assemble(plan, results, recipe_text, sources[plan.donor], workspace)
    _compare(manifest.shards, again.shards)
    return again.shards


def _records(model: str, hub: Hub) -> tuple[Manifest, MergePlan, str]:
    """Read manifest, plan and recipe of a merge, wherever it is."""
    checkpoint = open_checkpoint(model, hub)
    if checkpoint.directory is None:
        repository = checkpoint.repository
        assert repository is not None
        names = {file.path for file in repository.files}

        def read(name: str) -> bytes:
            return hub.read_file(repository, name)
    else:
        directory = checkpoint.directory
        names = {path.name for path in directory.iterdir()}

        def read(name: str) -> bytes:
            return (directory / name).read_bytes()

    missing = [name for name in (MANIFEST_NAME, PLAN_NAME, RECIPE_NAME) if name not in names]
    if missing:
        raise InputError(f"{model}: has no {missing[0]}; only a merge made by Mergeline can be made again.")
    manifest, plan = parse_manifest(read(MANIFEST_NAME), model), parse_plan(read(PLAN_NAME))
    _require_plain_names(model, plan)
    return manifest, plan, read(RECIPE_NAME).decode()


def _require_plain_names(model: str, plan: MergePlan) -> None:
    """Refuse a plan, which anybody may have written, that names files outside the directories it is used in."""
    inputs = (item.spec.file for shard in plan.shards for tensor in shard.tensors for item in tensor.inputs)
    for name in (*(shard.filename for shard in plan.shards), *plan.copied_files, *inputs):
        if Path(name).name != name or name.startswith("."):
            raise InputError(f"{model}: its {PLAN_NAME} names {name!r}, which is no file of a merge; do not trust it.")


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
