"""What travels with a finished merge, read back wherever the merge is: a directory or a Hub repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mergeline.errors import InputError
from mergeline.merge.manifest import MANIFEST_NAME, RECIPE_NAME, Manifest, parse_manifest
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.plan_file import PLAN_NAME, parse_plan
from mergeline.sources.checkpoint import Checkpoint, open_checkpoint
from mergeline.sources.hub import Hub


@dataclass(frozen=True)
class FinishedMerge:
    """A merge's own account of itself, and the checkpoint it stands beside."""

    checkpoint: Checkpoint
    manifest: Manifest
    plan: MergePlan
    recipe_text: str
    """As written."""


def read_finished_merge(model: str, hub: Hub) -> FinishedMerge:
    """Read manifest, plan and recipe of a merge; of a Hub repository only these small files.

    Args:
        model: Directory or Hub id, with an optional ``@revision``.
        hub: Where Hub ids are looked up.

    Raises:
        InputError: If it is no merge of this tool, or its plan names files outside its directory.
    """
    checkpoint = open_checkpoint(model, hub)
    read, names = _reader(checkpoint, hub)
    missing = [name for name in (MANIFEST_NAME, PLAN_NAME, RECIPE_NAME) if name not in names]
    if missing:
        raise InputError(f"{model}: has no {missing[0]}; expected a finished merge made by Mergeline.")
    manifest, plan = parse_manifest(read(MANIFEST_NAME), model), parse_plan(read(PLAN_NAME), f"{model}/{PLAN_NAME}")
    _require_plain_names(model, plan)
    return FinishedMerge(checkpoint, manifest, plan, read(RECIPE_NAME).decode())


def _reader(checkpoint: Checkpoint, hub: Hub) -> tuple[Callable[[str], bytes], set[str]]:
    """Return what reads a file beside the weights, and the names there are."""
    repository, directory = checkpoint.repository, checkpoint.directory
    if repository is not None:
        return lambda name: hub.read_file(repository, name), {file.path for file in repository.files}
    assert directory is not None
    return lambda name: (directory / name).read_bytes(), {path.name for path in directory.iterdir()}


def _require_plain_names(model: str, plan: MergePlan) -> None:
    """Refuse a plan, which anybody may have written, that names files outside the directories it is used in."""
    inputs = (item.spec.file for shard in plan.shards for tensor in shard.tensors for item in tensor.inputs)
    for name in (*(shard.filename for shard in plan.shards), *plan.copied_files, *inputs):
        if Path(name).name != name or name.startswith("."):
            raise InputError(f"{model}: its {PLAN_NAME} names {name!r}, which is no file of a merge; do not trust it.")
