"""The command line: reads arguments, calls one function of the engine, prints what it returns."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mergeline import __version__
from mergeline.errors import InputError, MergelineError

if TYPE_CHECKING:
    from mergeline.evaluation.evaluate_models import ModelToEvaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if it did what was asked, 2 for bad input, 1 for a run that failed, 130 when interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except MergelineError as error:
        _print_error(error, options.json)
        return error.exit_status
    except KeyboardInterrupt:
        print("mergeline: interrupted; the same command continues where this stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has seen enough (`| head`); Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def entry() -> None:
    """Run the command line as a program and leave without tearing down libraries.

    Unloading torch takes longer than many a merge; all files are closed and synced by then. Where Prefect or MLflow
    were used, they end by themselves.
    """
    status = main()
    if {"prefect", "mlflow"} & sys.modules.keys():
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _print_error(error: MergelineError, as_json: bool) -> None:
    lines = str(error).splitlines()
    if as_json:
        print(json.dumps({"error": type(error).__name__, "problems": lines}))
    for line in lines:
        print(f"mergeline: error: {line}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mergeline",
        description="Merge language models as a pipeline: planned before a byte moves, resumable, evaluated beside "
        "the parents, traceable afterwards.",
        epilog="Hub ids are looked up at $HF_ENDPOINT (huggingface.co by default) with the token in $HF_TOKEN. "
        "Exit status: 0 done, 1 the run failed, 2 bad input and nothing written.",
    )
    parser.add_argument("--version", action="version", version=f"mergeline {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    plan = _command(commands, "plan", _plan, "show everything a merge will do, before any weight moves")
    _recipe_argument(plan)
    _shard_size(plan)
    _workers(plan)

    merge = _command(commands, "merge", _merge, "make a local model directory from a recipe")
    _recipe_argument(merge)
    merge.add_argument("output", type=Path, metavar="OUT", help="directory to create; run again to continue")
    _shard_size(merge)
    _workers(merge)
    _device(merge)
    merge.add_argument("--quiet", action="store_true", help="print no progress")

    verify = _command(commands, "verify", _verify, "check a merge again against its manifest")
    verify.add_argument("model", type=Path, metavar="DIR", help="directory written by merge or run")
    verify.add_argument("--load", action="store_true", help="also ask transformers whether the tensors fit the config")

    publish = _command(commands, "publish", _publish, "put a finished merge on the Hub in one commit")
    publish.add_argument("model", type=Path, metavar="DIR", help="directory written by merge or run")
    publish.add_argument("repo_id", metavar="REPO_ID", help="owner/name; without an owner, the token's own")
    publish.add_argument("--public", action="store_true", help="create the repository public (default: private)")

    evaluate = _command(
        commands, "evaluate", _evaluate, "score models with lm-eval and compare them question by question"
    )
    evaluate.add_argument(
        "models", nargs="+", metavar="MODEL", help="directory or Hub id; the last is compared with the others"
    )
    evaluate.add_argument("--tasks", default="spartqa_train", help="lm-eval task (default: %(default)s)")
    evaluate.add_argument("--dataset", help="JSON Lines file or Hub dataset id with the questions")
    evaluate.add_argument("--limit", type=int, help="only the first this many questions")
    evaluate.add_argument(
        "--batch-size", type=int, default=32, help="questions per forward pass (default: %(default)s)"
    )
    evaluate.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: %(default)s)")
    _device(evaluate)

    sample = _command(commands, "sample", _sample, "let models continue prompts")
    sample.add_argument("models", nargs="+", metavar="MODEL", help="directory or Hub id")
    sample.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated; two of our own by default")
    sample.add_argument("--max-new-tokens", type=int, default=100, help="length of the answer (default: %(default)s)")
    _device(sample)

    reproduce = _command(commands, "reproduce", _reproduce, "rebuild a merge from its manifest and compare the bytes")
    reproduce.add_argument("model", metavar="MODEL", help="directory or Hub id of a merge")
    reproduce.add_argument("output", type=Path, metavar="OUT", help="directory to create")
    _workers(reproduce)

    run = _command(commands, "run", _run, "run a whole pipeline: merge, evaluate, publish, track")
    run.add_argument("pipeline", type=Path, metavar="PIPELINE", help="YAML file; see configs/pipelines/")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting, e.g. evaluate.limit=100"
    )

    schema = _command(commands, "schema", _schema, "print the JSON schema of a file format, for editors")
    schema.add_argument("format", choices=("recipe", "pipeline"))
    return parser


def _command(commands: Any, name: str, function: Any, sentence: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=sentence, description=f"{sentence.capitalize()}.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(command=function)
    return parser


def _recipe_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="YAML file in mergekit's language; see configs/merges/"
    )


def _shard_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="largest output file (default: %(default)s)"
    )


def _workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=_cores(), metavar="N", help="threads (default: %(default)s)")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), 8)


def _plan(options: argparse.Namespace) -> None:
    from mergeline.hub import Hub
    from mergeline.merging import plan_recipe
    from mergeline.plan_text import describe_plan
    from mergeline.recipe import read_text
    from mergeline.shard_layout import parse_size
    from mergeline.workspace import plan_json

    text = read_text(options.recipe, InputError, "recipe")
    plan = plan_recipe(text, str(options.recipe), Hub(), parse_size(options.max_shard_size)).plan
    if options.json:
        print(json.dumps({"digest": plan.digest, **json.loads(plan_json(plan))}))
    else:
        print(describe_plan(plan, _positive(options.workers, "--workers")))


def _merge(options: argparse.Namespace) -> None:
    from mergeline.execute import Progress, choose_devices
    from mergeline.geometry import merge_geometry, summarize
    from mergeline.hub import Hub
    from mergeline.merging import merge_recipe
    from mergeline.plan import MergePlan
    from mergeline.progress import ProgressLine
    from mergeline.shard_layout import parse_size
    from mergeline.text import size

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
        workers=_positive(options.workers, "--workers"),
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


def _verify(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mergeline.text import size
    from mergeline.verify import verify_directory

    found = verify_directory(options.model, try_loading=options.load)
    if options.json:
        print(json.dumps(asdict(found)))
        return
    loads = ", transformers takes exactly these" if found.is_loadable else ""
    print(
        f"{options.model}: {found.file_count} files ({size(found.nbytes)}) as the manifest says, "
        f"{found.tensor_count} tensors as planned{loads}; plan {found.plan_digest[:12]}"
    )


def _reproduce(options: argparse.Namespace) -> None:
    from mergeline.hub import Hub
    from mergeline.reproduce import reproduce

    workers = _positive(options.workers, "--workers")
    shards = reproduce(options.model, options.output, hub=Hub(), workers=workers)
    if options.json:
        print(json.dumps({"directory": str(options.output), "shards": {shard.name: shard.sha256 for shard in shards}}))
    else:
        print(f"{options.output}: {len(shards)} shards, byte for byte those of {options.model}")


def _publish(options: argparse.Namespace) -> None:
    from mergeline.card import render_card
    from mergeline.hub import Hub
    from mergeline.licences import require_publishable
    from mergeline.publish import publish_directory
    from mergeline.workspace import RECIPE_NAME, read_manifest

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


def _evaluate(options: argparse.Namespace) -> None:
    from mergeline.evaluation.comparison import report
    from mergeline.evaluation.evaluate_models import evaluate_models
    from mergeline.evaluation.records import EvaluationSettings
    from mergeline.evaluation.tables import report_text, results_table
    from mergeline.execute import choose_devices
    from mergeline.hub import Hub
    from mergeline.lineage import canonical_json
    from mergeline.preflight import fetch_questions, find_questions
    from mergeline.state import state_directory

    questions = find_questions(options.dataset, Hub())
    settings = EvaluationSettings(
        task=options.tasks,
        dataset=options.dataset,
        limit=options.limit,
        batch_size=_positive(options.batch_size, "--batch-size"),
        dtype=options.dtype,
        device=choose_devices(options.device)[0][0],
    )
    *references, last = evaluate_models(
        _models(options.models),
        settings,
        questions=fetch_questions(questions, Hub()),
        cache_dir=state_directory() / "evaluations",
        on_line=lambda line: print(line, file=sys.stderr),
    )
    compared = report(last, references)
    if options.json:
        print(canonical_json(compared))
    else:
        print(report_text(compared) if references else results_table([last]))


def _sample(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mergeline.evaluation.sample import DEFAULT_PROMPTS, sample_models
    from mergeline.execute import choose_devices

    samples = sample_models(
        _models(options.models),
        options.prompt or DEFAULT_PROMPTS,
        _positive(options.max_new_tokens, "--max-new-tokens"),
        device=choose_devices(options.device)[0][0],
    )
    if options.json:
        print(json.dumps([asdict(sample) for sample in samples]))
        return
    for sample in samples:
        print(f"{sample.label}\n> {sample.prompt}\n{sample.completion}\n")


def _models(references: Sequence[str]) -> list[ModelToEvaluate]:
    """Bring the models named onto this machine."""
    from mergeline.checkpoint import fetch, open_checkpoint
    from mergeline.evaluation.evaluate_models import ModelToEvaluate
    from mergeline.hub import Hub

    checkpoints = [open_checkpoint(reference, Hub()) for reference in references]
    return [ModelToEvaluate(checkpoint.label, fetch(checkpoint, Hub())) for checkpoint in checkpoints]


def _run(options: argparse.Namespace) -> None:
    from mergeline.hub import Hub
    from mergeline.pipeline import load_pipeline
    from mergeline.preflight import prepare_pipeline
    from mergeline.state import state_directory

    pipeline = load_pipeline(options.pipeline, options.set)
    # The flow does this again; here it tells of bad input before a server is started.
    prepare_pipeline(pipeline, Hub())
    try:
        from flows.embedded import prepare_environment, run_flow
    except ModuleNotFoundError as error:
        raise InputError(
            f"mergeline run: {error.name} is missing; pipelines run from a checkout of Mergeline (`make setup`), "
            "the wheel alone plans and merges."
        ) from None
    prepare_environment(state_directory())
    from flows.merge_and_evaluate import describe_result, merge_and_evaluate, result_json

    result = run_flow(cast("Any", merge_and_evaluate), pipeline.as_form())
    print(result_json(result) if options.json else describe_result(result))


def _schema(options: argparse.Namespace) -> None:
    from mergeline.pipeline import Pipeline
    from mergeline.recipe import Recipe

    models = {"recipe": Recipe, "pipeline": Pipeline}
    print(json.dumps(models[options.format].model_json_schema(), indent=2))


def _positive(number: int, option: str) -> int:
    if number < 1:
        raise InputError(f"{option}: must be 1 or more, found {number}.")
    return number
