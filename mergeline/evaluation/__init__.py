"""lm-eval on a model, its parents beside it, and what can honestly be said of the difference."""

from mergeline.evaluation.changed_questions import ChangedQuestion, changed_questions, question_rows
from mergeline.evaluation.comparison import compare, report
from mergeline.evaluation.dataset_reference import DatasetReference, parse_dataset
from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.html_report import render_report
from mergeline.evaluation.model_directory import model_digest
from mergeline.evaluation.prompts import question_prompts
from mergeline.evaluation.records import (
    Answer,
    Comparison,
    Evaluation,
    EvaluationReport,
    EvaluationSettings,
    Sample,
)
from mergeline.evaluation.report_records import GeometryCell
from mergeline.evaluation.sample import DEFAULT_PROMPTS, sample_models
from mergeline.evaluation.stored_evaluation import evaluation_from_json
from mergeline.evaluation.tables import comparison_line, report_text, results_table

__all__ = [
    "DEFAULT_PROMPTS",
    "Answer",
    "ChangedQuestion",
    "Comparison",
    "DatasetReference",
    "Evaluation",
    "EvaluationReport",
    "EvaluationSettings",
    "GeometryCell",
    "ModelToEvaluate",
    "Sample",
    "changed_questions",
    "compare",
    "comparison_line",
    "evaluate_models",
    "evaluation_from_json",
    "model_digest",
    "parse_dataset",
    "question_prompts",
    "question_rows",
    "render_report",
    "report",
    "report_text",
    "results_table",
    "sample_models",
]
