"""Evaluations as text, as a page and as published JSON."""
