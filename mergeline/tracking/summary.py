"""A merge's records as MLflow shows them: parameters, metrics, a note and files. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePath

from mergeline.evaluation.records import Comparison, Evaluation, EvaluationReport, Sample
from mergeline.lineage import MANIFEST_NAME, Manifest

Scalar = str | float | int | bool


def merge_parameters(manifest: Manifest, parameters: Mapping[str, Scalar]) -> dict[str, str]:
    """Return what decides a merge's weights, flat; sources are numbered from 1 in the manifest's order."""
    flat: dict[str, Scalar] = {"method": manifest.merge_method}
    if dtype := manifest.recipe.get("out_dtype") or manifest.recipe.get("dtype"):
        flat["dtype"] = str(dtype)
    for number, source in enumerate(manifest.sources, start=1):
        flat[f"source.{number}"] = source.repo_id or _portable(source.label)
        if source.commit is not None:
            flat[f"source.{number}.commit"] = source.commit
    return {legal_key(name): str(value) for name, value in (flat | dict(parameters)).items()}


def evaluation_parameters(evaluation: Evaluation, role: str) -> dict[str, str]:
    """Return what, besides the lm-eval task, decides a model's scores; equal names for all, so that runs compare."""
    flat = {"model": evaluation.label, "role": role} | asdict(_portable_evaluation(evaluation).settings)
    del flat["task"]
    return {name: str(value) for name, value in flat.items() if value is not None}


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return one model's score; the same names on every run."""
    task = legal_key(evaluation.settings.task)
    return {
        f"{task}/acc": evaluation.accuracy,
        f"{task}/acc_stderr": evaluation.stderr,
        f"{task}/questions": float(evaluation.n_questions),
        f"{task}/seconds": evaluation.elapsed_seconds,
    }


def report_metrics(report: EvaluationReport) -> dict[str, float]:
    """Return the merge's score and its distance from each parent, e.g. ``spartqa_train/difference.compass``."""
    task = legal_key(report.merge.settings.task)
    names = short_names(report)
    metrics = evaluation_metrics(report.merge) | {
        f"{task}/majority_acc": report.majority_accuracy,
        f"{task}/chance_acc": report.chance_accuracy,
    }
    for comparison in report.comparisons:
        parent = names[comparison.reference]
        metrics |= {
            f"{task}/difference.{parent}": comparison.difference,
            f"{task}/difference_low.{parent}": comparison.low,
            f"{task}/difference_high.{parent}": comparison.high,
            f"{task}/wins.{parent}": float(comparison.wins),
            f"{task}/losses.{parent}": float(comparison.losses),
            f"{task}/p_value.{parent}": comparison.p_value,
        }
    return metrics


def note(manifest: Manifest, reports: Sequence[EvaluationReport], published: tuple[str | None, str | None]) -> str:
    """Write the Markdown that heads the run's page.

    Args:
        manifest: What the model is made of.
        reports: Its evaluations.
        published: Hub repository and commit, None where it was not published.
    """
    sources = ", ".join(f"`{source.repo_id or _portable(source.label)}`" for source in manifest.sources)
    paragraphs = [f"**{manifest.merge_method}** of {sources}"]
    repo, commit = published
    if repo:
        paragraphs.append(f"Published as `{repo}`" + (f" at commit `{commit}`" if commit else ""))
    for report in reports:
        paragraphs.append(_result_table(report))
        paragraphs.append(
            f"{report.merge.n_questions} questions; always the most frequent answer: {report.majority_accuracy:.3f}; "
            f"chance: {report.chance_accuracy:.3f}."
        )
        paragraphs.extend(f"- {flag}" for flag in report.flags)
    return "\n\n".join(paragraphs)


def files(
    *,
    manifest: Manifest,
    recipe_text: str,
    pipeline_text: str | None,
    plan_json: str,
    reports: Sequence[EvaluationReport],
    samples: Sequence[Sample],
) -> dict[str, str]:
    """Return the run's files: relative path -> text."""
    texts = {
        "recipe.yaml": recipe_text,
        "plan.json": plan_json,
        MANIFEST_NAME: _json(asdict(manifest)),
    }
    if pipeline_text is not None:
        texts["pipeline.yaml"] = pipeline_text
    if samples:
        texts["samples.json"] = _json([asdict(sample) for sample in samples])
    for report in reports:
        folder = f"evaluation/{_slug(report.merge.settings.task)}"
        names = short_names(report)
        for evaluation in report.evaluations:
            record = _portable_evaluation(evaluation)
            texts[f"{folder}/{names[evaluation.label]}.json"] = _json(asdict(record))
            texts[f"{folder}/{names[evaluation.label]}.md"] = f"{evaluation.table.rstrip()}\n"
        texts[f"{folder}/comparison.json"] = _json(
            {
                "comparisons": [asdict(comparison) for comparison in report.comparisons],
                "majority_accuracy": report.majority_accuracy,
                "chance_accuracy": report.chance_accuracy,
                "flags": list(report.flags),
            }
        )
    return texts


def short_names(report: EvaluationReport) -> dict[str, str]:
    """Return label -> a name fit for a metric key and a file: the last part of the label where that is unique."""
    labels = list(dict.fromkeys(evaluation.label for evaluation in report.evaluations))
    last_parts = {label: _slug(label.rstrip("/").rpartition("/")[2]) for label in labels}
    uses = Counter(last_parts.values())
    return {
        label: last if uses[last] == 1 else _slug(label.strip("/").replace("/", "."))
        for label, last in last_parts.items()
    }


def legal_key(name: str) -> str:
    """Return ``name`` as MLflow accepts it: lm-eval's ``acc,none`` becomes ``acc``, anything else illegal ``-``."""
    return re.sub(r"[^\w/.: -]", "-", name.removesuffix(",none")).strip("/") or "-"


def _result_table(report: EvaluationReport) -> str:
    comparisons = {comparison.reference: comparison for comparison in report.comparisons}
    rows = [
        f"| Model | {report.merge.settings.task} acc | stderr | merge - model, 95 % interval | verdict |",
        "|---|---|---|---|---|",
    ]
    for evaluation in report.evaluations:
        is_winner = evaluation is report.merge and {pair.verdict for pair in report.comparisons} == {"better"}
        label = f"**{evaluation.label}**" if is_winner else evaluation.label
        rows.append(
            f"| {label} | {evaluation.accuracy:.3f} | {evaluation.stderr:.4f} | "
            f"{_difference(comparisons.get(evaluation.label))} |"
        )
    return "\n".join(rows)


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return "|"
    return (
        f"{comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}] | {comparison.verdict}"
        if comparison.verdict != "not comparable"
        else f"| {comparison.verdict}"
    )


def _portable(location: str) -> str:
    # An absolute path says where one machine keeps a file, and often whose machine it is.
    return PurePath(location).name if PurePath(location).is_absolute() else location


def _portable_evaluation(evaluation: Evaluation) -> Evaluation:
    settings = evaluation.settings
    if settings.dataset is None:
        return evaluation
    return replace(evaluation, settings=replace(settings, dataset=_portable(settings.dataset)))


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or "model"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
