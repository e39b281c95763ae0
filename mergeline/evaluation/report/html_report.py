"""An evaluation report as one HTML page that needs nothing but itself; its template is ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mergeline.evaluation.compare.changed_questions import changed_questions
from mergeline.evaluation.compare.comparison import NOT_COMPARABLE
from mergeline.evaluation.compare.model_summary import letter
from mergeline.evaluation.report.svg_charts import (
    Estimate,
    Mark,
    calibration_chart,
    heat_map,
    histogram_chart,
    interval_chart,
)
from mergeline.evaluation.report.tables import own_tables
from mergeline.evaluation.results import Comparison, Evaluation, EvaluationReport, Sample
from mergeline.merge.manifest import Manifest
from mergeline.support.templates import load_template

if TYPE_CHECKING:
    from markupsafe import Markup

    from mergeline.merge.geometry import TensorGeometry

CHANGED_SHOWN = 40
"""Most changed questions that the page lists."""


def render_report(
    report: EvaluationReport,
    *,
    samples: Sequence[Sample] = (),
    recipe_text: str = "",
    manifest: Manifest | None = None,
    prompts: Mapping[str, str] = MappingProxyType({}),
    geometry: Sequence[TensorGeometry] = (),
) -> str:
    """Return an HTML page with all results of an evaluation; a browser loads nothing else for it.

    Args:
        report: A merge beside its parents.
        samples: Prompts with the models' completions.
        recipe_text: The recipe as written.
        manifest: The merge's manifest, for its lineage.
        prompts: Question's identifier -> prompt, shown for questions that changed sides.
        geometry: The merge's geometry; drawn where cosines between the sources were measured.
    """
    merge, comparisons = report.merge, (*report.comparisons, *report.parent_comparisons)
    names = _short_names(report)

    def pair_name(pair: Comparison) -> str:
        return f"{names[pair.label]} - {names[pair.reference]}"

    samples_by_prompt: dict[str, list[Sample]] = {}
    for sample in samples:
        samples_by_prompt.setdefault(sample.prompt, []).append(sample)
    filters = {"signed": "{:+.3f}".format, "letter": letter, "portable": _portable}
    return load_template(Path(__file__).with_name("report.html"), filters).render(
        NOT_COMPARABLE=NOT_COMPARABLE,
        CHANGED_SHOWN=CHANGED_SHOWN,
        zip=zip,
        dtype=_dtype,
        report=report,
        merge=merge,
        task_name=_task_name(report),
        clusters=len({answer.cluster for answer in merge.answers}),
        accuracy_chart=_accuracy_chart(report),
        comparisons=comparisons,
        pair_name=pair_name,
        difference_chart=_difference_chart(
            {pair_name(pair): pair for pair in comparisons if pair.verdict != NOT_COMPARABLE}, merge.label
        ),
        letter_charts=_letter_charts(report),
        calibration_charts=[
            (f"{model.label}: error {model.calibration_error:.3f}", calibration_chart(model.calibration, model.label))
            for model in report.summaries
        ],
        samples_by_prompt=samples_by_prompt,
        cosine_map=heat_map(geometry, "Cosine between the sources"),
        changed=changed_questions(report),
        prompts=prompts,
        recipe_text=recipe_text,
        manifest=manifest,
        settings=_settings(report),
        own_tables=own_tables(report.evaluations),
    )


def _accuracy_chart(report: EvaluationReport) -> Markup:
    marks = [
        Mark(report.chance_accuracy, f"chance {report.chance_accuracy:.3f}"),
        Mark(report.majority_accuracy, f"majority answer {report.majority_accuracy:.3f}"),
    ]
    if report.oracle_accuracy is not None and report.parent_comparisons:
        marks.append(Mark(report.oracle_accuracy, f"some parent right {report.oracle_accuracy:.3f}"))
    estimates = [
        Estimate(summary.label, summary.accuracy, summary.low, summary.high, summary.label == report.merge.label)
        for summary in report.summaries
    ]
    return interval_chart(estimates, marks, 0.0, 1.0, "Accuracy with 95 % intervals")


def _difference_chart(comparisons: Mapping[str, Comparison], merge_label: str) -> Markup | str:
    """Draw the differences of comparable pairs, given by the pair's name; empty if there are none."""
    if not comparisons:
        return ""
    reach = max(0.05, *(max(abs(pair.low), abs(pair.high), pair.margin) for pair in comparisons.values()))
    estimates = [
        Estimate(name, pair.difference, pair.low, pair.high, pair.label == merge_label, is_signed=True)
        for name, pair in comparisons.items()
    ]
    margin = next(iter(comparisons.values())).margin
    marks = [Mark(0.0, "equal"), Mark(-margin, f"margin {-margin:g}")]
    return interval_chart(estimates, marks, -reach, reach, "Paired differences in accuracy")


def _letter_charts(report: EvaluationReport) -> list[tuple[str, Markup]]:
    histograms = [(summary.label, summary.histogram) for summary in report.summaries]
    histograms += [("right answers", summary.target_histogram) for summary in report.summaries[-1:]]
    tallest = max((count for _, histogram in histograms for count in histogram), default=0)
    return [(label, histogram_chart(histogram, tallest, f"Letters: {label}")) for label, histogram in histograms]


def _settings(report: EvaluationReport) -> dict[str, str]:
    merge = report.merge
    return {
        **{name: "default" if value is None else str(value) for name, value in asdict(merge.settings).items()},
        "dataset": _portable(merge.settings.dataset or "the task's own"),
        "task": _task_name(report),
        "task version": merge.task_version,
        "questions and prompts, sha256": merge.task_hash,
        "task source, sha256": merge.task_digest or "lm-eval's own",
        "data, sha256": merge.questions_digest or "the task's own",
        **{f"{evaluation.label}, sha256": evaluation.model_digest for evaluation in report.evaluations},
        **merge.versions,
    }


def _short_names(report: EvaluationReport) -> dict[str, str]:
    """Return label -> its last part if those are distinct, else the whole label; long pair names fill the page."""
    names = {evaluation.label: evaluation.label.rstrip("/").rpartition("/")[2] for evaluation in report.evaluations}
    return names if len(set(names.values())) == len(names) else {label: label for label in names}


def _dtype(evaluation: Evaluation) -> str:
    return evaluation.loaded_dtype or evaluation.settings.dtype


def _task_name(report: EvaluationReport) -> str:
    """Return the lm-eval task's name, also if it was given as a file."""
    return Path(report.merge.settings.task).stem


def _portable(location: str) -> str:
    """Shorten an absolute path to its name: it tells where somebody keeps a file, and often who."""
    return Path(location).name if Path(location).is_absolute() else location
