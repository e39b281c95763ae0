"""Two who were given the same shard, and one who comes when the merge is complete."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mergeline.errors import OutputError
from mergeline.merge.assembly import assemble
from mergeline.merge.shard import ShardResult, merge_shard, record_path, writers_path
from mergeline.merge.workspace import open_workspace
from mergeline.plan.planning import PlannedMerge, plan_recipe
from mergeline.sources.hub import Hub
from mergeline.support.durable import exclusive, is_held, shared
from tests.builders.tiny_checkpoints import make_mistral

pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="sees who waits for a lock in /proc/locks")


def wait_for_waiters(path: Path, count: int = 1) -> None:
    """Return once so many wait for a lock file that somebody else holds."""
    inode = str(path.stat().st_ino)
    deadline = time.monotonic() + 60
    while True:
        waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
        if sum(inode in words[6].split(":") for words in waiting) >= count:
            return
        assert time.monotonic() < deadline, f"nobody waits for {path}"
        time.sleep(0.01)


@pytest.fixture
def planned(tmp_path: Path) -> PlannedMerge:
    for seed, name in enumerate(("a", "b")):
        make_mistral(tmp_path / name, seed, layers=1)
    models = "".join(f"  - model: {tmp_path / name}\n" for name in ("a", "b"))
    text = f"merge_method: slerp\nbase_model: {tmp_path / 'a'}\nmodels:\n{models}parameters: {{t: 0.5}}\n"
    return plan_recipe(text, "recipe", Hub(), max_shard_bytes=10_000)


def test_a_shard_in_another_s_hands_is_waited_for_and_then_found_finished(
    planned: PlannedMerge, tmp_path: Path
) -> None:
    plan, shard = planned.plan, planned.plan.shards[0]
    sources = [tmp_path / "a", tmp_path / "b"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    whole = merge_shard(plan, shard, sources, elsewhere)
    directory = tmp_path / "shared"
    directory.mkdir()
    lock = directory / f".{shard.filename}.lock"
    with ThreadPoolExecutor() as pool:
        with exclusive(lock, "writing it"):
            waiting = pool.submit(merge_shard, plan, shard, sources, directory)
            wait_for_waiters(lock)
            assert not list(directory.glob(".*.partial"))
            # What the other writes meanwhile.
            for path in (elsewhere / shard.filename, record_path(elsewhere, shard.filename)):
                (directory / path.name).write_bytes(path.read_bytes())
        result = waiting.result(60)
    assert result.is_reused
    assert result.sha256 == whole.sha256
    assert not is_held(lock)


def test_two_who_merge_one_shard_at_once_write_it_once(planned: PlannedMerge, tmp_path: Path) -> None:
    plan, shard = planned.plan, planned.plan.shards[0]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(merge_shard, plan, shard, [tmp_path / "a", tmp_path / "b"], tmp_path) for _ in range(2)]
        results = [future.result(60) for future in both]
    assert sorted(result.is_reused for result in results) == [False, True]


def test_a_merge_is_completed_only_when_nobody_writes_and_a_late_writer_is_told(
    planned: PlannedMerge, tmp_path: Path
) -> None:
    plan, sources, output = planned.plan, [tmp_path / "a", tmp_path / "b"], tmp_path / "out"
    with ThreadPoolExecutor() as pool, open_workspace(plan, output) as workspace:
        results = [merge_shard(plan, shard, sources, workspace.partial) for shard in plan.shards]
        writers = writers_path(workspace.partial)
        with shared(writers):
            completing = pool.submit(assemble, plan, results, planned.recipe_text, sources[0], workspace)
            wait_for_waiters(writers)
            assert all(record_path(workspace.partial, shard.filename).exists() for shard in plan.shards)
            late: list[ShardResult | OutputError] = []
            thread = threading.Thread(target=_merge_late, args=(planned, sources, workspace.partial, late))
            thread.start()
            thread.join(60)
        completing.result(60)
        _merge_late(planned, sources, workspace.partial, late)
    # The first came before the end, found its shard and harmed nothing.
    assert isinstance(late[0], ShardResult)
    assert late[0].is_reused
    assert "is gone; another process has finished or removed it" in str(late[1])
    assert not list(output.glob(".*"))
    assert not workspace.partial.exists()


def _merge_late(
    planned: PlannedMerge, sources: list[Path], directory: Path, results: list[ShardResult | OutputError]
) -> None:
    try:
        results.append(merge_shard(planned.plan, planned.plan.shards[0], sources, directory))
    except OutputError as error:
        results.append(error)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = "import sys, time; from pathlib import Path; from mergeline.support.durable import exclusive\n"
    code += "with exclusive(Path(sys.argv[1]), 'waiting'):\n    print('held', flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(path)
        with (
            pytest.raises(OutputError, match="another process is waiting; wait for it or end it"),
            exclusive(path, "waiting"),
        ):
            pass
        process.kill()
    assert not is_held(path)


def test_a_lock_file_that_its_holder_removed_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with ThreadPoolExecutor() as pool:
        with exclusive(path, "working"):
            waiting = pool.submit(lambda: exclusive(path, "working", is_waiting=True).__enter__())
            wait_for_waiters(path)
            path.unlink()
        waiting.result(60)
    # The waiter holds the file that is there now, not the one it waited for.
    assert path.exists()
