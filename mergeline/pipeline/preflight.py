"""Everything a pipeline will need, looked up before anything is moved or started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mergeline.errors import InputError
from mergeline.evaluation.questions.dataset_reference import parse_dataset
from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.questions.task_questions import read_questions
from mergeline.pipeline.language import Evaluate, LoadedPipeline
from mergeline.plan.licences import require_publishable
from mergeline.plan.planning import PlannedMerge, plan_recipe
from mergeline.sources.checkpoint import Checkpoint, open_checkpoint
from mergeline.sources.hub import Hub, PinnedRepository
from mergeline.support.text import parse_size


@dataclass(frozen=True)
class PreparedPipeline:
    """A pipeline whose every reference has been found."""

    pipeline: LoadedPipeline
    planned: PlannedMerge
    base: Checkpoint | None
    """A further model to evaluate beside the parents."""
    questions: Path | PinnedRepository | None
    """Local questions, or the dataset repository that holds them."""
    repo_id: str | None
    """Where the merge will be published, owner included; None if it will not."""


def prepare_pipeline(pipeline: LoadedPipeline, hub: Hub) -> PreparedPipeline:
    """Plan the merge and find all else a pipeline names; a few small requests to the Hub, no weights.

    Raises:
        InputError: With one line per problem.
        HubError: If the Hub does not answer.
    """
    settings = pipeline.settings
    max_shard_bytes = parse_size(settings.execute.max_shard_size)
    planned = plan_recipe(pipeline.recipe_text, pipeline.recipe_origin, hub, max_shard_bytes)
    evaluated = bool(settings.evaluate.tasks)
    questions = find_questions(settings.evaluate, hub) if evaluated else None
    base = None
    if evaluated and settings.evaluate.base is not None:
        known = {checkpoint.label: checkpoint for checkpoint in planned.checkpoints}
        base = known.get(settings.evaluate.base) or open_checkpoint(settings.evaluate.base, hub)
    repo_id = None
    if settings.publish.when != "never":
        name = settings.publish.repo_id
        # Asking for the user also finds a missing or refused token before hours of work.
        user = hub.whoami()
        sources = planned.plan.sources
        require_publishable([source.license for source in sources], is_public=not settings.publish.private)
        repo_id = name if "/" in name else f"{user}/{name}"
    return PreparedPipeline(pipeline, planned, base, questions, repo_id)


def find_questions(wanted: Evaluate, hub: Hub) -> Path | PinnedRepository | None:
    """Find the questions to be asked: a local file or directory, or a dataset repository on the Hub.

    Returns:
        None for the questions of the task itself, and for those of the built-in generator.

    Raises:
        InputError: If an lm-eval task or its questions do not exist, or a question on this machine cannot be asked.
    """
    for name in wanted.tasks:
        find_lm_eval_task(name)
    place = None if wanted.dataset is None else _place_of(wanted.dataset, hub)
    if not isinstance(place, PinnedRepository):
        for name in wanted.tasks:
            read_questions(name, place, wanted.dataset).check_breakdown(wanted.breakdown, wanted.limit)
    return place


def _place_of(dataset: str, hub: Hub) -> Path | PinnedRepository | None:
    reference = parse_dataset(dataset)
    if reference.is_generated:
        return None
    path = Path(reference.name).expanduser()
    if path.exists():
        return path
    if path.suffix in (".jsonl", ".json", ".parquet") or dataset.startswith((".", "/", "~")):
        raise InputError(f"evaluate.dataset: {path}: no such file (looked in {Path.cwd()}); check the path.")
    return hub.resolve(reference.name, reference.revision, kind="dataset")


def fetch_questions(questions: Path | PinnedRepository | None, hub: Hub) -> Path | None:
    """Return where the questions lie, downloading a dataset repository's data files."""
    if not isinstance(questions, PinnedRepository):
        return questions
    data = [file.path for file in questions.files if Path(file.path).suffix in (".jsonl", ".json", ".parquet")]
    if not data:
        raise InputError(f"{questions.repo_id}: the dataset has no .jsonl, .json or .parquet file; name another.")
    return hub.download(questions, data)
