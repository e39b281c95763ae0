"""Durable files, locks, digests, paths of state, YAML with positions, text, dtypes and secrets."""
