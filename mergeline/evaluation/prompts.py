"""The prompts of ``spartqa_train`` as the models read them, for a report that shows questions."""

from __future__ import annotations

from pathlib import Path

from mergeline.evaluation.dataset_reference import parse_dataset
from mergeline.evaluation.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text
from mergeline.evaluation.questions import load_questions
from mergeline.evaluation.records import EvaluationSettings


def question_prompts(settings: EvaluationSettings, questions: Path | None) -> dict[str, str]:
    """Return question's identifier -> prompt; empty for any other lm-eval task, whose prompts its own code makes.

    Args:
        settings: Of the evaluation; its dataset may name the built-in generator.
        questions: The data file or downloaded dataset repository; None where the questions are generated.
    """
    if not find_lm_eval_task(settings.task).needs_questions or settings.dataset is None:
        return {}
    reference = parse_dataset(settings.dataset)
    if questions is not None:
        rows = load_questions(questions)
    elif reference.is_generated:
        rows = reference.generate()
    else:
        return {}
    return {str(row["id"]): doc_to_text(row) for row in rows}
