"""Counterparts of latents, against numpy's correlations and against trying every matching."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from clearnets.latents.stability import NONE, Activity, correlations, cosines, match, number_tokens
from clearnets.latents.store import LayerCache

ROWS, POSITIONS = 12, 8


def cache_of(acts_LRS: np.ndarray) -> LayerCache:
    latent, row, position = np.nonzero(acts_LRS)
    counts = np.bincount(latent, minlength=len(acts_LRS))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    act = acts_LRS[latent, row, position].astype(np.float32)
    return LayerCache(len(acts_LRS), latent, row, position, act, offsets)


def sparse(rng: np.random.Generator, latents: int) -> np.ndarray:
    shape = (latents, ROWS, POSITIONS)
    return (rng.random(shape) * (rng.random(shape) < 0.3)).astype(np.float16).astype(np.float64)


def test_correlations_are_those_of_all_counted_tokens():
    rng = np.random.default_rng(0)
    one, other = sparse(rng, 5), sparse(rng, 4)
    one[3] = 0
    counted_RS = rng.random((ROWS, POSITIONS)) < 0.8
    rows = np.array([0, 2, 3, 7, 11])
    number_RS = number_tokens(counted_RS, rows)
    there_RS = np.zeros_like(counted_RS)
    there_RS[rows] = counted_RS[rows]
    assert number_RS[there_RS].tolist() == list(range(there_RS.sum()))
    assert set(number_RS[~there_RS]) == {NONE}
    a, b = (Activity.of(cache_of(acts), number_RS) for acts in (one, other))
    assert a.active_L.tolist() == [(acts[there_RS] > 0).sum() for acts in one]
    found = correlations(a, b)
    for i, j in np.ndindex(found.shape):
        x, y = one[i][there_RS], other[j][there_RS]
        expected = 0 if i == 3 else np.corrcoef(x, y)[0, 1]
        assert found[i, j] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_no_other_matching_has_a_larger_sum(shape):
    rng = np.random.default_rng(1)
    table = rng.normal(size=shape)
    found = match(table)
    fewer, more = sorted(shape)
    wide = table if shape[0] <= shape[1] else table.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(more), fewer)
    )
    assert found.correlation_A.sum() == pytest.approx(best)
    paired = found.partner_A[found.partner_A != NONE]
    assert len(set(paired)) == len(paired) == fewer
    for own, partner in enumerate(found.partner_A):
        expected = 0 if partner == NONE else table[own, partner]
        assert found.correlation_A[own] == expected


def test_a_run_in_another_order_is_found():
    rng = np.random.default_rng(2)
    acts, order = sparse(rng, 6), rng.permutation(6)
    number_RS = number_tokens(np.ones((ROWS, POSITIONS), bool), np.arange(ROWS))
    one, other = (Activity.of(cache_of(x), number_RS) for x in (acts, acts[order]))
    found = match(correlations(one, other))
    assert order[found.partner_A].tolist() == list(range(6))
    assert found.correlation_A == pytest.approx(1)


def test_cosines_of_counterparts():
    own, other = np.array([[1.0, 0], [1, 1], [0, 0], [1, 0]]), np.array([[0, 2.0], [3, 0]])
    found = cosines(own, other, np.array([1, 0, 1, NONE]))
    assert found[:2] == pytest.approx([1, np.sqrt(0.5)])
    assert np.isnan(found[2:]).all()
