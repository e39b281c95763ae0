"""What Prefect's forms show for the fields that several flows share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

YamlBox = Annotated[str, Field(json_schema_extra={"format": "json-string"})]
"""Shown by Prefect's form as a code editor; the text is not asked to be JSON."""

# Offered by the form, judged by the pipeline language: a Literal would refuse a file's `cuda:1`, in Prefect's words.
DeviceChoice = Annotated[str, Field(json_schema_extra={"enum": ["auto", "cpu", "cuda"]})]

EXAMPLE_RECIPE = """\
merge_method: slerp
base_model: mergeline-demo/compass
models:
  - model: mergeline-demo/compass
  - model: mergeline-demo/clock
parameters:
  t: 0.5
dtype: float32
"""
