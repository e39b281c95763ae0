"""Mergeline measured against mergekit and against the physical limit; results in ``RESULTS.md``."""
