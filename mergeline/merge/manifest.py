"""The manifest that travels with a merged model: what went in, what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mergeline.errors import OutputError
from mergeline.sources.identity import FileDigest, SourceIdentity

MANIFEST_NAME = "mergeline_manifest.json"
"""Written last into a model directory: its presence means the directory is complete."""


@dataclass(frozen=True)
class Manifest:
    """Everything needed to say, a year later, what a model is made of; see :data:`MANIFEST_NAME`."""

    plan_digest: str
    merge_method: str
    recipe: dict[str, Any]
    """The normalised recipe; its text as written is ``mergekit_config.yml`` beside this file."""
    sources: tuple[SourceIdentity, ...]
    shards: tuple[FileDigest, ...]
    other_files: tuple[FileDigest, ...]
    """config.json, tokenizer files and whatever else makes the directory a model."""
    parameter_count: int
    notes: tuple[str, ...]
    """What was decided where the recipe was silent, in sentences."""
    engine_version: str
    numerics_version: int
    versions: dict[str, str]
    """Of python and of the packages that compute, torch among them although only a GPU needs it."""
    created_at: str
    """UTC, ISO 8601, seconds."""
    links: dict[str, str] = field(default_factory=dict[str, str])
    """Other records of the same merge, e.g. ``prefect_flow_run_id``."""


RECIPE_NAME = "mergekit_config.yml"
"""The recipe as written, under the name by which the Hub's merges are found."""


_MANIFEST = TypeAdapter(Manifest)


def manifest_json(manifest: Manifest) -> bytes:
    """Render a manifest as the JSON that :func:`parse_manifest` reads."""
    return _MANIFEST.dump_json(manifest, indent=1)


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
