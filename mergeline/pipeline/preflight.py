"""Everything a pipeline will need, looked up before anything is moved or started."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mergeline.errors import InputError
from mergeline.evaluation.questions.dataset_reference import parse_dataset
from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.questions.task_questions import TaskQuestions, read_questions
from mergeline.merge.devices import choose_devices
from mergeline.pipeline.form import to_form
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
    questions: Questions | None
    """None: nothing is evaluated."""
    repo_id: str | None
    """Where the merge will be published, owner included; None if it will not."""

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices of this machine that the pipeline runs on, chosen once; the first loads models."""
        return choose_devices(self.pipeline.settings.execute.device)


_prepared: ContextVar[PreparedPipeline | None] = ContextVar("prepared", default=None)


@contextmanager
def prepared_beforehand(prepared: PreparedPipeline) -> Generator[None]:
    """Let :func:`prepare_pipeline` return ``prepared`` for the same pipeline, so that nothing is looked up twice."""
    token = _prepared.set(prepared)
    try:
        yield
    finally:
        _prepared.reset(token)


def prepare_pipeline(pipeline: LoadedPipeline, hub: Hub) -> PreparedPipeline:
    """Plan the merge and find all else a pipeline names; a few small requests to the Hub, no weights.

    Raises:
        InputError: With one line per problem.
        HubError: If the Hub does not answer.
    """
    known = _prepared.get()
    if known is not None and to_form(known.pipeline) == to_form(pipeline):
        return known
    settings = pipeline.settings
    max_shard_bytes = parse_size(settings.execute.max_shard_size)
    planned = plan_recipe(pipeline.recipe_text, pipeline.recipe_origin, hub, max_shard_bytes)
    evaluated = bool(settings.evaluate.tasks)
    questions = find_questions(settings.evaluate, hub) if evaluated else None
    base = None
    if evaluated and settings.evaluate.base is not None:
        known_checkpoints = {checkpoint.label: checkpoint for checkpoint in planned.checkpoints}
        base = known_checkpoints.get(settings.evaluate.base) or open_checkpoint(settings.evaluate.base, hub)
    prepared = PreparedPipeline(pipeline, planned, base, questions, _repo_id(pipeline, planned, hub))
    loads_models = evaluated or bool(settings.sample.prompts)
    if settings.execute.device.startswith("cuda") and (settings.execute.engine == "threads" or loads_models):
        _ = prepared.devices  # a GPU that is not there is said now
    return prepared


def _repo_id(pipeline: LoadedPipeline, planned: PlannedMerge, hub: Hub) -> str | None:
    """Return where the merge will be published, once its token and the sources' licences allow it."""
    publish = pipeline.settings.publish
    if publish.when == "never":
        return None
    # Asking for the user also finds a missing or refused token before hours of work.
    user = hub.whoami()
    require_publishable([source.license for source in planned.plan.sources], is_public=not publish.private)
    return publish.repo_id if "/" in publish.repo_id else f"{user}/{publish.repo_id}"


@dataclass(frozen=True)
class Questions:
    """The questions of a pipeline's lm-eval tasks: found before the merge, fetched after it, read once."""

    place: Path | PinnedRepository | None
    """A file or directory on this machine, a dataset repository, or None: the tasks' own or made-up ones."""
    dataset: str | None
    """As the pipeline names it."""
    _read: dict[str, TaskQuestions] = field(default_factory=dict[str, TaskQuestions], repr=False, compare=False)

    def of(self, task: str, hub: Hub) -> TaskQuestions:
        """Return one lm-eval task's questions, fetched and read if they have not been yet."""
        if task not in self._read:
            self._read[task] = read_questions(task, fetch_questions(self, hub), self.dataset)
        return self._read[task]


def find_questions(evaluate: Evaluate, hub: Hub) -> Questions:
    """Find the questions to be asked, and check those that are on this machine.

    Raises:
        InputError: If an lm-eval task or its questions do not exist, or a question on this machine cannot be asked.
    """
    for task in evaluate.tasks:
        find_lm_eval_task(task)
    questions = Questions(None if evaluate.dataset is None else _place_of(evaluate.dataset, hub), evaluate.dataset)
    if not isinstance(questions.place, PinnedRepository):
        for task in evaluate.tasks:
            questions.of(task, hub).check_breakdown(evaluate.breakdown, evaluate.limit)
    return questions


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


def fetch_questions(questions: Questions, hub: Hub) -> Path | None:
    """Return where the questions lie, downloading a dataset repository's data files."""
    repository = questions.place
    if not isinstance(repository, PinnedRepository):
        return repository
    data = [file.path for file in repository.files if Path(file.path).suffix in (".jsonl", ".json", ".parquet")]
    if not data:
        raise InputError(f"{repository.repo_id}: the dataset has no .jsonl, .json or .parquet file; name another.")
    return hub.download(repository, data)
