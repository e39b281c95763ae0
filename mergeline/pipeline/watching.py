"""Which commits a pipeline's sources are at, and which of them are new since the last look."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mergeline.pipeline.language import LoadedPipeline
from mergeline.recipe.recipe import read_recipe
from mergeline.sources.hub import Hub
from mergeline.support.digests import digest
from mergeline.support.durable import exclusive, write_whole
from mergeline.support.state import state_folder

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Look:
    """What one look at a pipeline's sources found."""

    commits: Mapping[str, str]
    """Source as the recipe names it -> commit it is at now; sources that cannot move are left out."""
    moved: tuple[str, ...]
    """Sources whose commit is another than at the last look."""
    key: str
    """Digest of pipeline and commits: equal for two looks that found the same."""


@contextmanager
def look(pipeline: LoadedPipeline, hub: Hub) -> Generator[Look]:
    """Look at a pipeline's sources; what was found counts as seen once the block has ended without an exception.

    The first look at a source finds nothing new: it is what later ones are compared with.

    Raises:
        OutputError: If another process is looking.
        RepositoryError: If a source is gone.
        HubError: If the Hub does not answer.
    """
    record = state_folder("watched") / f"{pipeline.settings.name}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(record.with_suffix(".lock"), f"watching {pipeline.settings.name}"):
        seen: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
        commits = {reference: _commit(reference, hub) for reference in moving_sources(pipeline)}
        moved = tuple(source for source, commit in commits.items() if seen.get(source, commit) != commit)
        yield Look(commits, moved, digest([pipeline.settings.name, commits]))
        if commits != seen:
            write_whole(record, json.dumps(commits, indent=1))


def moving_sources(pipeline: LoadedPipeline) -> tuple[str, ...]:
    """Return the sources that may change: those on the Hub that the recipe does not pin to a commit."""
    references = read_recipe(pipeline.recipe_text, pipeline.recipe_origin).references()
    return tuple(
        reference
        for reference in references
        if not Path(reference).expanduser().is_dir() and not _COMMIT.fullmatch(reference.partition("@")[2])
    )


def _commit(reference: str, hub: Hub) -> str:
    repo_id, _, revision = reference.partition("@")
    return hub.resolve(repo_id, revision or None).commit
