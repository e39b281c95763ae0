"""Everything that MLflow receives of one merge, as a record that is kept on disk until it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from mergeline.errors import OutputError
from mergeline.evaluation.results import EvaluationReport, Sample
from mergeline.merge.manifest import Manifest
from mergeline.publish.publication import Publication
from mergeline.sources.identity import SourceIdentity
from mergeline.support.secrets import without_secrets

Scalar = str | float | int | bool


@dataclass(frozen=True)
class MergeRecord:
    """A finished merge: its recipe and sources, its evaluations, its publication."""

    name: str
    """Of the run; see :func:`mergeline.tracking.summary.run_name`."""
    manifest: Manifest
    recipe_text: str
    """The recipe as written."""
    plan_json: str
    timestamp_ms: int
    """When the merge ended, in milliseconds since 1970. The same whenever the record is sent: MLflow keeps one history
    point per metric, value and timestamp."""
    pipeline_text: str | None = None
    """The pipeline as it ran; None: a merge without a pipeline."""
    parameters: dict[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Settings in which this merge differs from others of its experiment, e.g. ``t.self_attn``."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Results that are equal in every run of the same merge, e.g. ``merge/bytes``."""
    measurements: dict[str, float] = field(default_factory=dict[str, float])
    """What this run cost, e.g. ``merge/seconds``; MLflow keeps the values of the first run."""
    reports: tuple[EvaluationReport, ...] = ()
    """The evaluations, one per lm-eval task; every model in them gets a child run."""
    samples: tuple[Sample, ...] = ()
    tags: dict[str, str] = field(default_factory=dict[str, str])
    """E.g. ``prefect.flow_run_id``."""
    pages: dict[str, str] = field(default_factory=dict[str, str])
    """Further files, path -> text, e.g. the evaluation as an HTML page."""
    hub_url: str = "https://huggingface.co"
    """The Hub that the sources were pinned on."""
    base: SourceIdentity | None = None
    """A model that was evaluated beside the parents and is none of them."""
    publication: Publication | None = None
    """Where it is on the Hub; None: not published."""


_RECORD = TypeAdapter(MergeRecord)


def record_json(record: MergeRecord) -> str:
    """Render a record as JSON, without secrets."""
    return without_secrets(_RECORD.dump_json(record).decode())


def parse_record(content: bytes, place: str) -> MergeRecord:
    """Read a record from JSON; :class:`OutputError` names ``place`` where that is impossible."""
    try:
        return _RECORD.validate_json(content)
    except ValidationError:
        raise OutputError(
            f"{place}: is not a record this version can read; run the merge's pipeline again, then remove it."
        ) from None


def without_private(record: MergeRecord) -> MergeRecord:
    """Return the record without secrets, fit to be stored where others read it."""
    return parse_record(record_json(record).encode(), record.name)
