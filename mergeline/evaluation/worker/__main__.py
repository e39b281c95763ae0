"""Entry point of the worker process: ``python -m mergeline.evaluation.worker REQUEST.json``.

Standard output carries lines of progress; output of the libraries goes to standard error. The result is
``result.json`` beside the request, or ``failure.json`` for an expected failure.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from mergeline.errors import EvaluationError, InputError
from mergeline.evaluation.results import EvaluationSettings
from mergeline.evaluation.worker.process import FAILURE_NAME, RESULT_NAME, TaskDataError

ORPHANED = 3
"""Exit status of a worker whose parent process has ended."""


def main(request_path: Path) -> int:
    """Run the requested job and return the exit status."""
    progress = _private_stdout()
    _exit_with_parent()
    request = json.loads(request_path.read_text("utf-8"))
    directory = request_path.parent
    job = _JOBS[request["job"]]
    try:
        _silence_libraries()
        result = job(request, progress)
    except TaskDataError as error:
        return _fail(directory, {"kind": "data", "problems": list(error.problems)})
    except InputError as error:
        return _fail(directory, {"kind": "input", "problems": list(error.problems)})
    except EvaluationError as error:
        return _fail(directory, {"kind": "run", "message": str(error)})
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail(directory, {"kind": "memory", "message": " ".join(str(error).split())})
    (directory / RESULT_NAME).write_text(json.dumps(result), "utf-8")
    return 0


def _evaluate(request: dict[str, Any], progress: TextIO) -> None:
    from mergeline.evaluation.stored_evaluation import write_evaluation
    from mergeline.evaluation.worker.fast_scoring import TokenizedPrompts
    from mergeline.evaluation.worker.loaded_model import check_device
    from mergeline.evaluation.worker.scoring import ModelRequest, score_model
    from mergeline.evaluation.worker.task import TaskRequest, build_task

    settings = EvaluationSettings(**request["settings"])
    check_device(settings.device)
    task_request = TaskRequest(**request["task"])
    task = build_task(task_request)
    tokenized = TokenizedPrompts()
    models = request["models"]
    for number, model in enumerate(models, start=1):
        label = model["label"]
        print(f"Evaluating {label} on {task.task_name} ({number} of {len(models)})", file=progress)
        to_load = ModelRequest(label, Path(model["directory"]), model["digest"])
        evaluation = score_model(task, to_load, settings, request["versions"], task_request, tokenized)
        write_evaluation(Path(model["output"]), evaluation)
        print(
            f"{label}: acc {evaluation.accuracy:.4f} ± {evaluation.stderr:.4f} on {evaluation.n_questions} questions "
            f"in {evaluation.elapsed_seconds:.1f} s",
            file=progress,
        )


def _fetch(request: dict[str, Any], progress: TextIO) -> None:
    """Build the task online, so that the datasets library caches its data."""
    from mergeline.evaluation.worker.task import TaskRequest, build_task

    print(f"Fetching the data of lm-eval task {request['task']['name']}", file=progress)
    build_task(TaskRequest(**request["task"]))


def _sample(request: dict[str, Any], progress: TextIO) -> list[str]:
    from mergeline.evaluation.worker.generation import complete
    from mergeline.evaluation.worker.loaded_model import check_device, load_model

    check_device(request["device"])
    completions: list[str] = []
    for entry in request["models"]:
        print(f"Sampling {entry['label']}", file=progress)
        model, tokenizer = load_model(entry["label"], Path(entry["directory"]), request["dtype"], request["device"])
        for prompt in request["prompts"]:
            completions.append(complete(model, tokenizer, prompt, request["max_new_tokens"], request["seed"]))
        del model
    return completions


_JOBS: dict[str, Callable[[dict[str, Any], TextIO], Any]] = {
    "evaluate": _evaluate,
    "fetch": _fetch,
    "sample": _sample,
}


def _private_stdout() -> TextIO:
    """Reserve standard output for progress and redirect other output to standard error."""
    progress = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return progress


def _exit_with_parent() -> None:
    """Exit as soon as standard input ends: after a killed parent no model may stay on the device."""

    def wait() -> None:
        # Not sys.stdin: the lock that a reading thread holds on it aborts the interpreter's shutdown.
        os.read(0, 1)
        os._exit(ORPHANED)

    threading.Thread(target=wait, daemon=True).start()


def _silence_libraries() -> None:
    from transformers.utils import logging as transformers_logging

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ``error`` means that the device or the host is out of memory."""
    # torch has a class only for devices; its CPU allocator raises a RuntimeError with this message.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _fail(directory: Path, failure: dict[str, Any]) -> int:
    (directory / FAILURE_NAME).write_text(json.dumps(failure), "utf-8")
    return 1


if __name__ == "__main__":
    # The result is on disk; the regular shutdown of torch would take two more seconds.
    os._exit(main(Path(sys.argv[1])))
