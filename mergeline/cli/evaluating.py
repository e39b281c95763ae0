"""What ``evaluate`` and ``sample`` do: models brought here, lm-eval asked, and what it says printed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mergeline.cli.merging import positive
from mergeline.errors import InputError

if TYPE_CHECKING:
    from mergeline.pipeline.evaluating import NamedEvaluation
    from mergeline.pipeline.language import Evaluate


def evaluate(options: argparse.Namespace) -> None:
    """Score models and compare them."""
    from mergeline.evaluation.report.tables import report_text
    from mergeline.pipeline.evaluating import evaluate_named
    from mergeline.support.digests import canonical_json
    from mergeline.support.durable import write_whole

    section = _section(options)
    _check_page(options.report, section)
    evaluated = evaluate_named(options.models, section, device=options.device, on_line=_print_line)
    for evaluation in evaluated:
        report = evaluation.report
        print(canonical_json(report) if options.json else report_text(report))
        if options.report is not None:
            write_whole(options.report, _page(evaluation))
            _print_line(f"Report: {options.report}")


def _print_line(line: str) -> None:
    print(line, file=sys.stderr)


def _section(options: argparse.Namespace) -> Evaluate:
    """Read the options as the pipeline language reads its section ``evaluate``."""
    from mergeline.pipeline.language import read_evaluate

    settings = {
        "tasks": options.tasks.split(","),
        "dataset": options.dataset,
        # A base that is compared with is shown already.
        "base": None if options.base in options.models else options.base,
        "limit": options.limit,
        "batch_size": options.batch_size,
        "dtype": options.dtype,
        "engine": options.engine,
        "margin": options.margin,
        "breakdown": options.breakdown.split(",") if options.breakdown else None,
        "time_limit_minutes": options.time_limit,
    }
    return read_evaluate({name: value for name, value in settings.items() if value is not None}, "mergeline evaluate")


def _check_page(page: Path | None, section: Evaluate) -> None:
    if page is None:
        return
    if len(section.tasks) > 1:
        raise InputError(f"--report: a page shows one lm-eval task, found {len(section.tasks)}; name one in --tasks.")
    if page.is_dir() or not page.absolute().parent.is_dir():
        what = "is a directory" if page.is_dir() else "its directory does not exist"
        raise InputError(f"--report {page}: {what}; name an HTML file in a directory that is there.")


def _page(evaluation: NamedEvaluation) -> str:
    """Render the report, with recipe, lineage and geometry where the last model is a merge of Mergeline's."""
    from mergeline.evaluation.report.html_report import render_report
    from mergeline.merge.geometry import read_geometry
    from mergeline.merge.manifest import RECIPE_NAME, read_manifest

    directory = evaluation.models[-1].directory
    recipe = directory / RECIPE_NAME
    return render_report(
        evaluation.report,
        recipe_text=recipe.read_text("utf-8") if recipe.is_file() else "",
        manifest=read_manifest(directory),
        prompts=evaluation.questions.prompts(),
        geometry=read_geometry(directory),
    )


def sample(options: argparse.Namespace) -> None:
    """Let models continue prompts."""
    from dataclasses import asdict

    from mergeline.evaluation.sample import sample_models
    from mergeline.merge.devices import choose_devices
    from mergeline.pipeline.evaluating import fetch_models
    from mergeline.pipeline.language import DEFAULT_PROMPTS
    from mergeline.sources.hub import Hub

    samples = sample_models(
        fetch_models(options.models, Hub()),
        options.prompt or DEFAULT_PROMPTS,
        positive(options.max_new_tokens, "--max-new-tokens"),
        options.seed,
        dtype=options.dtype,
        device=choose_devices(options.device)[0],
    )
    if options.json:
        print(json.dumps([asdict(sample) for sample in samples]))
        return
    first = samples[0]
    print(f"{first.decoding}, at most {first.max_new_tokens} new tokens, seed {first.seed}, dtype {first.dtype}")
    for prompt in dict.fromkeys(sample.prompt for sample in samples):
        print(f"\n> {prompt}")
        for sample in samples:
            if sample.prompt == prompt:
                print(f"\n{sample.label}:\n{sample.completion}")
