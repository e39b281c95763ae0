"""A model directory completed around its finished shards, and given its final name."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mergeline.errors import MergeError
from mergeline.merge.geometry import GEOMETRY_NAME, geometry_lines, merge_geometry
from mergeline.merge.manifest import MANIFEST_NAME, RECIPE_NAME, Manifest, manifest_json
from mergeline.merge.shard import ShardResult, record_path, writers_path
from mergeline.merge.workspace import Workspace
from mergeline.plan.merge_plan import MergePlan
from mergeline.sources.checkpoint import INDEX_NAME
from mergeline.sources.identity import FileDigest
from mergeline.support.digests import file_sha256
from mergeline.support.durable import exclusive, sync_directory, write_whole

_ARITHMETIC_PACKAGES = ("llvmlite", "numba", "numpy", "torch")


def assemble(
    plan: MergePlan,
    results: Sequence[ShardResult],
    recipe_text: str,
    donor: Path,
    workspace: Workspace,
    links: Mapping[str, str] | None = None,
) -> Manifest:
    """Complete a model directory around its finished shards and give it its final name.

    Args:
        plan: The merge.
        results: One per shard of the plan.
        recipe_text: The recipe as written.
        donor: Directory of the source that gives tokenizer and generation files.
        workspace: Where the shards lie.
        links: Other records of this merge, kept in the manifest.

    Raises:
        MergeError: If a shard is missing.
    """
    by_name = {result.filename: result for result in results}
    missing = [shard.filename for shard in plan.shards if shard.filename not in by_name]
    if missing:
        raise MergeError(
            f"{workspace.partial}: {len(missing)} shards are not merged yet, first {missing[0]}; run again."
        )
    directory = workspace.partial
    write_whole(directory / "config.json", json.dumps(plan.config, indent=2) + "\n")
    for name in plan.copied_files:
        shutil.copyfile(donor / name, directory / name)
    write_whole(directory / RECIPE_NAME, recipe_text)
    geometry = merge_geometry(plan, results)
    write_whole(directory / GEOMETRY_NAME, geometry_lines(geometry))
    if len(plan.shards) > 1:
        write_whole(directory / INDEX_NAME, _index(plan))
    manifest = _manifest(plan, [by_name[shard.filename] for shard in plan.shards], directory, links or {})
    write_whole(directory / MANIFEST_NAME, manifest_json(manifest))
    _finish(plan, workspace)
    return manifest


def _finish(plan: MergePlan, workspace: Workspace) -> None:
    """Remove what only an unfinished merge needs and give the directory its final name."""
    directory = workspace.partial
    # A worker that was given up and lives after all must not take a shard without its record for an unfinished one.
    with exclusive(writers_path(directory), "merging its shards", is_waiting=True):
        for shard in plan.shards:
            record_path(directory, shard.filename).unlink()
        for lock in directory.glob(".*lock"):
            lock.unlink()
        if workspace.output.exists():
            # finished_output() let an empty directory pass; a rename onto it needs it gone on some systems.
            workspace.output.rmdir()
        directory.rename(workspace.output)
        sync_directory(workspace.output.parent)


def _index(plan: MergePlan) -> str:
    weight_map = {tensor.name: shard.filename for shard in plan.shards for tensor in shard.tensors}
    metadata = {"total_parameters": plan.parameter_count, "total_size": plan.output_nbytes}
    return json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2) + "\n"


def _manifest(plan: MergePlan, results: Sequence[ShardResult], directory: Path, links: Mapping[str, str]) -> Manifest:
    shards = tuple(FileDigest(result.filename, result.nbytes, result.sha256) for result in results)
    others = [
        path
        for path in sorted(directory.iterdir())
        if not path.name.startswith(".") and path.name not in {shard.name for shard in shards}
    ]
    return Manifest(
        plan_digest=plan.digest,
        merge_method=plan.merge_method,
        recipe=plan.recipe,
        sources=plan.sources,
        shards=shards,
        other_files=tuple(FileDigest(path.name, path.stat().st_size, file_sha256(path)) for path in others),
        parameter_count=plan.parameter_count,
        notes=plan.notes,
        engine_version=_version("mergeline"),
        numerics_version=plan.numerics_version,
        versions={"python": platform.python_version()} | {name: _version(name) for name in _ARITHMETIC_PACKAGES},
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        links=dict(links),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
