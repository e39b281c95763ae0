"""What ``run``, ``up`` and ``schema`` do."""

from __future__ import annotations

import argparse
import json
from typing import Any, cast

from mergeline.errors import InputError


def run(options: argparse.Namespace) -> None:
    """Run a whole pipeline."""
    from mergeline.pipeline.form import to_form
    from mergeline.pipeline.language import load_pipeline
    from mergeline.pipeline.preflight import prepare_pipeline, prepared_beforehand
    from mergeline.sources.hub import Hub
    from mergeline.support.state import state_directory

    pipeline = load_pipeline(options.pipeline, options.set)
    # Bad input is told before a server is started.
    prepared = prepare_pipeline(pipeline, Hub())
    try:
        from flows.embedded import prepare_environment, run_flow
    except ModuleNotFoundError as error:
        raise _needs_checkout("run", error) from None
    prepare_environment(state_directory())
    from flows.executors import require_executor
    from flows.merge_and_evaluate import merge_and_evaluate
    from mergeline.pipeline.run import describe_result, result_json

    require_executor(pipeline.settings.execute)
    with prepared_beforehand(prepared):
        result = run_flow(cast("Any", merge_and_evaluate), to_form(pipeline))
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
