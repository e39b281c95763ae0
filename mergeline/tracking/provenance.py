"""Where a model comes from: Hub commit, MLflow run, Prefect flow run, recipe, and the same of its parents."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from mergeline.errors import HubError, InputError, MergelineError
from mergeline.merge.manifest import MANIFEST_NAME, RECIPE_NAME, Manifest, parse_manifest, read_manifest
from mergeline.sources.checkpoint import open_checkpoint
from mergeline.sources.hub import Hub
from mergeline.sources.identity import SourceIdentity
from mergeline.sources.repository import PinnedRepository
from mergeline.support.state import state_folder
from mergeline.tracking.search import TrackedMerge, merge_of_run, merges_of_plan, merges_of_source
from mergeline.tracking.store import TrackingSettings
from mergeline.tracking.summary import source_key

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GENERATIONS = 8
"""How many generations of merges of merges are followed."""


@dataclass(frozen=True)
class Parent:
    """One model that a merge was made from."""

    source: SourceIdentity
    origin: Provenance | None
    """Where the source itself comes from; None: it is no merge made by Mergeline, or is gone."""


@dataclass(frozen=True)
class Provenance:
    """Everything known of where a merge comes from."""

    manifest: Manifest
    recipe_text: str | None
    """As written; None: it was not found."""
    parents: tuple[Parent, ...]
    repo_id: str | None = None
    """On the Hub; None: not known to be published."""
    commit: str | None = None
    directory: Path | None = None
    """On this machine; None: it was traced from the Hub or MLflow."""
    run: TrackedMerge | None = None
    """In MLflow; None: the store has none, see ``remarks``."""
    remarks: tuple[str, ...] = ()
    """What could not be looked up, in sentences."""

    @property
    def flow_run(self) -> tuple[str | None, str | None]:
        """Id and page of the Prefect flow run that made the merge."""
        links, run = self.manifest.links, self.run
        return (
            links.get("prefect_flow_run_id") or (run.flow_run_id if run else None),
            links.get("prefect_flow_run_url") or (run.flow_run_url if run else None),
        )


@dataclass(frozen=True)
class Descendant:
    """A merge that used a source."""

    plan_digest: str
    name: str
    source: str
    """The source's name in the merge's recipe."""
    directories: tuple[Path, ...] = ()
    """Its directories on this machine: none, one or several."""
    run: TrackedMerge | None = None
    """In MLflow; None: not recorded there."""


def trace(model: str, hub: Hub, tracking_uri: str | None, default_uri: str) -> Provenance:
    """Follow a model back to where it comes from.

    Args:
        model: Hub id (``@revision`` if wanted), directory of a merge, or the id of its MLflow run.
        hub: Where Hub ids are looked up.
        tracking_uri: MLflow store to look into; None: the one in the manifest if it is on this machine, else
            ``default_uri``. Anybody can write another server into a manifest: it must not receive the user's password.
        default_uri: The user's own MLflow store.

    Raises:
        InputError: There is no such model, or Mergeline did not make it.
        HubError: The Hub does not answer.
    """
    if _RUN_ID.fullmatch(model) and not Path(model).exists():
        run, content = merge_of_run(tracking_uri or default_uri, model)
        provenance = Provenance(parse_manifest(content, f"run {model}"), None, (), run.repo_id, run.commit, run=run)
        return _with_parents(_with_recipe(provenance, hub), hub)
    return _with_run(_trace_model(model, hub, 1), tracking_uri, default_uri)


def descendants(source: str, hub: Hub, uri: str) -> list[Descendant]:
    """Find all merges that used a source: those recorded in MLflow, and those in the state directory.

    Args:
        source: Hub id (``@revision`` if wanted), directory, or a bare commit of 40 hexadecimal digits.
        hub: Where Hub ids are looked up.
        uri: MLflow store.

    Raises:
        InputError: There is no such model.
        TrackingError: MLflow does not answer.
    """
    key = source if _COMMIT.fullmatch(source) else source_key(open_checkpoint(source, hub).identity)
    labels: dict[str, str] = {}
    directories: dict[str, list[Path]] = {}
    for path in sorted(state_folder("merges").glob(f"*/{MANIFEST_NAME}")):
        manifest = parse_manifest(path.read_bytes(), str(path))
        for used in manifest.sources:
            if source_key(used) == key:
                labels[manifest.plan_digest] = used.label
                directories.setdefault(manifest.plan_digest, []).append(path.parent)
    runs = merges_of_source(uri, key)
    recorded = [
        Descendant(run.plan_digest, run.name, run.sources[key], tuple(directories.get(run.plan_digest, ())), run)
        for run in runs
    ]
    unrecorded = directories.keys() - {run.plan_digest for run in runs}
    return recorded + [
        Descendant(plan_digest, paths[0].name, labels[plan_digest], tuple(paths))
        for plan_digest, paths in directories.items()
        if plan_digest in unrecorded
    ]


def _trace_model(model: str, hub: Hub, generation: int) -> Provenance:
    """Read the manifest and recipe that are kept with the model, on disk or on the Hub."""
    path = Path(model).expanduser()
    if path.is_dir():
        manifest = read_manifest(path)
        recipe = path / RECIPE_NAME
        if manifest is None:
            raise InputError(f"{model}: has no {MANIFEST_NAME}; only a merge made by Mergeline can be followed back.")
        text = recipe.read_text() if recipe.is_file() else None
        return _with_parents(Provenance(manifest, text, (), directory=path.absolute()), hub, generation)
    repo_id, _, revision = model.partition("@")
    repository = hub.resolve(repo_id, revision or None)
    content = _read(repository, MANIFEST_NAME, hub)
    if content is None:
        raise InputError(
            f"{model} at {repository.commit[:12]}: has no {MANIFEST_NAME}; only a merge made by Mergeline can be "
            "followed back."
        )
    recipe_text = (_read(repository, RECIPE_NAME, hub) or b"").decode() or None
    provenance = Provenance(parse_manifest(content, model), recipe_text, (), repo_id, repository.commit)
    return _with_parents(provenance, hub, generation)


def _with_parents(provenance: Provenance, hub: Hub, generation: int = 1) -> Provenance:
    """Follow each parent that is itself a merge on the Hub, at the commit that was used."""
    parents: list[Parent] = []
    remarks: list[str] = []
    for source in provenance.manifest.sources:
        origin: Provenance | None = None
        # After one failure the Hub is not asked again: each request may take half a minute to time out.
        if source.repo_id and source.commit and generation < _GENERATIONS and not remarks:
            try:
                origin = _trace_model(f"{source.repo_id}@{source.commit}", hub, generation + 1)
            except InputError:  # no merge, or deleted: only its commit is known
                origin = None
            except HubError as error:
                remarks.append(str(error))
        parents.append(Parent(source, origin))
    return replace(provenance, parents=tuple(parents), remarks=(*provenance.remarks, *remarks))


def _with_recipe(provenance: Provenance, hub: Hub) -> Provenance:
    """Read the recipe of a merge that was named by its MLflow run from its repository on the Hub."""
    if provenance.repo_id is None or provenance.commit is None:
        return provenance
    try:
        text = _read(hub.resolve(provenance.repo_id, provenance.commit), RECIPE_NAME, hub)
    except MergelineError as error:
        return replace(provenance, remarks=(*provenance.remarks, str(error)))
    return replace(provenance, recipe_text=text.decode() if text else None)


def _with_run(provenance: Provenance, tracking_uri: str | None, default_uri: str) -> Provenance:
    """Look the merge up in MLflow by its plan's digest; for the store see :func:`trace`."""
    links = provenance.manifest.links
    named = links.get("mlflow_run_url", "").partition("/#/")[0]
    is_local = urlsplit(named).hostname in ("127.0.0.1", "localhost")
    uri = tracking_uri or (named if is_local else default_uri)
    try:
        runs = merges_of_plan(uri, provenance.manifest.plan_digest)
    except MergelineError as error:
        if tracking_uri is not None and isinstance(error, InputError):
            raise
        return replace(provenance, remarks=(*provenance.remarks, str(error)))
    if not runs:
        where, other = TrackingSettings(uri, "").address, named or "the one that does"
        remark = f"MLflow store {where} has no run of this plan; to look into {other}, name it with --tracking-uri."
        return replace(provenance, remarks=(*provenance.remarks, remark))
    # A plan recorded in several experiments has several runs.
    run = max(runs, key=lambda run: (run.run_id == links.get("mlflow_run_id"), run.commit == provenance.commit))
    if provenance.repo_id is None:
        return replace(provenance, run=run, repo_id=run.repo_id, commit=run.commit)
    return replace(provenance, run=run)


def _read(repository: PinnedRepository, name: str, hub: Hub) -> bytes | None:
    exists = any(file.path == name for file in repository.files)
    return hub.read_file(repository, name) if exists else None
