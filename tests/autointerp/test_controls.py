"""Shuffled explanations: everyone gets others' ones, each is used as often, nobody their own."""

from __future__ import annotations

import numpy as np
import pytest

from clearnets.autointerp.controls import derangements


@pytest.mark.parametrize("count", [2, 3, 10, 101])
@pytest.mark.parametrize("times", [1, 5])
def test_nobody_keeps_their_own_and_nobody_gets_one_twice(count, times):
    for seed in range(20):
        orders = derangements(count, times=times, seed=seed)
        assert len(orders) == min(times, count - 1)
        for order in orders:
            assert sorted(order) == list(range(count))
        received = np.stack([np.arange(count), *orders])
        assert all(len(set(column)) == len(column) for column in received.T)
        again = derangements(count, times=times, seed=seed)
        np.testing.assert_array_equal(np.stack(orders), np.stack(again))


def test_all_others_are_equally_likely():
    for shift in range(3):
        drawn = [derangements(5, times=3, seed=seed)[shift][0] for seed in range(4000)]
        taken = np.bincount(drawn, minlength=5)
        assert taken[0] == 0
        np.testing.assert_allclose(taken[1:], 1000, atol=130)


@pytest.mark.parametrize("count", [0, 1])
def test_one_alone_cannot_be_shuffled(count):
    assert derangements(count, times=5, seed=0) == []
