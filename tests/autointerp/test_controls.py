"""Shuffled explanations: everyone gets exactly one, nobody their own."""

from __future__ import annotations

import numpy as np
import pytest

from clearnets.autointerp.controls import derangement


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_nobody_keeps_their_own(count):
    for seed in range(20):
        order = derangement(count, seed=seed)
        assert order is not None
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()
        np.testing.assert_array_equal(order, derangement(count, seed=seed))


def test_all_others_are_equally_likely():
    taken = np.bincount([derangement(5, seed=seed)[0] for seed in range(4000)], minlength=5)
    assert taken[0] == 0
    np.testing.assert_allclose(taken[1:], 1000, atol=130)


def test_one_alone_cannot_be_shuffled():
    assert derangement(1, seed=0) is None
    assert derangement(0, seed=0) is None
