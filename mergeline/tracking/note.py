"""The descriptions, in Markdown, of a merge's run and of its experiment."""

from __future__ import annotations

from mergeline.evaluation.results import Comparison, EvaluationReport
from mergeline.sources.identity import SourceIdentity
from mergeline.tracking.record import MergeRecord
from mergeline.tracking.summary import portable

EXPERIMENT_NOTE = """\
Each run is one merge; beneath it is a run for every model that was asked the same questions.

To compare merges, tick them and press Compare: settings that differ are lined up with the scores. Parallel \
coordinates of a setting, e.g. `t`, against `.../acc` show a family at a glance. A score is a difference only where \
the verdict says `better` or `worse`.
"""


def merge_note(record: MergeRecord) -> str:
    """Write the description of a merge's run: sources, publication, results, recipe."""
    sources = ", ".join(_linked(source, record.hub_url) for source in record.manifest.sources)
    paragraphs = [f"**{record.manifest.merge_method}** of {sources}"]
    if (published := record.publication) is not None:
        paragraphs.append(f"Published as [`{published.repo_id}`]({published.url}) at commit `{published.commit}`")
    if address := record.tags.get("prefect.flow_run_url"):
        paragraphs.append(f"Made by a [Prefect flow run]({address})")
    for report in record.reports:
        paragraphs.append(_result_table(report))
        paragraphs.append(
            f"{report.merge.n_questions} questions; always the most frequent answer: {report.majority_accuracy:.3f}; "
            f"chance: {report.chance_accuracy:.3f}."
        )
        paragraphs.extend(f"- {flag}" for flag in report.flags)
    return "\n\n".join([*paragraphs, f"```yaml\n{record.recipe_text.strip()}\n```"])


def _linked(source: SourceIdentity, hub_url: str) -> str:
    if source.repo_id is None:
        return f"`{portable(source.label)}`"
    return f"[`{source.repo_id}`]({hub_url}/{source.repo_id}/tree/{source.commit or 'main'})"


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
