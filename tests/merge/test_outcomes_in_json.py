"""What was measured of a tensor, written to the journal and to geometry.jsonl, and read back."""

from __future__ import annotations

from math import inf
from pathlib import Path

from mergeline.merge.geometry import GEOMETRY_NAME, TensorGeometry, geometry_lines, read_geometry
from mergeline.merge.shard_file import ShardFile, Span, TensorOutcome


def test_an_infinite_norm_survives_the_journal(tmp_path: Path) -> None:
    outcome = TensorOutcome("a", "linear", (0.1, 1e-5), (inf, 2.0), ((0.0, inf), (inf, 0.0)), (inf, 1.0))
    spans = [Span("a", 8, 4), Span("b", 12, 4)]
    with ShardFile(tmp_path / "shard", "key", bytes(8), spans) as file:
        writer = file.begin("a")
        writer.write(memoryview(bytes(4)))
        file.finish(writer, outcome)
    with ShardFile(tmp_path / "shard", "key", bytes(8), spans) as file:
        assert file.outcomes == {"a": outcome}


def test_an_infinite_norm_survives_the_geometry_file(tmp_path: Path) -> None:
    tensor = TensorGeometry("a", None, "a", "linear", None, 0.5, 60.0, (inf, 2.0), inf, (0.0, 1e-5))
    (tmp_path / GEOMETRY_NAME).write_text(geometry_lines([tensor, tensor]))
    assert read_geometry(tmp_path) == (tensor, tensor)
