"""Every error Mergeline raises on purpose.

    MergelineError
    ├── InputError (ValueError)          the user can mend it; nothing was written; exit status 2
    │   ├── RecipeError                  the recipe's text or settings
    │   ├── PipelineError                the pipeline's text or settings
    │   ├── CheckpointError              a source's files are missing, malformed or unsupported
    │   ├── PlanError                    recipe and checkpoints do not fit each other
    │   │   ├── MissingTensorError
    │   │   └── ShapeMismatchError
    │   ├── OutputError                  the place to write to is taken or unusable
    │   ├── RepositoryError              a Hub repository is missing, gated, or its revision unknown
    │   ├── EvaluationInputError         lm-eval task, data or model cannot be evaluated
    │   └── TrackingInputError           the MLflow store named is not one that can be used
    └── RunError (RuntimeError)          the work itself failed; exit status 1
        ├── HubError                     the Hub did not answer as it should
        │   └── TransientHubError        worth another try: time-out, 429, 5xx
        ├── MergeError                   a shard could not be merged or written
        ├── VerificationError            what was written is not what was planned
        ├── EvaluationError              lm-eval failed or gave scores that cannot be used
        └── TrackingError                MLflow did not answer, or refused a record

A message says what, where, expected against found, and what to do next, in one line per problem.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CheckpointError",
    "EvaluationError",
    "EvaluationInputError",
    "HubError",
    "InputError",
    "MergeError",
    "MergelineError",
    "MissingTensorError",
    "OutputError",
    "PipelineError",
    "PlanError",
    "RecipeError",
    "RepositoryError",
    "RunError",
    "ShapeMismatchError",
    "TrackingError",
    "TrackingInputError",
    "TransientHubError",
    "VerificationError",
]


class MergelineError(Exception):
    """Base of all errors a user may see; ``str()`` is what the user reads."""

    exit_status = 1


class InputError(MergelineError, ValueError):
    """Bad input, found before anything was written.

    ``str()`` gives one line per problem, so that every problem is reported at once.
    """

    exit_status = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        # One positional argument keeps the exception picklable across processes.
        super().__init__(problems)
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RecipeError(InputError):
    """The recipe cannot be read as mergekit's YAML language."""


class PipelineError(InputError):
    """The pipeline file, form or option cannot be read."""


class CheckpointError(InputError):
    """A checkpoint is missing, malformed or of a kind that is not supported."""


class PlanError(InputError):
    """The recipe and its checkpoints do not fit each other."""


class MissingTensorError(PlanError):
    """A checkpoint lacks a tensor that the merge needs."""


class ShapeMismatchError(PlanError):
    """Two checkpoints hold the same tensor in different shapes."""


class OutputError(InputError):
    """The output directory is taken by something else, or cannot be written."""


class RepositoryError(InputError):
    """A Hub repository or revision does not exist, or may not be read or written."""


class EvaluationInputError(InputError):
    """The lm-eval task, its data or the model cannot be evaluated as asked."""


class TrackingInputError(InputError):
    """The MLflow store named cannot be used: another kind of address, no database, a deleted experiment."""


class RunError(MergelineError, RuntimeError):
    """The work was well described and failed all the same."""


class HubError(RunError):
    """The Hub refused or failed a request."""


class TransientHubError(HubError):
    """The Hub was unreachable, too busy or failing; trying again may succeed."""


class MergeError(RunError):
    """A shard could not be merged or written."""


class VerificationError(RunError):
    """What was written differs from what was planned."""


class EvaluationError(RunError):
    """lm-eval failed, or gave scores that cannot be used."""


class TrackingError(RunError):
    """MLflow did not answer, or refused a record; the same may succeed later."""
