"""Prefect's settings, made before any test module imports it."""

import tests.fixtures.prefect_settings  # noqa: F401
