"""The directory a merge is written in: unfinished beside its final name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mergeline.errors import OutputError
from mergeline.merge.manifest import Manifest, read_manifest
from mergeline.plan.merge_plan import MergePlan
from mergeline.plan.plan_file import PLAN_NAME, plan_json, read_plan
from mergeline.support.durable import exclusive, write_whole

_LOCK_NAME = ".lock"


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


def finished_output(plan: MergePlan, output: Path) -> Manifest | None:
    """Return the manifest of ``output`` if it already holds this merge; None if nothing is there.

    Raises:
        OutputError: If something else is there, which is never touched.
    """
    try:
        if not os.path.lexists(output):
            return None
        is_dangling = not output.exists()
    except OSError as problem:
        raise OutputError(f"{output}: cannot be used: {problem.strerror}; choose another place.") from None
    if is_dangling:
        raise OutputError(f"{output}: is a link to nothing; choose another place or remove it.")
    manifest = read_manifest(output) if output.is_dir() else None
    if manifest is not None and manifest.plan_digest == plan.digest:
        return manifest
    if output.is_dir() and not output.is_symlink() and not any(output.iterdir()):
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
        if _kept_digest(kept) != plan.digest:
            for path in partial.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != _LOCK_NAME:
                    path.unlink()
            write_whole(kept, plan_json(plan))
        yield Workspace(output, partial)


def _kept_digest(plan_file: Path) -> str | None:
    """Return the digest of the plan that an earlier run left; None where there is none that can be read."""
    try:
        return read_plan(plan_file).digest if plan_file.exists() else None
    except OutputError:
        return None


def _check_room(plan: MergePlan, partial: Path) -> None:
    written = sum(path.stat().st_blocks * 512 for path in partial.iterdir())
    needed, free = plan.output_nbytes - written, shutil.disk_usage(partial).free
    if needed > free:
        raise OutputError(
            f"{partial.parent}: {free / 1e9:.1f} GB are free, the output needs {needed / 1e9:.1f} GB more; "
            "free some space or choose another disk."
        )
