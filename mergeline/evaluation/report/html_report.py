"""An evaluation for people who look rather than read: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from types import MappingProxyType

from mergeline.evaluation.compare.comparison import NOT_COMPARABLE
from mergeline.evaluation.report.html_markup import portable, section, table, task_name
from mergeline.evaluation.report.html_sections import (
    breakdowns,
    changed,
    geometry_map,
    letters_and_calibration,
    sample_answers,
)
from mergeline.evaluation.report.svg_charts import Estimate, Mark, interval_chart
from mergeline.evaluation.report.tables import own_tables
from mergeline.evaluation.results import Comparison, EvaluationReport, Sample
from mergeline.evaluation.summaries import GeometryCell
from mergeline.merge.manifest import Manifest

_STYLE = Path(__file__).with_name("html_report.css")


def render_report(
    report: EvaluationReport,
    *,
    samples: Sequence[Sample] = (),
    recipe_text: str = "",
    manifest: Manifest | None = None,
    prompts: Mapping[str, str] = MappingProxyType({}),
    geometry: Sequence[GeometryCell] = (),
) -> str:
    """Return a page with everything known of an evaluation; a browser fetches nothing for it.

    Args:
        report: The merge beside its parents.
        samples: Prompts and what each model wrote after them.
        recipe_text: The recipe as written.
        manifest: What the merge is made of.
        prompts: Question's identifier -> what the models read, shown for questions that changed sides.
        geometry: Cosines between the sources by layer and kind of tensor; none: no heat map.
    """
    sections = [
        _head(report),
        _accuracy(report),
        _comparisons(report),
        breakdowns(report),
        letters_and_calibration(report),
        sample_answers(samples, report.merge.label),
        geometry_map(geometry),
        changed(report, prompts),
        _origin(report, recipe_text, manifest),
    ]
    title = f"{report.merge.label} on {task_name(report)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Even text of a model or a data set that slipped through as markup could load nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def _head(report: EvaluationReport) -> str:
    merge = report.merge
    clusters = len({answer.cluster for answer in merge.answers})
    cards = "".join(
        f'<li class="{escape(one.verdict)}"><strong>{escape(one.verdict)}</strong>{escape(_in_short(one))}</li>'
        for one in report.comparisons
    )
    flags = "".join(f"<li>{escape(flag)}</li>" for flag in report.flags)
    return (
        f'<h1>{escape(merge.label)}</h1><p class="quiet">lm-eval task {escape(task_name(report))}, '
        f"{merge.n_questions:,} questions"
        + (f" in {clusters:,} clusters" if clusters != merge.n_questions else "")
        + f", {escape(merge.loaded_dtype or merge.settings.dtype)}</p>"
        + (f'<ul class="verdicts">{cards}</ul>' if cards else "")
        + (f'<ul class="flags">{flags}</ul>' if flags else "")
    )


def _in_short(one: Comparison) -> str:
    if one.verdict == NOT_COMPARABLE:
        return f"against {one.reference}: {one.reason}"
    return (
        f"against {one.reference}: {one.difference:+.3f}, 95 % interval {one.low:+.3f} to {one.high:+.3f}; "
        f"{one.wins} won, {one.losses} lost"
    )


def _accuracy(report: EvaluationReport) -> str:
    marks = [
        Mark(report.chance_accuracy, f"chance {report.chance_accuracy:.3f}"),
        Mark(report.majority_accuracy, f"majority answer {report.majority_accuracy:.3f}"),
    ]
    if report.oracle_accuracy is not None and report.parent_comparisons:
        marks.append(Mark(report.oracle_accuracy, f"some parent right {report.oracle_accuracy:.3f}"))
    estimates = [
        Estimate(one.label, one.accuracy, one.low, one.high, f"{one.accuracy:.3f} ({one.low:.3f} to {one.high:.3f})",
                 is_accented=one.label == report.merge.label)
        for one in report.summaries
    ]  # fmt: skip
    rows = [
        (
            escape(one.label),
            f"{one.accuracy:.4f}",
            f"±{evaluation.stderr:.4f}",
            "unknown" if one.clustered_stderr is None else f"±{one.clustered_stderr:.4f}",
            f"{one.above_majority:+.3f}",
            f"{one.gold_probability:.3f}",
            f"{one.brier:.3f}",
            f"{one.calibration_error:.3f}",
            escape(evaluation.loaded_dtype or evaluation.settings.dtype),
        )
        for one, evaluation in zip(report.summaries, report.evaluations, strict=False)
    ]
    header = ("model", "acc", "stderr (lm-eval)", "stderr by cluster", "above majority", "gold probability", "Brier",
              "calibration error", "dtype")  # fmt: skip
    note = (
        '<p class="quiet">Lines are 95 % intervals, Wilson\'s, on as many independent questions as the clustered ones '
        "are worth.</p>"
    )
    return section(
        "Accuracy", interval_chart(estimates, marks, 0.0, 1.0, "Accuracy with 95 % intervals") + note
        + table(header, rows, is_merge=[one.label == report.merge.label for one in report.summaries]),
    )  # fmt: skip


def _comparisons(report: EvaluationReport) -> str:
    comparisons = (*report.comparisons, *report.parent_comparisons)
    shown = [one for one in comparisons if one.verdict != NOT_COMPARABLE]
    if not comparisons:
        return ""
    chart, names = "", _short_names(report)
    if shown:
        reach = max(0.05, *(max(abs(one.low), abs(one.high), one.margin) for one in shown))
        estimates = [
            Estimate(_pair(one, names), one.difference, one.low, one.high,
                     f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})",
                     is_accented=one.label == report.merge.label)
            for one in shown
        ]  # fmt: skip
        marks = [Mark(0.0, "equal"), Mark(-shown[0].margin, f"margin {-shown[0].margin:g}")]
        chart = interval_chart(estimates, marks, -reach, reach, "Paired differences in accuracy")
    header = ("pair", "difference", "95 % interval", "won", "lost", "both right", "both wrong", "p (McNemar)",
              "p by cluster", "detectable", "verdict", "not worse")  # fmt: skip
    note = (
        '<p class="quiet">Paired over the questions; p values exact and Holm-corrected. A verdict takes both p values '
        "below 0.05 and an interval that excludes 0. “Detectable” is the smallest true difference that such data "
        "reveals four times in five. “Not worse” means that the interval lies above minus the margin, "
        f"{comparisons[0].margin:g}.</p>"
    )
    return section("Paired differences", chart + note + table(header, [_compared(one, names) for one in comparisons]))


def _short_names(report: EvaluationReport) -> dict[str, str]:
    """Return label -> its last part, where that tells all models apart; pairs of whole labels fill the page."""
    names = {one.label: one.label.rstrip("/").rpartition("/")[2] for one in report.evaluations}
    return names if len(set(names.values())) == len(names) else {label: label for label in names}


def _pair(one: Comparison, names: Mapping[str, str]) -> str:
    return f"{names[one.label]} - {names[one.reference]}"


def _compared(one: Comparison, names: Mapping[str, str]) -> tuple[str, ...]:
    pair = escape(_pair(one, names))
    if one.verdict == NOT_COMPARABLE:
        return (pair, f"{one.difference:+.3f}", *[""] * 8, escape(f"{one.verdict}: {one.reason}"), "")
    return (
        pair,
        f"{one.difference:+.3f}",
        f"{one.low:+.3f} to {one.high:+.3f}",
        *(str(count) for count in (one.wins, one.losses, one.both_right, one.both_wrong)),
        f"{one.p_value:.2g}",
        f"{one.clustered_p_value:.2g}",
        "" if one.detectable is None else f"{one.detectable:.3f}",
        f'<span class="{escape(one.verdict)}">{escape(one.verdict)}</span>',
        "yes" if one.is_not_inferior else "not shown",
    )


def _origin(report: EvaluationReport, recipe_text: str, manifest: Manifest | None) -> str:
    merge = report.merge
    parts: list[str] = []
    if recipe_text:
        parts.append(f"<h3>Recipe</h3><pre>{escape(recipe_text.strip())}</pre>")
    if manifest is not None:
        rows = [
            (escape(portable(source.repo_id or source.label)), f"<code>{escape(source.commit or 'local')}</code>",
             escape(source.license or "none declared"))
            for source in manifest.sources
        ]  # fmt: skip
        parts.append(
            f"<h3>Lineage</h3><p>Plan <code>{escape(manifest.plan_digest)}</code>, made {escape(manifest.created_at)} "
            f"with Mergeline {escape(manifest.engine_version)}; {manifest.parameter_count:,} parameters.</p>"
            + table(("source", "commit", "licence"), rows, texts=3)
        )
    settings = {
        **{name: "default" if value is None else str(value) for name, value in asdict(merge.settings).items()},
        "dataset": portable(merge.settings.dataset or "the task's own"),
        "task": task_name(report),
        "task version": merge.task_version,
        "questions and prompts, sha256": merge.task_hash,
        "task source, sha256": merge.task_digest or "lm-eval's own",
        "data, sha256": merge.questions_digest or "the task's own",
        **{f"{one.label}, sha256": one.model_digest for one in report.evaluations},
        **merge.versions,
    }
    rows = [(escape(name), f"<code>{escape(value)}</code>") for name, value in settings.items()]
    parts.append(
        f"<details><summary>Settings, digests and versions</summary>{table(('', ''), rows, texts=2)}</details>"
    )
    if merge.prompt_source:
        parts.append(
            f"<details><summary>Source of the prompt</summary><pre>{escape(merge.prompt_source)}</pre></details>"
        )
    if tables := own_tables(report.evaluations):
        parts.append(f"<details><summary>lm-eval's own tables</summary><pre>{escape(tables)}</pre></details>")
    return section("Where it comes from", "".join(parts))
