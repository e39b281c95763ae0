"""The model card: what a merge is made of, under which terms, how it did beside its parents, how to make it again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from mergeline.evaluation.results import Comparison, Evaluation, EvaluationReport, Sample
from mergeline.merge.manifest import MANIFEST_NAME, Manifest
from mergeline.plan.licences import Licence, result_licence
from mergeline.sources.identity import SourceRecord

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

    No path of this machine is in it: a local source shows as its last path component and "(local)".

    Args:
        manifest: What the merge is made of.
        recipe_text: The recipe as written.
        name: Hub id the model is published under, or the merge's name.
        evaluations: The merge beside its parents, one report per lm-eval task.
        samples: Prompts and completions.
        links: Further records by name; ``evaluation`` is the source that the front matter gives for the scores.
    """
    licence = result_licence([source.license for source in manifest.sources])
    without_paths = _path_remover(manifest.sources)
    sections = [
        _introduction(manifest, name),
        _sources(manifest.sources, licence),
        f"## Recipe\n\n{_fenced(without_paths(recipe_text).strip(), 'yaml')}",
        *(_evaluation(report, without_paths) for report in evaluations),
        _samples(samples, without_paths),
        _use(name, is_local=any(source.repo_id is None for source in manifest.sources)),
        _record(manifest, links, without_paths),
    ]
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{_front_matter(manifest, licence, name, evaluations, links)}\n---\n\n{body}\n"


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


def _introduction(manifest: Manifest, name: str) -> str:
    count = len(manifest.sources)
    return (
        f"# {name.rpartition('/')[2]}\n\n"
        f"A merge of {count} language model{'' if count == 1 else 's'} by `{manifest.merge_method}`, made with "
        f"Mergeline {manifest.engine_version}. It has {manifest.parameter_count:,} parameters; none was trained, all "
        "were computed from the models below."
    )


def _sources(sources: Sequence[SourceRecord], licence: Licence) -> str:
    rows = [
        (_shown(source), f"`{source.commit}`" if source.commit else "", source.license or "none declared")
        for source in sources
    ]
    name = f"`{licence.identifier}`" + (f" ({licence.name})" if licence.name else "")
    return (
        f"## Sources\n\n{_table(('model', 'commit', 'licence'), rows)}\n\n"
        f"Licence of the merge: {name}. {' '.join(licence.reasons)} This is Mergeline's policy, not legal advice."
    )


def _evaluation(report: EvaluationReport, without_paths: Callable[[str], str]) -> str:
    merge, settings = report.merge, report.merge.settings
    verdicts = {comparison.reference: comparison.verdict for comparison in report.comparisons}
    dtype = "the dtype it is stored in" if settings.dtype == "auto" else settings.dtype
    is_winner = bool(verdicts) and set(verdicts.values()) == {"better"}
    scores = [
        (_cell(without_paths(evaluation.label)), *_score(evaluation, is_bold=evaluation is merge and is_winner))
        for evaluation in report.evaluations
    ]
    parts = [
        f"## Evaluation\n\n`{settings.task}`, version {merge.task_version}, by lm-eval "
        f"{merge.versions.get('lm_eval', '')}; every model answered the same questions, loaded in {dtype}.",
        _table(("model", "acc", "± stderr", "n"), scores),
        f"Always giving the most frequent answer scores {report.majority_accuracy:.3f}; guessing scores "
        f"{report.chance_accuracy:.3f}.",
    ]
    if report.comparisons:
        rows = [_compared(comparison, without_paths) for comparison in report.comparisons]
        header = ("the merge against", "difference", "95 % interval", "won / lost", "p", "verdict")
        parts.append(f"{_table(header, rows)}\n\nPaired over the questions; p by McNemar's exact test, Holm-corrected.")
    if settings.task in _TRAIN_SPLIT_TASKS:
        parts.append(
            f"`{settings.task}` uses questions of a train split as a test: the scores compare these models with each "
            "other, and say little about how they do elsewhere."
        )
    if report.flags:
        parts.append("Warnings:\n\n" + "\n".join(f"- {without_paths(flag)}" for flag in report.flags))
    return "\n\n".join(parts)


def _score(evaluation: Evaluation, *, is_bold: bool) -> tuple[str, str, str]:
    accuracy = f"{evaluation.accuracy:.3f}"
    return f"**{accuracy}**" if is_bold else accuracy, f"± {evaluation.stderr:.4f}", f"{evaluation.n_questions:,}"


def _compared(comparison: Comparison, without_paths: Callable[[str], str]) -> tuple[str, ...]:
    return (
        _cell(without_paths(comparison.reference)),
        f"{comparison.difference:+.3f}",
        f"{comparison.low:+.3f} to {comparison.high:+.3f}",
        f"{comparison.wins} / {comparison.losses}",
        f"{comparison.p_value:.2g}",
        comparison.verdict,
    )


def _samples(samples: Sequence[Sample], without_paths: Callable[[str], str]) -> str:
    """Show every prompt once, with what each model wrote after it."""
    shown: list[str] = []
    for prompt in dict.fromkeys(sample.prompt for sample in samples):
        answers = [sample for sample in samples if sample.prompt == prompt]
        length, seed = answers[0].max_new_tokens, answers[0].seed
        shown.append(f"Prompt (at most {length} tokens more, greedy, seed {seed}):\n\n{_fenced(prompt)}")
        shown += [f"{without_paths(answer.label)}:\n\n{_fenced(answer.completion)}" for answer in answers]
    return "\n\n".join(["## Samples", *shown]) if shown else ""


def _use(name: str, *, is_local: bool) -> str:
    load = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")'
    )
    return (
        f"## Use\n\n{_fenced(load, 'python')}\n\n## Rebuild\n\n{_fenced(f'mergeline reproduce {name}', 'bash')}\n\n"
        f"This merges the same sources again and compares the result with `{MANIFEST_NAME}`, byte for byte."
        + (" The local ones have to be at hand." if is_local else "")
    )


def _record(manifest: Manifest, links: Mapping[str, str], without_paths: Callable[[str], str]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in sorted(manifest.versions.items()))
    lines = [
        *(without_paths(note) for note in manifest.notes),
        f"Plan `{manifest.plan_digest}`, made {manifest.created_at} with {versions}.",
    ]
    for title, target in {**manifest.links, **links}.items():
        if target.startswith(("http://", "https://")):
            lines.append(f"[{title}]({target})")
        elif not re.search(r"[/\\]", target):
            lines.append(f"{title}: `{target}`")
    return "## Notes\n\n" + "\n".join(f"- {line}" for line in lines)


def _shown(source: SourceRecord) -> str:
    return f"`{source.repo_id}`" if source.repo_id else f"`{_last_component(source.label)}` (local)"


def _last_component(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def _path_remover(sources: Sequence[SourceRecord]) -> Callable[[str], str]:
    """Return a function that shortens local sources, and every other absolute path, wherever a text names them."""
    local = sorted((source.label for source in sources if source.repo_id is None), key=len, reverse=True)
    names = [re.escape(label) for label in local if re.search(r"[/\\]", label)]
    absolute = r"(?:~|[A-Za-z]:|\\)?[/\\][\w.@+~-]+(?:[/\\]+[\w.@+~-]+)+"
    pattern = re.compile(rf"(?<![\w./:\\~-])(?:{'|'.join([*names, absolute])})/?(?![\w/\\-])")
    return lambda text: pattern.sub(lambda found: f"{_last_component(found[0])} (local)", text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _fenced(text: str, language: str = "text") -> str:
    """Quote ``text``, whatever backticks it holds itself."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
