"""The prompts of ``spartqa_train`` as the models read them, for a report that shows questions."""

from __future__ import annotations

from pathlib import Path

from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text
from mergeline.evaluation.questions.task_questions import task_questions
from mergeline.evaluation.results import EvaluationSettings


def question_prompts(settings: EvaluationSettings, questions: Path | None) -> dict[str, str]:
    """Return question's identifier -> prompt; empty for any other lm-eval task, whose prompts its own code makes.

    Args:
        settings: Of the evaluation; its dataset may name the built-in generator.
        questions: The data file or downloaded dataset repository; None where the questions are generated.
    """
    task = find_lm_eval_task(settings.task)
    if not task.needs_questions:
        return {}
    rows = task_questions(task, questions, settings.dataset) or ()
    return {str(row["id"]): doc_to_text(row) for row in rows}
