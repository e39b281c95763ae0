"""The version of all merge arithmetic."""

from __future__ import annotations

NUMERICS_VERSION = 2
"""Raised whenever the same plan would give other bytes, so that no stale shard is ever reused."""
