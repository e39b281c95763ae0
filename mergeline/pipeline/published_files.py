"""What is published or shown beside a merged model: its card, every answer behind the scores, pages for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergeline.evaluation.results import EvaluationReport, Sample
from mergeline.merge.geometry import read_geometry
from mergeline.merge.merging import MergedModel
from mergeline.pipeline.preflight import PreparedPipeline
from mergeline.sources.hub import Hub
from mergeline.support.durable import write_whole
from mergeline.support.state import state_folder
from mergeline.tracking.summary import evaluation_folder


def published_files(
    prepared: PreparedPipeline, merged: MergedModel, reports: Sequence[EvaluationReport], samples: Sequence[Sample]
) -> dict[str, bytes]:
    """Return what is published beside the model: its card, and every answer behind the scores."""
    from mergeline.evaluation.report.public_report import public_json

    files = {"README.md": model_card(prepared, merged, reports, samples).encode()}
    for report in reports:
        files[f"eval/{report.merge.settings.task}.json"] = public_json(report).encode()
    return files


def model_card(
    prepared: PreparedPipeline, merged: MergedModel, reports: Sequence[EvaluationReport], samples: Sequence[Sample]
) -> str:
    """Return the merge's model card, the same however often it is made."""
    from mergeline.publish.card import render_card

    name = prepared.repo_id or prepared.pipeline.settings.name
    recipe_text = prepared.planned.recipe_text
    return render_card(merged.manifest, recipe_text, name=name, evaluations=reports, samples=samples)


def report_pages(
    prepared: PreparedPipeline, merged: MergedModel, reports: Sequence[EvaluationReport], samples: Sequence[Sample]
) -> dict[str, str]:
    """Return one self-contained HTML page per lm-eval task, and keep it beside the merge's other records."""
    questions = prepared.questions
    if questions is None:
        return {}
    from mergeline.evaluation.report.html_report import render_report

    geometry, hub = read_geometry(merged.directory), Hub()
    pages = {
        f"{evaluation_folder(report)}/report.html": render_report(
            report,
            samples=samples,
            recipe_text=prepared.planned.recipe_text,
            manifest=merged.manifest,
            prompts=questions.of(report.merge.settings.task, hub).prompts(),
            geometry=geometry,
        )
        for report in reports
    }
    for name, page in pages.items():
        path = _reports_folder(merged.directory) / Path(name).parent.name / "report.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    return pages


def report_files(directory: Path) -> list[Path]:
    """Return the pages kept on this machine of a merge's evaluations, one per lm-eval task."""
    return sorted(_reports_folder(directory).glob("*/report.html"))


def _reports_folder(directory: Path) -> Path:
    return state_folder("reports") / directory.name
