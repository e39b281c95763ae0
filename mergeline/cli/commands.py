"""What each command does: one call into the engine, and its result printed. Imports only what the command needs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, cast

from mergeline.errors import InputError


def plan(options: argparse.Namespace) -> None:
    """Print everything a merge will do."""
    from mergeline.plan.plan_file import plan_json
    from mergeline.plan.planning import plan_recipe
    from mergeline.plan.text import describe_plan
    from mergeline.sources.hub import Hub
    from mergeline.support.text import parse_size, read_text

    text = read_text(options.recipe, InputError, "recipe")
    plan = plan_recipe(text, str(options.recipe), Hub(), parse_size(options.max_shard_size)).plan
    if options.json:
        print(json.dumps({"digest": plan.digest, **json.loads(plan_json(plan))}))
    else:
        print(describe_plan(plan, positive(options.workers, "--workers")))


def merge(options: argparse.Namespace) -> None:
    """Make a local model directory from a recipe."""
    from mergeline.cli.progress import ProgressLine
    from mergeline.merge.devices import choose_devices
    from mergeline.merge.geometry import merge_geometry, summarize
    from mergeline.merge.merging import merge_recipe
    from mergeline.merge.shard import Progress
    from mergeline.plan.merge_plan import MergePlan
    from mergeline.sources.hub import Hub
    from mergeline.support.text import parse_size, size

    devices, remark = choose_devices(options.device)
    if remark:
        print(f"mergeline: {remark}", file=sys.stderr)
    lines: list[ProgressLine] = []

    def on_planned(plan: MergePlan) -> Progress:
        if options.quiet or options.json:
            return lambda nbytes: None
        for note in plan.notes:
            print(f"note: {note}", file=sys.stderr)
        lines.append(ProgressLine(plan.output_nbytes))
        return lines[0]

    merged = merge_recipe(
        options.recipe,
        options.output,
        hub=Hub(),
        max_shard_bytes=parse_size(options.max_shard_size),
        devices=devices,
        workers=positive(options.workers, "--workers"),
        on_planned=on_planned,
    )
    for line in lines:
        line.close()
    manifest = merged.manifest
    if options.json:
        shards = [{"filename": s.name, "nbytes": s.nbytes, "sha256": s.sha256} for s in manifest.shards]
        print(json.dumps({"directory": str(merged.directory), "plan_digest": manifest.plan_digest, "shards": shards}))
    elif not merged.results:
        print(f"{merged.directory} already holds this merge (plan {manifest.plan_digest[:12]}); nothing was done.")
    else:
        nbytes = sum(shard.nbytes for shard in manifest.shards)
        reused = sum(result.is_reused for result in merged.results)
        kept = f", {reused} of them from an earlier run" if reused else ""
        count, plan = len(manifest.shards), manifest.plan_digest[:12]
        print(f"{merged.directory}: {size(nbytes)} in {count} shards{kept}; plan {plan}")
        for sentence in summarize(merged.plan, merge_geometry(merged.plan, merged.results)):
            print(sentence)


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
    from mergeline.merge.reproduction import reproduce
    from mergeline.sources.hub import Hub

    workers = positive(options.workers, "--workers")
    shards = reproduce(options.model, options.output, hub=Hub(), workers=workers)
    if options.json:
        print(json.dumps({"directory": str(options.output), "shards": {shard.name: shard.sha256 for shard in shards}}))
    else:
        print(f"{options.output}: {len(shards)} shards, byte for byte those of {options.model}")


def publish(options: argparse.Namespace) -> None:
    """Put a finished merge on the Hub."""
    from mergeline.merge.manifest import RECIPE_NAME, read_manifest
    from mergeline.plan.licences import require_publishable
    from mergeline.publish.card import render_card
    from mergeline.publish.publication import publish_directory
    from mergeline.sources.hub import Hub

    manifest = read_manifest(options.model) if options.model.is_dir() else None
    if manifest is None:
        raise InputError(f"{options.model}: holds no finished merge; make one with `mergeline merge RECIPE OUT`.")
    recipe_text = (options.model / RECIPE_NAME).read_text()
    hub = Hub()
    repo_id = options.repo_id if "/" in options.repo_id else f"{hub.whoami()}/{options.repo_id}"
    require_publishable([source.license for source in manifest.sources], is_public=options.public)
    card = render_card(manifest, recipe_text, name=repo_id)
    published = publish_directory(
        options.model,
        repo_id,
        hub=hub,
        plan_digest=manifest.plan_digest,
        private=not options.public,
        extra_files={"README.md": card.encode()},
    )
    if options.json:
        print(json.dumps(published.__dict__))
    else:
        state = "was there already" if published.was_already_published else "published"
        print(f"{published.repo_id} {state}: {published.url}")


def run(options: argparse.Namespace) -> None:
    """Run a whole pipeline."""
    from mergeline.pipeline.language import load_pipeline
    from mergeline.pipeline.preflight import prepare_pipeline
    from mergeline.sources.hub import Hub
    from mergeline.support.state import state_directory

    pipeline = load_pipeline(options.pipeline, options.set)
    # The flow does this again; here it tells of bad input before a server is started.
    prepare_pipeline(pipeline, Hub())
    try:
        from flows.embedded import prepare_environment, run_flow
    except ModuleNotFoundError as error:
        raise _needs_checkout("run", error) from None
    prepare_environment(state_directory())
    from flows.executors import require_engine
    from flows.merge_and_evaluate import describe_result, merge_and_evaluate, result_json

    require_engine(pipeline.settings.execute)
    result = run_flow(cast("Any", merge_and_evaluate), pipeline.as_form())
    print(result_json(result) if options.json else describe_result(result))


def up(options: argparse.Namespace) -> None:
    """Run servers, workers and deployments on this machine."""
    try:
        from deployments.up import Ports, up
    except ModuleNotFoundError as error:
        raise _needs_checkout("up", error) from None
    hub = options.port_hub if options.with_hub else None
    webhook = options.port_webhook if options.with_webhook else None
    up(Ports(options.port_prefect, options.port_mlflow, hub, webhook), as_json=options.json)


def _needs_checkout(command: str, error: ModuleNotFoundError) -> InputError:
    return InputError(
        f"mergeline {command}: {error.name} is missing; pipelines run from a checkout of Mergeline (`make setup`), "
        "the wheel alone plans and merges."
    )


def schema(options: argparse.Namespace) -> None:
    """Print the JSON schema of a file format."""
    from mergeline.pipeline.language import Pipeline
    from mergeline.recipe.recipe import Recipe

    models = {"recipe": Recipe, "pipeline": Pipeline}
    print(json.dumps(models[options.format].model_json_schema(), indent=2))


def positive(number: int, option: str) -> int:
    """Return ``number``; :class:`InputError` names the option where it is less than 1."""
    if number < 1:
        raise InputError(f"{option}: must be 1 or more, found {number}.")
    return number
