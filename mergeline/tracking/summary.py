"""A merge's run in MLflow, computed without MLflow: name, parameters, metrics, tags and files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import PurePath

from mergeline.evaluation.results import Evaluation, EvaluationReport
from mergeline.merge.manifest import MANIFEST_NAME
from mergeline.sources.identity import SourceIdentity
from mergeline.support.digests import digest
from mergeline.tracking.record import MergeRecord, Scalar

PLAN_TAG = "mergeline.plan_digest"
SOURCE_TAG = "mergeline.source."
"""Followed by a source's commit, or the fingerprint of a local one; its value is the source's name."""

_NAMED_PARAMETERS = 3
_NAME_CHARACTERS = 24


def run_name(name: str, method: str, parameters: Mapping[str, Scalar]) -> str:
    """Return a run's name, with the settings in which merges differ, e.g. ``marcoro slerp t=0.5``.

    Args:
        name: The pipeline's.
        method: The merge method, left out where ``name`` says it already.
        parameters: As :func:`mergeline.recipe.parameters.flat_parameters` gives them.
    """
    words = [name] if method in name else [name, method]
    settings = [f"{key}={_short(value)}" for key, value in parameters.items()]
    more = ["..."] if len(settings) > _NAMED_PARAMETERS else []
    return " ".join([*words, *settings[:_NAMED_PARAMETERS], *more])


def merge_parameters(record: MergeRecord) -> dict[str, str]:
    """Return the settings that decide a merge's bytes; sources are numbered from 1 in the manifest's order."""
    manifest, parameters = record.manifest, record.parameters
    flat: dict[str, Scalar] = {"method": manifest.merge_method, "engine_version": manifest.engine_version}
    if dtype := manifest.recipe.get("out_dtype") or manifest.recipe.get("dtype"):
        flat["dtype"] = str(dtype)
    for number, source in enumerate(manifest.sources, start=1):
        flat[f"source.{number}"] = source.repo_id or portable(source.label)
        if source.commit is not None:
            flat[f"source.{number}.commit"] = source.commit
    return {legal_key(name): str(value) for name, value in (flat | parameters).items()}


def merge_tags(record: MergeRecord) -> dict[str, str]:
    """Return the tags that link a run with plan, pipeline, sources and publication; see ``docs/lineage.md``."""
    manifest, published = record.manifest, record.publication
    tags = {PLAN_TAG: manifest.plan_digest, "mergeline.version": manifest.engine_version} | record.tags
    if record.pipeline_text is not None:
        tags["mergeline.config_digest"] = digest(record.pipeline_text)
    tags |= {f"{SOURCE_TAG}{source_key(source)}": portable(source.label) for source in manifest.sources}
    if published is not None:
        tags |= {"hf.repo": published.repo_id, "hf.commit": published.commit, "hf.url": published.url}
    verdicts = {comparison.verdict for report in record.reports for comparison in report.comparisons}
    if verdicts:
        tags["verdict"] = ", ".join(sorted(verdicts))
    return tags | version_tags(manifest.versions)


def version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    """Return one tag per package."""
    return {f"version.{package}": version for package, version in versions.items()}


def source_key(source: SourceIdentity) -> str:
    """Return what identifies a source under any name: its commit, or the fingerprint of a local source."""
    return source.commit or source.fingerprint[:40]


def evaluation_parameters(evaluation: Evaluation, role: str) -> dict[str, str]:
    """Return the settings that decide a model's scores, without the lm-eval task; the same keys for every task."""
    flat = {"model": evaluation.label, "role": role} | asdict(_portable_evaluation(evaluation).settings)
    del flat["task"]
    return {name: str(value) for name, value in flat.items() if value is not None}


def evaluation_metrics(evaluation: Evaluation, report: EvaluationReport) -> dict[str, float]:
    """Return a model's accuracy, overall and by group; the same keys for every model."""
    task = legal_key(evaluation.settings.task)
    metrics = {
        f"{task}/acc": evaluation.accuracy,
        f"{task}/acc_stderr": evaluation.stderr,
        f"{task}/questions": float(evaluation.n_questions),
        f"{task}/seconds": evaluation.elapsed_seconds,
    }
    for breakdown in report.breakdowns:
        for group in breakdown.slices:
            key = legal_key(f"{task}/acc.{breakdown.column}.{_slug(group.value)}")
            for score in group.scores:
                if score.label == evaluation.label:
                    metrics[key] = score.accuracy
    return metrics


def report_metrics(report: EvaluationReport) -> dict[str, float]:
    """Return the merge's score and its distance from each parent, e.g. ``spartqa_train/difference.compass``."""
    task = legal_key(report.merge.settings.task)
    names = short_names(report)
    metrics = evaluation_metrics(report.merge, report) | {
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


def files(record: MergeRecord) -> dict[str, str]:
    """Return the run's files: relative path -> text."""
    texts = {
        "recipe.yaml": record.recipe_text,
        "plan.json": record.plan_json,
        MANIFEST_NAME: _json(asdict(record.manifest)),
    }
    if record.pipeline_text is not None:
        texts["pipeline.yaml"] = record.pipeline_text
    if record.samples:
        texts["samples.json"] = _json([asdict(sample) for sample in record.samples])
    for report in record.reports:
        folder = evaluation_folder(report)
        names = short_names(report)
        for evaluation in report.evaluations:
            of_model = _portable_evaluation(evaluation)
            texts[f"{folder}/{names[evaluation.label]}.json"] = _json(asdict(of_model))
            texts[f"{folder}/{names[evaluation.label]}.md"] = f"{evaluation.table.rstrip()}\n"
        texts[f"{folder}/comparison.json"] = _json(
            {
                "comparisons": [asdict(comparison) for comparison in report.comparisons],
                "majority_accuracy": report.majority_accuracy,
                "chance_accuracy": report.chance_accuracy,
                "flags": list(report.flags),
            }
        )
    return texts | record.pages


def evaluation_file(report: EvaluationReport) -> str:
    """Return the path of the merge's answers to an lm-eval task among its run's files."""
    return f"{evaluation_folder(report)}/{short_names(report)[report.merge.label]}.json"


def evaluation_folder(report: EvaluationReport) -> str:
    """Return a run's folder for an lm-eval task."""
    return f"evaluation/{_slug(report.merge.settings.task)}"


def short_names(report: EvaluationReport) -> dict[str, str]:
    """Return the name of each evaluated model in keys and files; see :func:`short_labels`."""
    return short_labels(evaluation.label for evaluation in report.evaluations)


def short_labels(labels: Iterable[str]) -> dict[str, str]:
    """Return label -> name in metric keys and files: the label's last part if unique, else all of it."""
    last_parts = {label: _slug(label.rstrip("/").rpartition("/")[2]) for label in labels}
    uses = Counter(last_parts.values())
    return {
        label: last if uses[last] == 1 else _slug(label.strip("/").replace("/", "."))
        for label, last in last_parts.items()
    }


def legal_key(name: str) -> str:
    """Return ``name`` as MLflow accepts it: ``acc,none`` becomes ``acc``; other illegal characters become ``-``."""
    return re.sub(r"[^\w/.: -]", "-", name.removesuffix(",none")).strip("/") or "-"


def _short(value: Scalar) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value).replace(", ", ",")
    return text if len(text) <= _NAME_CHARACTERS else f"{text[: _NAME_CHARACTERS - 3]}..."


def portable(location: str) -> str:
    """Shorten an absolute path to its last part: the rest means nothing elsewhere, and may contain a user's name."""
    is_elsewhere = PurePath(location).is_absolute() or location.startswith("~")
    return PurePath(location).name if is_elsewhere else location


def _portable_evaluation(evaluation: Evaluation) -> Evaluation:
    settings = evaluation.settings
    if settings.dataset is None:
        return evaluation
    return replace(evaluation, settings=replace(settings, dataset=portable(settings.dataset)))


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or "model"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
