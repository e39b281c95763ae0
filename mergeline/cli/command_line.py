"""The command line: what can be asked for, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergeline import __version__
from mergeline.cli import evaluating, merging, recorded, running
from mergeline.errors import MergelineError
from mergeline.merge.devices import CORES


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
    group = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    plan = _command(group, "plan", merging.plan, "show everything a merge will do, before any weight moves")
    _recipe_argument(plan)
    _shard_size(plan)
    _workers(plan)

    merge = _command(group, "merge", merging.merge, "make a local model directory from a recipe")
    _recipe_argument(merge)
    merge.add_argument("output", type=Path, metavar="OUT", help="directory to create; run again to continue")
    _shard_size(merge)
    _workers(merge)
    _device(merge)
    merge.add_argument("--quiet", action="store_true", help="print no progress")

    verify = _command(group, "verify", merging.verify, "check a merge again against its manifest")
    verify.add_argument("model", metavar="MODEL", help="directory, or Hub id of a published merge (no weight is moved)")
    verify.add_argument("--load", action="store_true", help="also ask transformers whether the tensors fit the config")

    publish = _command(group, "publish", merging.publish, "put a finished merge on the Hub in one commit")
    publish.add_argument("model", type=Path, metavar="DIR", help="directory written by merge or run")
    publish.add_argument("repo_id", metavar="REPO_ID", help="owner/name; without an owner, the token's own")
    publish.add_argument("--public", action="store_true", help="create the repository public (default: private)")

    _evaluate_arguments(
        _command(
            group,
            "evaluate",
            evaluating.evaluate,
            "score models with lm-eval and compare them question by question",
        )
    )

    sample = _command(group, "sample", evaluating.sample, "let models continue prompts")
    sample.add_argument("models", nargs="+", metavar="MODEL", help="directory or Hub id")
    sample.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated; two of our own by default")
    sample.add_argument("--max-new-tokens", type=int, default=100, help="length of the answer (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=0, help="recorded; decoding is greedy (default: %(default)s)")
    _dtype(sample)
    _device(sample)

    reproduce = _command(
        group, "reproduce", merging.reproduce, "rebuild a merge from its manifest and compare the bytes"
    )
    reproduce.add_argument("model", metavar="MODEL", help="directory or Hub id of a merge")
    reproduce.add_argument("output", type=Path, metavar="OUT", help="directory to create")
    _workers(reproduce)

    run = _command(group, "run", running.run, "run a whole pipeline: merge, evaluate, publish, track")
    run.add_argument("pipeline", type=Path, metavar="PIPELINE", help="YAML file; see configs/pipelines/")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting, e.g. evaluate.limit=100"
    )

    lineage = _command(
        group, "lineage", recorded.lineage, "follow a model back to its run, its recipe and its parents' commits"
    )
    lineage.add_argument("model", metavar="MODEL", help="Hub id, directory of a merge, or id of its MLflow run")
    lineage.add_argument(
        "--used-by", action="store_true", help="instead: every merge that used MODEL (or a bare commit) as a source"
    )
    lineage.add_argument("--tracking-uri", metavar="URI", help="MLflow store to look into (default: that of `run`)")

    track = _command(group, "track", recorded.track, "list the records that MLflow does not have yet")
    track.add_argument("--replay", action="store_true", help="send them, each once")
    up = _command(group, "up", running.up, "run Prefect, MLflow, workers and deployments here until interrupted")
    up.add_argument("--with-hub", action="store_true", help="also a local Hub with the demonstration models")
    up.add_argument(
        "--with-webhook",
        action="store_true",
        help="also let the Hub tell of new commits; needs $MERGELINE_WEBHOOK_SECRET",
    )
    for server, port in (("prefect", 4200), ("mlflow", 5000), ("hub", 7860), ("webhook", 7861)):
        up.add_argument(
            f"--port-{server}", type=int, default=port, metavar="N", help="or the next free (default: %(default)s)"
        )

    schema = _command(group, "schema", running.schema, "print the JSON schema of a file format, for editors")
    schema.add_argument("format", choices=("recipe", "pipeline"))
    return parser


def _command(group: Any, name: str, function: Any, sentence: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(command=function)
    return parser


def _evaluate_arguments(evaluate: argparse.ArgumentParser) -> None:
    """Offer what the section ``evaluate`` of a pipeline offers; what is left out has the pipeline's default."""
    evaluate.add_argument(
        "models", nargs="+", metavar="MODEL", help="directory or Hub id; the last is compared with the others"
    )
    evaluate.add_argument(
        "--tasks",
        default="spartqa_train",
        help="lm-eval tasks, by name or YAML file, with commas (default: %(default)s)",
    )
    evaluate.add_argument(
        "--dataset",
        help="questions: a .jsonl, .json or .parquet file, a Hub dataset, or `directions` for made-up ones; "
        "`?shuffle=SEED&take=N` chooses some",
    )
    evaluate.add_argument("--base", metavar="MODEL", help="shown beside the others, not compared with")
    evaluate.add_argument("--limit", type=int, metavar="N", help="only the first this many questions")
    evaluate.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="questions per forward pass (default: %(default)s)"
    )
    _dtype(evaluate)
    evaluate.add_argument(
        "--engine", default="stock", help="stock: lm-eval as it is; fast: the same scores, less work (default: stock)"
    )
    evaluate.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="accuracy that may be lost and still count as not worse (default: 0.02)",
    )
    evaluate.add_argument(
        "--breakdown",
        metavar="COLUMNS",
        help="columns of the questions, with commas (default: those with 2 to 20 values)",
    )
    evaluate.add_argument(
        "--time-limit", type=int, metavar="MINUTES", help="end the evaluation after so long (default: 600)"
    )
    evaluate.add_argument("--report", type=Path, metavar="FILE", help="also write the report as one HTML page")
    _device(evaluate)


def _recipe_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="YAML file in mergekit's language; see configs/merges/"
    )


def _shard_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="largest output file (default: %(default)s)"
    )


def _workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=CORES, metavar="N", help="threads (default: %(default)s)")


def _dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: %(default)s)")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
