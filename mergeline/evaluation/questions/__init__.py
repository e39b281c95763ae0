"""What models are asked: lm-eval tasks, datasets and their questions."""
