from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.placement_simulation import Machines, Simulation
from mergeline.merge.placement import largest_first, place

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=6)


def longest(nbytes: list[int], batches: list[list[int]]) -> int:
    return max(sum(nbytes[index] for index in batch) for batch in batches)


def best_there_is(nbytes: list[int], worker_count: int) -> int:
    """Try every placement."""
    owners = product(range(worker_count), repeat=len(nbytes))
    placements = ([[i for i, owner in enumerate(each) if owner == worker] for worker in set(each)] for each in owners)
    return min(longest(nbytes, placement) for placement in placements)


@given(SIZES, st.integers(1, 8))
def test_every_shard_is_placed_once_and_no_worker_is_left_without(nbytes: list[int], worker_count: int) -> None:
    batches = place(nbytes, worker_count)
    assert sorted(index for batch in batches for index in batch) == list(range(len(nbytes)))
    assert len(batches) == min(worker_count, len(nbytes))
    assert all(batches)


@given(SIZES, st.integers(1, 3))
def test_the_last_worker_ends_within_a_third_of_the_best_placement(nbytes: list[int], worker_count: int) -> None:
    bound = (4 / 3 - 1 / (3 * worker_count)) * best_there_is(nbytes, worker_count)
    assert longest(nbytes, place(nbytes, worker_count)) <= bound


def test_graham_s_worst_case_is_met_exactly() -> None:
    nbytes = [5, 5, 4, 4, 3, 3, 3]
    assert longest(nbytes, place(nbytes, 3)) == 11
    # 5 + 4, 5 + 4, 3 + 3 + 3.
    assert best_there_is(nbytes, 3) == 9


def test_shards_are_handed_out_largest_first_and_equal_ones_in_order() -> None:
    assert largest_first([3, 9, 3, 5]) == [1, 3, 0, 2]
    assert place([3, 9, 3, 5], 2) == [[1], [3, 0, 2]]


def test_the_simulation_of_equal_shards_is_what_arithmetic_says() -> None:
    nbytes = [100] * 10
    machines = Machines(write_rate=10, folder_rate=20, start_seconds=3, notice_seconds=5)
    # Two at a time at full speed, then four at half of it: 10 s a shard and 20 s a shard.
    assert Simulation(nbytes, place(nbytes, 2), 2, machines).run() == 3 + 5 * 10
    assert Simulation(nbytes, place(nbytes, 5), 5, machines).run() == 3 + 2 * 25
    # Lost at 13 s, noticed at 18 s; the other is busy until 53 s, then starts anew and does the other's five.
    assert Simulation(nbytes, place(nbytes, 2), 2, machines, is_one_lost=True).run() == 53 + 3 + 5 * 10
