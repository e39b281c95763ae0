"""A merge that was interrupted, has been made already, or is being made by another process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mergeline.errors import MergeError, OutputError
from mergeline.merge.shard import Resources, finished_shard, merge_shard
from mergeline.merge.tensor_merger import TensorMerger
from mergeline.merge.workspace import open_workspace
from mergeline.plan.merge_plan import TensorPlan
from mergeline.plan.plan_file import PLAN_NAME
from mergeline.plan.planning import plan_recipe
from mergeline.sources.hub import Hub
from tests.builders.slerp_merges import SLERP, merge, tensors_of
from tests.builders.tiny_checkpoints import make_mistral


def test_what_is_there_already_is_never_touched(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a merge of this recipe; choose another place"):
        merge(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_finished_merge_is_found_and_another_is_refused(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert merge(recipe, tmp_path / "out") == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    recipe.write_text(recipe.read_text().replace("0.3", "0.4"))
    with pytest.raises(OutputError, match="holds another merge"):
        merge(recipe, tmp_path / "out")


def test_finished_shards_are_kept_after_a_failure(recipe: Path, tmp_path: Path) -> None:
    plan = plan_recipe(recipe.read_text(), "recipe", Hub(), 50_000).plan
    sources = [tmp_path / "a", tmp_path / "b"]
    with open_workspace(plan, tmp_path / "out") as workspace:
        first = merge_shard(plan, plan.shards[0], sources, workspace.partial)
    results = merge(recipe, tmp_path / "out", max_shard_bytes=50_000)
    assert [result.is_reused for result in results] == [True] + [False] * (len(plan.shards) - 1)
    assert results[0].sha256 == first.sha256


def test_shard_of_another_plan_is_not_reused(recipe: Path, tmp_path: Path) -> None:
    plan = plan_recipe(recipe.read_text(), "recipe", Hub()).plan
    with open_workspace(plan, tmp_path / "out") as workspace:
        merge_shard(plan, plan.shards[0], [tmp_path / "a", tmp_path / "b"], workspace.partial)
        assert finished_shard(plan, plan.shards[0], workspace.partial) is not None
    recipe.write_text(recipe.read_text().replace("0.3", "0.4"))
    other = plan_recipe(recipe.read_text(), "recipe", Hub()).plan
    assert finished_shard(other, other.shards[0], workspace.partial) is None
    assert [result.is_reused for result in merge(recipe, tmp_path / "out")] == [False]


def test_two_processes_do_not_write_one_merge(recipe: Path, tmp_path: Path) -> None:
    plan = plan_recipe(recipe.read_text(), "recipe", Hub()).plan
    with open_workspace(plan, tmp_path / "out"), pytest.raises(OutputError, match="another process is writing"):
        merge(recipe, tmp_path / "out")


def test_changed_source_is_found_while_merging(recipe: Path, tmp_path: Path) -> None:
    plan = plan_recipe(recipe.read_text(), "recipe", Hub()).plan
    os.truncate(tmp_path / "b" / "model.safetensors", 5000)
    with open_workspace(plan, tmp_path / "out") as workspace, pytest.raises(MergeError, match="changed since it was"):
        merge_shard(plan, plan.shards[0], [tmp_path / "a", tmp_path / "b"], workspace.partial)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, layers=12, hidden=512, intermediate=1024)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=0.3))
    merge(recipe, tmp_path / "whole", max_shard_bytes=20_000_000)
    total = len(tensors_of(tmp_path / "whole"))
    command = [sys.executable, "-m", "mergeline", "merge", str(recipe), str(tmp_path / "out"), "--quiet"]
    command += ["--max-shard-size", "20MB", "--workers", "2"]
    partial = tmp_path / ".out.partial"
    moments = sorted(random.Random(20).sample(range(total), 20))
    kills = 0
    done: set[str] = set()
    for moment in moments:
        process = subprocess.Popen(command)
        while process.poll() is None and len(_done(partial)) < moment:
            time.sleep(0.0005)
        # Reading the journals took a moment, so the kill lands somewhere inside the tensors after it.
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if not (tmp_path / "out").exists():
            # What was finished stays finished: a rerun begins at most the two tensors that were under way anew.
            before, done = done, _done(partial)
            assert len(done) >= moment
            assert done >= before
    assert kills >= 10, "the merge was over before it could be killed"
    assert subprocess.run(command).returncode == 0
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_after_a_failure_only_unfinished_tensors_are_merged_again(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    compute = TensorMerger.merge

    def fail_at_twenty(merger: TensorMerger, tensor: TensorPlan) -> None:
        begun.append(tensor.name)
        if len(begun) == 20:
            raise MergeError("the disk is on fire")
        compute(merger, tensor)

    monkeypatch.setattr(TensorMerger, "merge", fail_at_twenty)
    with pytest.raises(MergeError, match="on fire"):
        merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge(recipe, tmp_path / "out")
    assert sorted(begun) == sorted([*tensors_of(tmp_path / "out"), begun[19]])


def _done(partial: Path) -> set[str]:
    """Return the tensors that journals and records name; for a moment a finished shard has both."""
    names: set[str] = set()
    for path in partial.glob(".*.journal"):
        # A journal goes as soon as its shard's record is there, perhaps while it is looked for.
        with suppress(FileNotFoundError):
            names |= {json.loads(line)["name"] for line in path.read_bytes().split(b"\n")[1:-1]}
    for path in partial.glob(".*.done.json"):
        names |= {outcome["name"] for outcome in json.loads(path.read_bytes())["outcomes"]}
    return names


@pytest.mark.parametrize("name", [PLAN_NAME, ".model.safetensors.done.json", ".model.safetensors.journal"])
@pytest.mark.parametrize("content", [b"{}\n", b'{"k', b'{}\n{"name": 1}\n', b"\xff\n\xff\n"])
def test_what_cannot_be_read_of_an_earlier_run_is_begun_anew(
    name: str, content: bytes, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("mergeline.merge.merging.assemble", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            merge(recipe, tmp_path / "out")
    partial = tmp_path / ".out.partial"
    if name == PLAN_NAME:
        (partial / "leftover").mkdir()
    if name.endswith(".journal"):
        (partial / ".model.safetensors.done.json").unlink()
        (partial / "model.safetensors").rename(partial / ".model.safetensors.partial")
    (partial / name).write_bytes(content)
    merge(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("is_loop", [False, True])
def test_a_link_to_nothing_is_refused_before_anything_is_merged(is_loop: bool, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link" if is_loop else "nowhere")
    with pytest.raises(OutputError, match="link: is a link to nothing"):
        merge(recipe, tmp_path / "link")
    assert not (tmp_path / ".link.partial").exists()


def test_a_name_too_long_is_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long; choose another place"):
        merge(recipe, tmp_path / ("x" * 300))


def test_more_workers_than_tensors_are_not_started(recipe: Path, tmp_path: Path) -> None:
    threads: list[int] = []
    merge(
        recipe,
        tmp_path / "out",
        resources=Resources(workers=10**9),
        on_progress=lambda nbytes: threads.append(threading.active_count()),
    )
    assert max(threads) < 100
