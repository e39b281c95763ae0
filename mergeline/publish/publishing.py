"""Publish a finished merge on the Hub with a model card made from its manifest."""

from __future__ import annotations

from pathlib import Path

from mergeline.errors import InputError
from mergeline.merge.manifest import RECIPE_NAME, read_manifest
from mergeline.plan.licences import require_publishable
from mergeline.publish.publication import Publication, publish_directory
from mergeline.sources.hub import Hub


def publish_merge(directory: Path, repo_id: str, *, hub: Hub | None = None, private: bool = True) -> Publication:
    """Commit a finished merge to a repository on the Hub; see :func:`publish_directory`.

    Args:
        directory: What a merge wrote.
        repo_id: ``owner/name``; without an owner, the token's own.
        hub: The Hub to publish on; None: the environment's.
        private: Whether a new repository is private.

    Raises:
        InputError: If the directory holds no finished merge, or the sources' licences forbid a public one.
        HubError: If the Hub failed.
    """
    from mergeline.publish.card import render_card

    hub = hub or Hub()
    manifest = read_manifest(directory) if directory.is_dir() else None
    if manifest is None:
        raise InputError(f"{directory}: holds no finished merge; make one with `mergeline merge RECIPE OUT`.")
    recipe_text = (directory / RECIPE_NAME).read_text()
    repo_id = repo_id if "/" in repo_id else f"{hub.whoami()}/{repo_id}"
    require_publishable([source.license for source in manifest.sources], is_public=not private)
    card = render_card(manifest, recipe_text, name=repo_id)
    return publish_directory(
        directory,
        repo_id,
        hub=hub,
        plan_digest=manifest.plan_digest,
        private=private,
        extra_files={"README.md": card.encode()},
    )
