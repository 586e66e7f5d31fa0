"""Windows and samples against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from synthetic_text import entries

from clearnets.latents.examples import activity, centred, choose, sample, windows_of

SIZE, CTX = 8, 32
QUANTILES = 10


def counted_rows(seed: int, rows: int) -> np.ndarray:
    """Documents of any length from the second position on."""
    lengths = np.random.default_rng(seed).integers(1, CTX, rows)
    position = np.arange(CTX)
    return (position > 0) & (position <= lengths[:, None])


def random_acts(seed: int, rows: int, share: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((rows, CTX)) * (rng.random((rows, CTX)) < share)


def test_windows_hold_half_their_positions():
    counted = counted_rows(0, 20)
    windows = windows_of(counted, size=SIZE)
    expected = [
        (row, slot)
        for row in range(20)
        for slot in range(CTX // SIZE)
        if sum(counted[row, slot * SIZE + i] for i in range(SIZE)) >= SIZE / 2
    ]
    assert list(zip(windows.row_N, windows.slot_N)) == expected
    assert windows.tokens == sum(map(sum, counted.tolist()))
    for number, (row, slot) in enumerate(expected):
        assert windows.number_RK[row, slot] == number
        cut = windows.cut(counted)[number]
        np.testing.assert_array_equal(cut, counted[row, slot * SIZE : (slot + 1) * SIZE])


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.02, 0.3, 1.0]))
@settings(max_examples=40, deadline=None)
def test_activity_equals_a_loop(seed, share):
    counted = counted_rows(seed, 12)
    acts = random_acts(seed, 12, share)
    windows = windows_of(counted, size=SIZE)
    cache = entries(acts)
    cache.act[::5] = 0  # zeros are not active
    acts[cache.row[::5], cache.position[::5]] = 0
    found = activity(cache, 0, windows)
    peaks: dict[int, float] = {}
    total = 0
    for row in range(12):
        for position in range(CTX):
            if acts[row, position] > 0 and counted[row, position]:
                total += 1
                window = int(windows.number_RK[row, position // SIZE])
                if window >= 0:
                    peaks[window] = max(peaks.get(window, 0), np.float32(acts[row, position]))
    assert found.count == total
    assert dict(zip(found.active_A.tolist(), found.peak_A.tolist())) == peaks
    assert set(found.silent(windows)) == set(range(len(windows))) - set(peaks)


def drawn(seed: int, *, share: float = 0.03, rows: int = 120, active: int = 20, silent: int = 20):
    counted = counted_rows(seed, rows)
    acts = random_acts(seed, rows, share) * counted
    windows = windows_of(counted, size=SIZE)
    found = activity(entries(acts), 0, windows)
    holds = np.flatnonzero(np.random.default_rng(seed).random(len(windows)) < 0.3)
    rng = np.random.default_rng(seed)
    active_W = choose(found, active, rng=rng)
    examples = sample(found, windows, active_W=active_W, silent=silent, holds=holds, rng=rng)
    return acts, windows, found, holds, examples


@pytest.mark.parametrize("seed", range(8))
def test_sample_takes_what_it_says(seed):
    acts, windows, found, holds, examples = drawn(seed)
    assert len(set(examples.window_W)) == len(examples.window_W) == 40
    assert examples.num_active == 20
    assert set(examples.window_W[:20]) <= set(found.active_A)
    assert not set(examples.window_W[20:]) & set(found.active_A)
    assert examples.hard_W.sum() == 10
    assert not examples.hard_W[:20].any()
    assert set(examples.window_W[examples.hard_W]) <= set(holds)
    np.testing.assert_array_equal(examples.active_WL, windows.cut(acts)[examples.window_W] > 0)


def test_sample_gives_all_where_there_are_fewer():
    _, windows, found, holds, examples = drawn(1, active=10_000, silent=10_000)
    assert sorted(examples.window_W) == list(range(len(windows)))
    assert set(examples.window_W[: examples.num_active]) == set(found.active_A)
    hard = set(holds) - set(found.active_A)
    assert set(examples.window_W[examples.hard_W]) == hard


def test_random_windows_fill_up_for_missing_hard_ones():
    counted = counted_rows(0, 100)
    windows = windows_of(counted, size=SIZE)
    found = activity(entries(random_acts(0, 100, 0.02) * counted), 0, windows)
    holds = found.silent(windows)[:3]
    rng = np.random.default_rng(0)
    active_W = choose(found, 20, rng=rng)
    examples = sample(found, windows, active_W=active_W, silent=20, holds=holds, rng=rng)
    assert set(holds) <= set(examples.window_W[20:])
    assert examples.hard_W.sum() == 3
    assert len(examples.window_W) == 40


def test_sample_is_named_by_its_seed():
    first, again, other = drawn(3)[-1], drawn(3)[-1], drawn(4)[-1]
    np.testing.assert_array_equal(first.window_W, again.window_W)
    assert list(first.window_W) != list(other.window_W)


def test_active_windows_come_evenly_from_all_quantiles():
    _, _, found, _, examples = drawn(5, share=0.2, rows=200)
    assert len(found.active_A) > 200
    order = np.argsort(found.peak_A, kind="stable")
    quantile = np.empty(len(order), dtype=int)
    for number, part in enumerate(np.array_split(order, QUANTILES)):
        quantile[part] = number
    mine = quantile[np.isin(found.active_A, examples.window_W[: examples.num_active])]
    assert np.bincount(mine, minlength=QUANTILES).tolist() == [2] * QUANTILES


def test_silent_windows_are_drawn_uniformly():
    counted = np.ones((10, CTX), dtype=bool)
    windows = windows_of(counted, size=SIZE)
    acts = np.zeros((10, CTX))
    acts[0] = 1
    found = activity(entries(acts), 0, windows)
    times = np.zeros(len(windows))
    for seed in range(600):
        rng = np.random.default_rng(seed)
        active_W, holds = choose(found, 4, rng=rng), np.array([7])
        drawn = sample(found, windows, active_W=active_W, silent=6, holds=holds, rng=rng)
        times[drawn.window_W[drawn.num_active :][~drawn.hard_W[drawn.num_active :]]] += 1
    # Window 7 holds the trigger and is always taken as the hard one; 0 to 3 are active.
    rest = np.delete(times, [0, 1, 2, 3, 7])
    assert times[[0, 1, 2, 3, 7]].sum() == 0
    assert rest.sum() == 600 * 5
    assert chisquare(rest).pvalue > 1e-3


def test_centred_windows_hold_their_place_in_the_middle_or_lie_at_the_end_of_the_document():
    """Rows with documents of all lengths, against a search for the nearest window that fits."""
    rng = np.random.default_rng(0)
    rows, positions, size = 40, 48, 8
    counted = np.ones((rows, positions), dtype=bool)
    for row in counted:
        row[rng.permutation(positions)[: rng.integers(0, 5)]] = False
    windows = windows_of(counted, size=size)
    place_N = (
        np.array([rng.choice(np.flatnonzero(where)) for where in windows.cut(counted)])
        + windows.start_N
    )
    moved = centred(windows, place_N)
    assert (moved.row_N == windows.row_N).all()
    seen = set()
    for row, place, grid, start in zip(
        windows.row_N.tolist(), place_N.tolist(), windows.start_N.tolist(), moved.start_N.tolist()
    ):
        fits = [
            first
            for first in range(place - size + 1, place + 1)
            if first >= 0 and first + size <= positions and all(counted[row, first : first + size])
        ]
        nearest = min(fits, key=lambda first: abs(first + size // 2 - place), default=grid)
        assert start == nearest
        assert 0 <= place - start < size
        assert counted[row, start : start + size].sum() >= counted[row, grid : grid + size].sum()
        seen.add("stays" if not fits else "middle" if place - start == size // 2 else "edge")
    assert seen == {"stays", "middle", "edge"}
