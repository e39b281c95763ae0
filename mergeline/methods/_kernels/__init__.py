"""Arithmetic that several merge methods share."""
