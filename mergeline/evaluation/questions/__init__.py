"""lm-eval tasks, datasets and the questions that models are asked."""
