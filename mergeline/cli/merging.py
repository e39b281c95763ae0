"""What ``plan``, ``merge``, ``verify``, ``reproduce`` and ``publish`` do; each imports only what it needs."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mergeline.errors import InputError

if TYPE_CHECKING:
    from mergeline.merge.merging import MergedModel


def plan(options: argparse.Namespace) -> None:
    """Print everything a merge will do."""
    from mergeline.plan.plan_file import plan_json
    from mergeline.plan.planning import plan_recipe
    from mergeline.plan.text import describe_plan
    from mergeline.sources.hub import Hub
    from mergeline.support.text import parse_size

    plan = plan_recipe(options.recipe, hub=Hub(), max_shard_bytes=parse_size(options.max_shard_size)).plan
    if options.json:
        print(json.dumps({"digest": plan.digest, **json.loads(plan_json(plan))}))
    else:
        print(describe_plan(plan, positive(options.workers, "--workers")))


def merge(options: argparse.Namespace) -> None:
    """Make a local model directory from a recipe."""
    from mergeline.cli.progress import progress_line
    from mergeline.merge.devices import choose_devices
    from mergeline.merge.job import merge_here
    from mergeline.merge.merging import merge_planned
    from mergeline.merge.shard import Resources
    from mergeline.plan.planning import plan_recipe
    from mergeline.sources.checkpoint import fetch
    from mergeline.sources.hub import Hub
    from mergeline.support.text import parse_size

    resources = Resources(choose_devices(options.device), positive(options.workers, "--workers"))
    hub = Hub()
    planned = plan_recipe(options.recipe, hub=hub, max_shard_bytes=parse_size(options.max_shard_size))
    is_quiet = options.quiet or options.json
    for note in () if is_quiet else planned.plan.notes:
        print(f"note: {note}", file=sys.stderr)
    show = nullcontext(_ignore) if is_quiet else progress_line(planned.plan.output_nbytes)
    with show as on_progress:
        merged = merge_planned(
            planned,
            options.output,
            lambda: [fetch(checkpoint, hub) for checkpoint in planned.checkpoints],
            lambda job: merge_here(job, resources, on_progress),
        )
    if options.json:
        shards = [{"filename": s.name, "nbytes": s.nbytes, "sha256": s.sha256} for s in merged.manifest.shards]
        print(json.dumps({"directory": str(merged.directory), "plan_digest": merged.plan.digest, "shards": shards}))
    else:
        print("\n".join(_merged(merged)))


def _ignore(nbytes: int) -> None:
    del nbytes


def _merged(merged: MergedModel) -> list[str]:
    """Say what a merge wrote, or that nothing was left to do."""
    from mergeline.merge.geometry import merge_geometry, summarize
    from mergeline.support.text import size

    plan, shards = merged.plan.digest[:12], merged.manifest.shards
    if not merged.results:
        return [f"{merged.directory} already holds this merge (plan {plan}); nothing was done."]
    nbytes = sum(shard.nbytes for shard in shards)
    reused = sum(result.is_reused for result in merged.results)
    kept = f", {reused} of them from an earlier run" if reused else ""
    return [
        f"{merged.directory}: {size(nbytes)} in {len(shards)} shards{kept}; plan {plan}",
        *summarize(merged.plan, merge_geometry(merged.plan, merged.results)),
    ]


def verify(options: argparse.Namespace) -> None:
    """Check a merge again against its manifest."""
    from dataclasses import asdict

    from mergeline.merge.verification import verify_model
    from mergeline.sources.hub import Hub
    from mergeline.support.text import size

    found = verify_model(options.model, Hub(), try_loading=options.load)
    if options.json:
        print(json.dumps(asdict(found)))
        return
    loads = ", transformers takes exactly these" if found.is_loadable else ""
    print(
        f"{options.model}: {found.file_count} files ({size(found.nbytes)}) as the manifest says, "
        f"{found.tensor_count} tensors as planned{loads}; plan {found.plan_digest[:12]}"
    )


def reproduce(options: argparse.Namespace) -> None:
    """Rebuild a merge from its manifest and compare the bytes."""
    from mergeline.merge.job import merge_here
    from mergeline.merge.reproduction import reproduce
    from mergeline.merge.shard import Resources
    from mergeline.sources.hub import Hub

    resources = Resources(workers=positive(options.workers, "--workers"))
    shards = reproduce(options.model, options.output, hub=Hub(), executor=lambda job: merge_here(job, resources))
    if options.json:
        print(json.dumps({"directory": str(options.output), "shards": {shard.name: shard.sha256 for shard in shards}}))
    else:
        print(f"{options.output}: {len(shards)} shards, byte for byte those of {options.model}")


def publish(options: argparse.Namespace) -> None:
    """Put a finished merge on the Hub."""
    from mergeline.publish.publishing import publish_merge

    published = publish_merge(options.model, options.repo_id, private=not options.public)
    if options.json:
        print(json.dumps(published.__dict__))
    else:
        state = "was there already" if published.was_already_published else "published"
        print(f"{published.repo_id} {state}: {published.url}")


def positive(number: int, option: str) -> int:
    """Return ``number``; :class:`InputError` names the option where it is less than 1."""
    if number < 1:
        raise InputError(f"{option}: must be 1 or more, found {number}.")
    return number
