"""Paired statistics that compare a merge with its parents."""
