"""A model's provenance and descendants as text and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mergeline.tracking.provenance import Descendant, Parent, Provenance
from mergeline.tracking.search import TrackedMerge
from mergeline.tracking.summary import source_key


def describe_provenance(provenance: Provenance, hub_url: str) -> str:
    """Write the chain from the Hub's commit to the parents' commits, one link per line, then the recipe."""
    manifest, run = provenance.manifest, provenance.run
    lines = [
        f"Hub commit    {provenance.repo_id}@{provenance.commit}"
        if provenance.repo_id
        else "Hub commit    not published"
    ]
    if provenance.repo_id:
        lines.append(f"              {hub_url}/{provenance.repo_id}/tree/{provenance.commit}")
    if provenance.directory:
        lines.append(f"Directory     {provenance.directory}")
    lines.append(f"Plan          {manifest.plan_digest} ({manifest.merge_method}, {manifest.created_at})")
    lines.append(f"MLflow run    {_run(run, manifest.links)}")
    if url := run.url if run is not None else manifest.links.get("mlflow_run_url"):
        lines.append(f"              {url}")
    flow_run_id, flow_run_url = provenance.flow_run
    lines.append(f"Prefect run   {flow_run_id or 'none: it was merged without Prefect'}")
    if flow_run_url:
        lines.append(f"              {flow_run_url}")
    commit = f", commit {run.git_commit}" if run is not None and run.git_commit else ""
    lines.append(f"Made by       Mergeline {manifest.engine_version}{commit}")
    lines.append("Parents")
    lines += _parents(provenance.parents, "  ")
    if provenance.recipe_text:
        lines += ["Recipe", *(f"  {line}" for line in provenance.recipe_text.strip().splitlines())]
    return "\n".join([*lines, *(f"note: {remark}" for remark in provenance.remarks)])


def describe_descendants(source: str, merges: Sequence[Descendant]) -> str:
    """Write a line per merge that used a source."""
    if not merges:
        return f"{source}: no merge recorded here used it."
    lines: list[str] = []
    for merge in merges:
        run = merge.run
        where = [f"{run.repo_id}@{run.commit}"] if run is not None and run.repo_id else []
        where += [f"run {run.run_id} ({run.experiment})"] if run is not None else ["not in MLflow"]
        where += [str(directory) for directory in merge.directories]
        lines.append(f"{merge.name}: {'; '.join(where)}; plan {merge.plan_digest[:12]}")
    return "\n".join(lines)


def provenance_value(provenance: Provenance) -> dict[str, Any]:
    """Return a provenance as plain values for JSON."""
    flow_run_id, flow_run_url = provenance.flow_run
    return {
        "repo_id": provenance.repo_id,
        "commit": provenance.commit,
        "directory": str(provenance.directory) if provenance.directory else None,
        "plan_digest": provenance.manifest.plan_digest,
        "merge_method": provenance.manifest.merge_method,
        "created_at": provenance.manifest.created_at,
        "engine_version": provenance.manifest.engine_version,
        "mlflow_run": vars(provenance.run) if provenance.run else None,
        "prefect_flow_run": {"id": flow_run_id, "url": flow_run_url} if flow_run_id else None,
        "links": provenance.manifest.links,
        "recipe": provenance.recipe_text,
        "parents": [
            {
                "label": parent.source.label,
                "repo_id": parent.source.repo_id,
                "commit": parent.source.commit,
                "fingerprint": parent.source.fingerprint,
                "origin": provenance_value(parent.origin) if parent.origin else None,
            }
            for parent in provenance.parents
        ],
        "remarks": list(provenance.remarks),
    }


def descendant_value(merge: Descendant) -> dict[str, Any]:
    """Return a descendant as plain values for JSON."""
    return {
        "plan_digest": merge.plan_digest,
        "name": merge.name,
        "source": merge.source,
        "directories": [str(directory) for directory in merge.directories],
        "mlflow_run": vars(merge.run) if merge.run else None,
    }


def _run(run: TrackedMerge | None, links: Mapping[str, str]) -> str:
    if run is None:
        named = links.get("mlflow_run_id")
        return f"{named} (the model says so; not looked up)" if named else "not found"
    verdict = f"; {run.verdict}" if run.verdict else ""
    return f"{run.run_id} ({run.name}, experiment {run.experiment}{verdict})"


def _parents(parents: Sequence[Parent], indent: str) -> list[str]:
    lines: list[str] = []
    for parent in parents:
        source = parent.source
        name = f"{source.repo_id}@{source.commit}" if source.commit else f"{source.label} (local, {source_key(source)})"
        lines.append(f"{indent}{name}")
        if parent.origin is not None:
            lines.append(f"{indent}  is a {parent.origin.manifest.merge_method} merge of")
            lines += _parents(parent.origin.parents, f"{indent}    ")
    return lines
