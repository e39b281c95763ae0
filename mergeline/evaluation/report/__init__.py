"""Evaluation reports as text, as an HTML page and as published JSON."""
