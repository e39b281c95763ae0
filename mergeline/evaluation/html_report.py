"""An evaluation for people who look rather than read: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from types import MappingProxyType

from mergeline.evaluation.changed_questions import ChangedQuestion, changed_questions, letter
from mergeline.evaluation.comparison import NOT_COMPARABLE
from mergeline.evaluation.records import Answer, Comparison, EvaluationReport, Sample
from mergeline.evaluation.report_records import Breakdown, GeometryCell
from mergeline.evaluation.svg_charts import (
    Estimate,
    Mark,
    calibration_chart,
    heat_map,
    histogram_chart,
    interval_chart,
)
from mergeline.evaluation.tables import own_tables
from mergeline.lineage import Manifest

CHANGED_SHOWN = 40
"""Questions that changed sides are listed up to so many."""

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
        _breakdowns(report),
        _answers(report),
        _samples(samples, report.merge.label),
        _geometry(geometry),
        _changed(report, prompts),
        _origin(report, recipe_text, manifest),
    ]
    title = f"{report.merge.label} on {_task(report)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Even text of a model or a data set that slipped through as markup could load nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
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
        f'<h1>{escape(merge.label)}</h1><p class="quiet">lm-eval task {escape(_task(report))}, '
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
    return _section(
        "Accuracy", interval_chart(estimates, marks, 0.0, 1.0, "Accuracy with 95 % intervals") + note
        + _table(header, rows, is_merge=[one.label == report.merge.label for one in report.summaries]),
    )  # fmt: skip


def _comparisons(report: EvaluationReport) -> str:
    comparisons = (*report.comparisons, *report.parent_comparisons)
    shown = [one for one in comparisons if one.verdict != NOT_COMPARABLE]
    if not comparisons:
        return ""
    chart = ""
    if shown:
        reach = max(0.05, *(max(abs(one.low), abs(one.high), one.margin) for one in shown))
        estimates = [
            Estimate(f"{one.label} - {one.reference}", one.difference, one.low, one.high,
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
    return _section("Paired differences", chart + note + _table(header, [_compared(one) for one in comparisons]))


def _compared(one: Comparison) -> tuple[str, ...]:
    pair = escape(f"{one.label} - {one.reference}")
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


def _breakdowns(report: EvaluationReport) -> str:
    parts = [_breakdown(one, report.merge.label) for one in report.breakdowns]
    if report.retentions:
        rows = [
            (escape(one.parent), escape(f"{one.column} = {one.value or '(none)'}"), str(one.n_questions),
             f"{one.parent_accuracy:.3f}", f"{one.merge_accuracy:.3f}", f"{one.share:.0%}")
            for one in report.retentions
        ]  # fmt: skip
        parts.append(
            '<h3>What is left of each parent\'s strengths</h3><p class="quiet">Kinds of question that one parent '
            "answers better than the others do.</p>"
            + _table(("parent", "strong on", "questions", "parent", "merge", "kept"), rows, texts=2)
        )
    return _section("By kind of question", "".join(parts)) if parts else ""


def _breakdown(breakdown: Breakdown, merge: str) -> str:
    labels = [score.label for score in breakdown.slices[0].scores]
    header = "".join(f"<th>{escape(text)}</th>" for text in (breakdown.column, "questions", *labels))
    rows: list[str] = []
    for one in breakdown.slices:
        cells = "".join(
            f'<td class="{"merge" if score.label == merge else ""}">{score.accuracy:.3f}'
            f"<small>{score.low:.2f} to {score.high:.2f}</small>"
            f'<span class="fill"><i style="width:{100 * score.accuracy:.0f}%"></i></span></td>'
            for score in one.scores
        )
        rows.append(f"<tr><td>{escape(one.value) or '(none)'}</td><td>{one.n_questions}</td>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{header}</tr>{"".join(rows)}</table></div><p></p>'


def _answers(report: EvaluationReport) -> str:
    if not report.summaries:
        return ""
    counts = [(one.label, one.histogram) for one in report.summaries]
    counts.append(("right answers", report.summaries[-1].target_histogram))
    tallest = max(count for _, histogram in counts for count in histogram)
    letters = [(label, histogram_chart(histogram, tallest, f"Letters: {label}")) for label, histogram in counts]
    curves = [
        (f"{one.label}: error {one.calibration_error:.3f}", calibration_chart(one.calibration, one.label))
        for one in report.summaries
    ]
    return _section(
        "Letters given, and how sure the models are",
        _figures(letters)
        + '<h3>Calibration</h3><p class="quiet">Share of right answers over the probability of the chosen letter; '
        "points on the diagonal know how much they know, points below it are too sure.</p>" + _figures(curves),
    )


def _geometry(cells: Sequence[GeometryCell]) -> str:
    if not cells:
        return ""
    chart = heat_map(cells, "Cosine between the sources")
    return _section("How far apart the sources are", f'<div class="scroll">{chart}</div>')


def _changed(report: EvaluationReport, prompts: Mapping[str, str]) -> str:
    changed = changed_questions(report)
    if not changed:
        return ""
    labels = list(changed[0].answers)
    header = "".join(f"<th{' class=text' if not number else ''}>{escape(text)}</th>"
                     for number, text in enumerate(("question", "right", *labels)))  # fmt: skip
    # Losses first: they are the price.
    first = sorted(changed, key=lambda one: not one.lost_against)[:CHANGED_SHOWN]
    rows = "".join(_changed_row(one, prompts.get(one.question, "")) for one in first)
    lost = sum(bool(one.lost_against) for one in changed)
    count = f"{len(changed):,} questions: {len(changed) - lost:,} won against a parent, {lost:,} lost."
    more = f" The first {CHANGED_SHOWN} are listed." if len(changed) > CHANGED_SHOWN else ""
    return _section(
        "Questions that changed sides",
        f'<p class="quiet">{count}{more} Log-probabilities of A, B, C, D in nats; the chosen one underlined.</p>'
        f'<div class="scroll"><table><tr>{header}</tr>{rows}</table></div>',
    )


def _changed_row(one: ChangedQuestion, prompt: str) -> str:
    name = escape(one.question)
    shown = f"<details><summary>{name}</summary><pre>{escape(prompt)}</pre></details>" if prompt else name
    cells = "".join(
        f'<td class="{"right" if answer.is_correct else "wrong"}">{_log_probabilities(answer)}</td>'
        for answer in one.answers.values()
    )
    return f"<tr><td>{shown}</td><td>{letter(one.target)}</td>{cells}</tr>"


def _log_probabilities(answer: Answer) -> str:
    # Adding 0.0 turns -0.0 into 0.
    texts = [f"{round(value, 2) + 0.0:.2f}" for value in answer.log_probabilities]
    texts[answer.prediction] = f'<span class="given">{texts[answer.prediction]}</span>'
    return " ".join(texts)


def _samples(samples: Sequence[Sample], merge: str) -> str:
    parts: list[str] = []
    for prompt in dict.fromkeys(sample.prompt for sample in samples):
        answers = [sample for sample in samples if sample.prompt == prompt]
        boxes = "".join(
            f"<div{' class=merge' if one.label == merge else ''}><b>{escape(one.label)}</b>"
            f"<pre>{escape(one.completion)}</pre></div>"
            for one in answers
        )
        one = answers[0]
        settings = f"{one.decoding}, at most {one.max_new_tokens} new tokens, seed {one.seed}, dtype {one.dtype}"
        parts.append(
            f'<h3>“{escape(prompt)}”</h3><p class="quiet">{escape(settings)}</p><div class="side">{boxes}</div>'
        )
    return _section("What the models write", "".join(parts)) if parts else ""


def _origin(report: EvaluationReport, recipe_text: str, manifest: Manifest | None) -> str:
    merge = report.merge
    parts: list[str] = []
    if recipe_text:
        parts.append(f"<h3>Recipe</h3><pre>{escape(recipe_text.strip())}</pre>")
    if manifest is not None:
        rows = [
            (escape(_portable(source.repo_id or source.label)), f"<code>{escape(source.commit or 'local')}</code>",
             escape(source.license or "none declared"))
            for source in manifest.sources
        ]  # fmt: skip
        parts.append(
            f"<h3>Lineage</h3><p>Plan <code>{escape(manifest.plan_digest)}</code>, made {escape(manifest.created_at)} "
            f"with Mergeline {escape(manifest.engine_version)}; {manifest.parameter_count:,} parameters.</p>"
            + _table(("source", "commit", "licence"), rows, texts=3)
        )
    settings = {
        **{name: "default" if value is None else str(value) for name, value in asdict(merge.settings).items()},
        "dataset": _portable(merge.settings.dataset or "the task's own"),
        "task": _task(report),
        "task version": merge.task_version,
        "questions and prompts, sha256": merge.task_hash,
        "task source, sha256": merge.task_digest or "lm-eval's own",
        "data, sha256": merge.questions_digest or "the task's own",
        **{f"{one.label}, sha256": one.model_digest for one in report.evaluations},
        **merge.versions,
    }
    rows = [(escape(name), f"<code>{escape(value)}</code>") for name, value in settings.items()]
    parts.append(
        f"<details><summary>Settings, digests and versions</summary>{_table(('', ''), rows, texts=2)}</details>"
    )
    if merge.prompt_source:
        parts.append(
            f"<details><summary>Source of the prompt</summary><pre>{escape(merge.prompt_source)}</pre></details>"
        )
    if tables := own_tables(report.evaluations):
        parts.append(f"<details><summary>lm-eval's own tables</summary><pre>{escape(tables)}</pre></details>")
    return _section("Where it comes from", "".join(parts))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, is_merge: Sequence[bool] = (), texts: int = 1
) -> str:
    """Return a table of cells that are markup already; the first ``texts`` columns hold text, the others numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if 0 < number < texts else ''}>{cell}</{tag}>" for number, cell in enumerate(cells)
        )

    lines = [
        f"<tr{' class=merge' if number < len(is_merge) and is_merge[number] else ''}>{line('td', row)}</tr>"
        for number, row in enumerate(rows)
    ]
    head = line("th", [escape(text) for text in header])
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _figures(charts: Sequence[tuple[str, str]]) -> str:
    figures = "".join(f"<figure>{chart}<figcaption>{escape(label)}</figcaption></figure>" for label, chart in charts)
    return f'<div class="charts">{figures}</div>'


def _task(report: EvaluationReport) -> str:
    return Path(report.merge.settings.task).stem


def _portable(location: str) -> str:
    # An absolute path says where one machine keeps a file, and often whose machine it is.
    return Path(location).name if Path(location).is_absolute() else location
