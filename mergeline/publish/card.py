"""The model card: a merge's sources, licence, evaluation beside its parents, and how to rebuild it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from markupsafe import Markup

from mergeline.evaluation.results import EvaluationReport, Sample
from mergeline.merge.manifest import MANIFEST_NAME, Manifest
from mergeline.plan.licences import Licence, result_licence
from mergeline.sources.identity import SourceIdentity
from mergeline.support.markdown import code_block, code_span, escape_markdown, link
from mergeline.support.templates import load_template
from mergeline.support.text import table

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TRAIN_SPLIT_TASKS = ("spartqa_train",)


def render_card(
    manifest: Manifest,
    recipe_text: str,
    *,
    name: str,
    evaluations: Sequence[EvaluationReport] = (),
    samples: Sequence[Sample] = (),
    links: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return README.md of a merge: YAML front matter that the Hub reads, then Markdown.

    It contains no path of this machine: a local source shows as its last path component and "(local)". Text from
    outside (labels, licences, notes, completions) is escaped and brings no Markdown or HTML of its own.

    Args:
        manifest: The merge's sources, plan and versions.
        recipe_text: The recipe as written.
        name: Hub id the model is published under, or the merge's name.
        evaluations: The merge beside its parents, one report per lm-eval task.
        samples: Prompts and completions.
        links: Further records by name; ``evaluation`` is the source that the front matter gives for the scores.
    """
    licence = result_licence([source.license for source in manifest.sources])
    without_paths = _path_remover(manifest.sources)
    samples_by_prompt: dict[str, list[Sample]] = {}
    for sample in samples:
        samples_by_prompt.setdefault(sample.prompt, []).append(sample)
    filters: dict[str, Callable[..., str]] = {"without_paths": without_paths}
    filters |= {"code": _markup(code_span), "block": _markup(code_block), "link": _markup(link)}
    return load_template(Path(__file__).with_name("card.md"), filters, finalize=_escaped).render(
        MANIFEST_NAME=MANIFEST_NAME,
        TRAIN_SPLIT_TASKS=_TRAIN_SPLIT_TASKS,
        front_matter=Markup(_front_matter(manifest, licence, name, evaluations, links)),
        name=name,
        short_name=name.rpartition("/")[2],
        manifest=manifest,
        licence=licence,
        source_table=_source_table(manifest.sources),
        recipe_text=without_paths(recipe_text).strip(),
        reports=evaluations,
        score_table=partial(_score_table, without_paths=without_paths),
        comparison_table=partial(_comparison_table, without_paths=without_paths),
        samples_by_prompt=samples_by_prompt,
        usage=_USAGE.format(name=name),
        is_local=any(source.repo_id is None for source in manifest.sources),
        versions=", ".join(f"{package} {version}" for package, version in sorted(manifest.versions.items())),
        links={**manifest.links, **links},
    )


_USAGE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")"""


def _escaped(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape_markdown(str(value)))


def _markup(render: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *texts: Markup(render(*texts))


def _front_matter(
    manifest: Manifest, licence: Licence, name: str, reports: Sequence[EvaluationReport], links: Mapping[str, str]
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    def result(report: EvaluationReport) -> EvalResult:
        settings = report.merge.settings
        is_on_hub = settings.dataset is not None and _HUB_ID.fullmatch(settings.dataset) is not None
        source_url = links.get("evaluation")
        return EvalResult(
            task_type="text-generation",
            task_name="Text Generation",
            dataset_type=str(settings.dataset) if is_on_hub else settings.task,
            dataset_name=f"{settings.task} ({report.merge.n_questions:,} questions)",
            dataset_split="train" if settings.task in _TRAIN_SPLIT_TASKS else None,
            metric_type="acc",
            metric_name="acc",
            metric_value=round(report.merge.accuracy, 4),
            source_name=f"lm-eval {report.merge.versions.get('lm_eval', '')}".strip() if source_url else None,
            source_url=source_url,
        )

    return ModelCardData(
        base_model=list(dict.fromkeys(source.repo_id for source in manifest.sources if source.repo_id)) or None,
        base_model_relation="merge",
        license=licence.identifier,
        license_name=licence.name,
        license_link="README.md" if licence.name else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["merge", "mergeline", manifest.merge_method],
        model_name=name.rpartition("/")[2],
        eval_results=[result(report) for report in reports] or None,
    ).to_yaml()


def _source_table(sources: Sequence[SourceIdentity]) -> Markup:
    rows = [
        (
            code_span(source.repo_id) if source.repo_id else f"{code_span(_last_component(source.label))} (local)",
            code_span(source.commit) if source.commit else "",
            escape_markdown(source.license or "none declared"),
        )
        for source in sources
    ]
    return Markup("\n".join(table(("model", "commit", "licence"), rows)))


def _score_table(report: EvaluationReport, without_paths: Callable[[str], str]) -> Markup:
    verdicts = {comparison.verdict for comparison in report.comparisons}
    rows: list[tuple[str, ...]] = []
    for evaluation in report.evaluations:
        accuracy = f"{evaluation.accuracy:.3f}"
        rows.append(
            (
                escape_markdown(without_paths(evaluation.label)),
                f"**{accuracy}**" if evaluation is report.merge and verdicts == {"better"} else accuracy,
                f"± {evaluation.stderr:.4f}",
                f"{evaluation.n_questions:,}",
            )
        )
    return Markup("\n".join(table(("model", "acc", "± stderr", "n"), rows)))


def _comparison_table(report: EvaluationReport, without_paths: Callable[[str], str]) -> Markup:
    rows = [
        (
            escape_markdown(without_paths(comparison.reference)),
            f"{comparison.difference:+.3f}",
            f"{comparison.low:+.3f} to {comparison.high:+.3f}",
            f"{comparison.wins} / {comparison.losses}",
            f"{comparison.p_value:.2g}",
            comparison.verdict,
        )
        for comparison in report.comparisons
    ]
    return Markup(
        "\n".join(table(("the merge against", "difference", "95 % interval", "won / lost", "p", "verdict"), rows))
    )


def _last_component(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def _path_remover(sources: Sequence[SourceIdentity]) -> Callable[[str], str]:
    """Return a function that shortens local sources, and every other absolute path, wherever a text names them."""
    local = sorted((source.label for source in sources if source.repo_id is None), key=len, reverse=True)
    names = [re.escape(label) for label in local if re.search(r"[/\\]", label)]
    absolute = r"(?:~|[A-Za-z]:|\\)?[/\\][\w.@+~-]+(?:[/\\]+[\w.@+~-]+)+"
    pattern = re.compile(rf"(?<![\w./:\\~-])(?:{'|'.join([*names, absolute])})/?(?![\w/\\-])")
    return lambda text: pattern.sub(lambda match: f"{_last_component(match[0])} (local)", text)
