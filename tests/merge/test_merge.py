from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeline.errors import MergeError, OutputError, VerificationError
from mergeline.merge.merging import merge_recipe
from mergeline.merge.shard import Resources, ShardResult, finished_shard, merge_shard
from mergeline.merge.tensor_merger import TensorMerger
from mergeline.merge.verification import check_loads, verify_directory
from mergeline.merge.workspace import open_workspace
from mergeline.plan.memory import StreamSizes
from mergeline.plan.merge_plan import TensorPlan
from mergeline.plan.planning import plan_recipe
from mergeline.sources.checkpoint import open_checkpoint
from mergeline.sources.hub import Hub
from tests.builders.tiny_checkpoints import make_mistral, mistral_tensors

SLERP = "merge_method: slerp\nbase_model: {a}\nmodels:\n  - model: {a}\n  - model: {b}\nparameters: {{t: {t}}}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A SLERP of two unrelated float32 models, so that the arc is really taken."""
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float32)
    path = tmp_path / "recipe.yaml"
    path.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=0.3))
    return path


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}


def merge(recipe: Path, output: Path, **options: object) -> list[ShardResult]:
    return list(merge_recipe(recipe, output, hub=Hub(), **options).results)  # type: ignore[arg-type]


def slerp64(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """SLERP in float64 by torch's own functions."""
    a, b = a.double(), b.double()
    omega = torch.arccos(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)


def test_slerp_is_the_float64_formula_rounded_once(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    a, b, merged = (tensors_of(tmp_path / name) for name in ("a", "b", "out"))
    for name, tensor in merged.items():
        # A few float32 roundings of numbers below 0.2 stay below 2^-24.
        torch.testing.assert_close(tensor.double(), slerp64(a[name], b[name], 0.3), rtol=0, atol=2**-24)


@pytest.mark.parametrize(("t", "parent"), [(0, "a"), (1, "b")])
@pytest.mark.parametrize("change", [0.02, 2.0], ids=["siblings", "strangers"])
def test_ends_of_the_arc_are_the_parents_bit_for_bit(
    change: float, t: int, parent: str, recipe: Path, tmp_path: Path
) -> None:
    a = mistral_tensors(0, dtype=torch.float32)
    a["model.norm.weight"][0] = -0.0
    save_file(a, tmp_path / "a" / "model.safetensors")
    make_mistral(tmp_path / "b", 1, dtype=torch.float32, base=a, change=change)
    recipe.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=t))
    merge(recipe, tmp_path / "out")
    expected = tensors_of(tmp_path / parent)
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert torch.equal(tensor.view(torch.int32), expected[name].view(torch.int32))


def test_swapping_the_parents_and_t_gives_the_same_weights(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    recipe.write_text(SLERP.format(a=tmp_path / "b", b=tmp_path / "a", t=0.7))
    merge(recipe, tmp_path / "swapped")
    swapped = tensors_of(tmp_path / "swapped")
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, swapped[name], rtol=0, atol=2**-24)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("block", [100, 8 * 2**20])
def test_blocks_shards_and_workers_change_no_byte(workers: int, block: int, recipe: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        # 14,400 elements and more in most tensors: four blocks of the smallest size.
        make_mistral(tmp_path / name, seed, dtype=torch.float32, hidden=120, vocabulary=120, intermediate=150, layers=1)
    merge(recipe, tmp_path / "out")
    sizes = StreamSizes(held_elements=block, block_elements=block)
    merge(recipe, tmp_path / "other", max_shard_bytes=90_000, resources=Resources(workers=workers, sizes=sizes))
    expected, other = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "other")
    assert expected.keys() == other.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, other[name])
    assert len(list((tmp_path / "other").glob("*.safetensors"))) > 3


def test_progress_adds_up_to_what_is_written_and_the_record_to_the_file(recipe: Path, tmp_path: Path) -> None:
    written: list[int] = []
    (shard,) = merge(recipe, tmp_path / "out", on_progress=written.append)
    assert sum(written) == sum(tensor.nbytes for tensor in tensors_of(tmp_path / "a").values())
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == shard.sha256


def test_mixed_dtypes_are_read_as_stored_and_rounded_once(recipe: Path, tmp_path: Path) -> None:
    a = make_mistral(tmp_path / "a", 0, dtype=torch.bfloat16)
    b = make_mistral(tmp_path / "b", 1, dtype=torch.float16)
    recipe.write_text(SLERP.format(a=tmp_path / "a", b=tmp_path / "b", t=0.3) + "dtype: bfloat16\n")
    merge(recipe, tmp_path / "out")
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert tensor.dtype == torch.bfloat16
        exact = slerp64(a[name], b[name], 0.3)
        assert (tensor != exact.to(torch.bfloat16)).double().mean() < 0.001


@pytest.mark.parametrize("change", [0.02, 2.0], ids=["siblings", "strangers"])
@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_one_in_ten_thousand_at_most_is_not_the_exact_value_rounded_once(
    method: str, change: float, tmp_path: Path
) -> None:
    # Tensors of several million elements, in which float32 sums would lose the angle's last digits.
    shape = {"hidden": 1024, "intermediate": 2816, "layers": 1, "vocabulary": 4096}
    a = make_mistral(tmp_path / "a", 0, **shape)
    b = make_mistral(tmp_path / "b", 1, base=a, change=change, **shape)
    names = [str(tmp_path / name) for name in "ab"]
    # No round numbers: 0.3 of five units in the last place is a tie, which float64 breaks by its own rounding of 0.3.
    t = 0.3141
    weights = [{"model": name, "parameters": {"weight": w}} for name, w in zip(names, (1 - t, t), strict=True)]
    recipe = {"merge_method": method, "models": weights if method == "linear" else [{"model": name} for name in names]}
    recipe |= {} if method == "linear" else {"base_model": names[0], "parameters": {"t": t}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    merge(tmp_path / "recipe.yaml", tmp_path / "out")
    wrong = total = 0
    for name, tensor in tensors_of(tmp_path / "out").items():
        x, y = a[name].double(), b[name].double()
        cosine = torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0)
        is_chord = method == "linear" or cosine.abs() > 0.9995
        exact = (1 - t) * x + t * y if is_chord else slerp64(x, y, t)
        wrong += int((tensor != exact.to(torch.bfloat16)).sum())
        total += tensor.numel()
    assert wrong < 1e-4 * total


def test_float64_is_merged_in_float64(recipe: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_mistral(tmp_path / name, seed, dtype=torch.float64)
    merge(recipe, tmp_path / "out")
    a, b = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, slerp64(a[name], b[name], 0.3), rtol=0, atol=1e-15)


def test_rows_that_only_the_base_has_are_the_bases_own(recipe: Path, tmp_path: Path) -> None:
    a = make_mistral(tmp_path / "a", 0, vocabulary=66, dtype=torch.float32)
    b = tensors_of(tmp_path / "b")
    merge(recipe, tmp_path / "out")
    merged = tensors_of(tmp_path / "out")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(merged[name][64:], a[name][64:])
        torch.testing.assert_close(merged[name][:64].double(), slerp64(a[name][:64], b[name], 0.3), rtol=0, atol=2**-24)


def test_integer_buffers_are_copied_from_the_base(recipe: Path, tmp_path: Path) -> None:
    for name, value in (("a", 3), ("b", 4)):
        tensors = tensors_of(tmp_path / name)
        tensors["model.positions"] = torch.full((7,), value)
        save_file(tensors, tmp_path / name / "model.safetensors")
    merge(recipe, tmp_path / "out")
    assert tensors_of(tmp_path / "out")["model.positions"].tolist() == [3] * 7


@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_empty_tensors_stay_empty(method: str, recipe: Path, tmp_path: Path) -> None:
    for name in "ab":
        save_file(
            tensors_of(tmp_path / name) | {"model.none": torch.empty(0, 8)}, tmp_path / name / "model.safetensors"
        )
    if method == "linear":
        models = "".join(f"  - {{model: {tmp_path / name}, parameters: {{weight: 1}}}}\n" for name in "ab")
        recipe.write_text(f"merge_method: linear\nmodels:\n{models}")
    merge(recipe, tmp_path / "out")
    assert tensors_of(tmp_path / "out")["model.none"].shape == (0, 8)


def test_linear_adds_up_weights_per_model_and_normalizes(recipe: Path, tmp_path: Path) -> None:
    models = "".join(
        f"  - {{model: {tmp_path / name}, parameters: {{weight: {weight}}}}}\n" for name, weight in (("a", 1), ("b", 3))
    )
    recipe.write_text(f"merge_method: linear\nmodels:\n{models}")
    merge(recipe, tmp_path / "out")
    a, b = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor, (a[name] + 3 * b[name]) / 4, rtol=0, atol=2**-24)


def test_not_a_number_is_refused_with_the_tensors_name(recipe: Path, tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path / "b")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    with pytest.raises(MergeError, match=r"'model.norm.weight': the result holds NaN .*/a and .*/b"):
        merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_overflow_in_float16_is_refused(recipe: Path, tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path / "a")
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, tmp_path / "a" / "model.safetensors")
    recipe.write_text(recipe.read_text() + "dtype: float16\n")
    with pytest.raises(MergeError, match="infinite values as F16"):
        merge(recipe, tmp_path / "out")


def test_recorded_sha256_is_the_files(recipe: Path, tmp_path: Path) -> None:
    for result in merge(recipe, tmp_path / "out", resources=Resources(workers=3), max_shard_bytes=50_000):
        content = (tmp_path / "out" / result.filename).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (result.nbytes, result.sha256)


def test_merge_loads_in_transformers(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out", max_shard_bytes=50_000)
    merged = open_checkpoint(str(tmp_path / "out"))
    check_loads(tmp_path / "out", merged)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(VerificationError, match="the model wants"):
        check_loads(tmp_path / "out", merged)


def test_verify_finds_one_flipped_bit(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out")
    assert verify_directory(tmp_path / "out").tensor_count == 48
    path = tmp_path / "out" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError, match=r"model.safetensors has changed since it was written"):
        verify_directory(tmp_path / "out")


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


def test_finished_shards_are_kept_after_a_failure(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_checkpoint_written_by_a_merge_is_a_checkpoint(recipe: Path, tmp_path: Path) -> None:
    merge(recipe, tmp_path / "out", max_shard_bytes=50_000)
    assert open_checkpoint(str(tmp_path / "out")).tensors.keys() == tensors_of(tmp_path / "out").keys()
