"""The parts of the report page that show answers one by one or kind by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mergeline.evaluation.compare.changed_questions import ChangedQuestion, changed_questions, letter
from mergeline.evaluation.report.html_markup import figures, section, table
from mergeline.evaluation.report.svg_charts import calibration_chart, heat_map, histogram_chart
from mergeline.evaluation.results import Answer, EvaluationReport, Sample
from mergeline.evaluation.summaries import Breakdown, GeometryCell

CHANGED_SHOWN = 40
"""Questions that changed sides are listed up to so many."""


def breakdowns(report: EvaluationReport) -> str:
    """Show accuracy by kind of question, and what is left of each parent's strengths."""
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
            + table(("parent", "strong on", "questions", "parent", "merge", "kept"), rows, texts=2)
        )
    return section("By kind of question", "".join(parts)) if parts else ""


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


def letters_and_calibration(report: EvaluationReport) -> str:
    """Show how often each letter was given, and how far each model's certainty is justified."""
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
    return section(
        "Letters given, and how sure the models are",
        figures(letters)
        + '<h3>Calibration</h3><p class="quiet">Share of right answers over the probability of the chosen letter; '
        "points on the diagonal know how much they know, points below it are too sure.</p>" + figures(curves),
    )


def geometry_map(cells: Sequence[GeometryCell]) -> str:
    """Show how far apart the sources are, by layer and kind of tensor; nothing where nothing was measured."""
    if not cells:
        return ""
    chart = heat_map(cells, "Cosine between the sources")
    return section("How far apart the sources are", f'<div class="scroll">{chart}</div>')


def changed(report: EvaluationReport, prompts: Mapping[str, str]) -> str:
    """List the questions that the merge and a parent do not both get right or wrong, losses first."""
    found = changed_questions(report)
    if not found:
        return ""
    labels = list(found[0].answers)
    header = "".join(f"<th{' class=text' if not number else ''}>{escape(text)}</th>"
                     for number, text in enumerate(("question", "right", *labels)))  # fmt: skip
    # Losses first: they are the price.
    first = sorted(found, key=lambda one: not one.lost_against)[:CHANGED_SHOWN]
    rows = "".join(_changed_row(one, prompts.get(one.question, "")) for one in first)
    lost = sum(bool(one.lost_against) for one in found)
    count = f"{len(found):,} questions: {len(found) - lost:,} won against a parent, {lost:,} lost."
    more = f" The first {CHANGED_SHOWN} are listed." if len(found) > CHANGED_SHOWN else ""
    return section(
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


def sample_answers(samples: Sequence[Sample], merge: str) -> str:
    """Show what each model wrote after each prompt, side by side."""
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
    return section("What the models write", "".join(parts)) if parts else ""
