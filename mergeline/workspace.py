"""The directory a merge is written in: unfinished beside its final name, finished by one rename."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mergeline.checkpoint import INDEX_NAME
from mergeline.durable import exclusive, sync_directory, write_whole
from mergeline.errors import MergeError, OutputError
from mergeline.execute import ShardResult, record_path, writers_path
from mergeline.geometry import GEOMETRY_NAME, geometry_lines, merge_geometry
from mergeline.lineage import MANIFEST_NAME, FileRecord, Manifest, file_sha256
from mergeline.plan import MergePlan

PLAN_NAME = "mergeline_plan.json"
RECIPE_NAME = "mergekit_config.yml"
"""The recipe as written, under the name by which the Hub's merges are found."""

_LOCK_NAME = ".lock"
_MANIFEST = TypeAdapter(Manifest)
_PLAN = TypeAdapter(MergePlan)


@dataclass(frozen=True)
class Workspace:
    """Where one merge is written."""

    output: Path
    """Final name; exists only when the merge is complete."""
    partial: Path
    """Where files are written until then."""

    @property
    def plan_file(self) -> Path:
        return self.partial / PLAN_NAME


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a finished model directory, or None where there is none."""
    path = directory / MANIFEST_NAME
    if not path.is_file():
        return None
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, place: str) -> Manifest:
    """Read a manifest from JSON; :class:`OutputError` names ``place`` where that is impossible."""
    try:
        return _MANIFEST.validate_json(content)
    except ValidationError:
        raise OutputError(f"{place}: is not a manifest this version can read; merge again into a new place.") from None


def plan_json(plan: MergePlan) -> str:
    """Render a plan as JSON, to be shown, stored or read back."""
    return _PLAN.dump_json(plan, indent=1).decode()


def read_plan(path: Path) -> MergePlan:
    """Read a plan back from a file."""
    return parse_plan(path.read_bytes())


def parse_plan(content: bytes) -> MergePlan:
    """Read a plan back from JSON."""
    return _PLAN.validate_json(content)


def finished_output(plan: MergePlan, output: Path) -> Manifest | None:
    """Return the manifest of ``output`` if it already holds this merge; None if nothing is there.

    Raises:
        OutputError: If something else is there, which is never touched.
    """
    if not output.exists():
        return None
    manifest = read_manifest(output) if output.is_dir() else None
    if manifest is not None and manifest.plan_digest == plan.digest:
        return manifest
    if output.is_dir() and not any(output.iterdir()):
        return None
    what = "holds another merge" if manifest is not None else "exists and is not a merge of this recipe"
    raise OutputError(f"{output}: {what}; choose another place or remove it.")


@contextmanager
def open_workspace(plan: MergePlan, output: Path) -> Generator[Workspace]:
    """Hold the place a merge is written in, keeping what an interrupted run of the same plan left there.

    Raises:
        OutputError: If the place cannot be written, or another process is writing the same merge.
    """
    partial = output.parent / f".{output.name}.partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"{output}: cannot be created: {problem.strerror}; choose another place.") from None
    with exclusive(partial / _LOCK_NAME, f"writing {output}"):
        _check_room(plan, partial)
        kept = partial / PLAN_NAME
        if not kept.exists() or read_plan(kept).digest != plan.digest:
            for path in partial.iterdir():
                if path.name != _LOCK_NAME:
                    path.unlink()
            write_whole(kept, plan_json(plan))
        yield Workspace(output, partial)


def _check_room(plan: MergePlan, partial: Path) -> None:
    written = sum(path.stat().st_blocks * 512 for path in partial.iterdir())
    needed, free = plan.output_nbytes - written, shutil.disk_usage(partial).free
    if needed > free:
        raise OutputError(
            f"{partial.parent}: {free / 1e9:.1f} GB are free, the output needs {needed / 1e9:.1f} GB more; "
            "free some space or choose another disk."
        )


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
    write_whole(directory / MANIFEST_NAME, _MANIFEST.dump_json(manifest, indent=1))
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
    shards = tuple(FileRecord(result.filename, result.nbytes, result.sha256) for result in results)
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
        other_files=tuple(FileRecord(path.name, path.stat().st_size, file_sha256(path)) for path in others),
        parameter_count=plan.parameter_count,
        notes=plan.notes,
        engine_version=_version("mergeline"),
        numerics_version=plan.numerics_version,
        versions={"python": platform.python_version()} | {name: _version(name) for name in ("torch", "safetensors")},
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        links=dict(links),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
