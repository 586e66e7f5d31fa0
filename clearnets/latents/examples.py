"""Windows of text in which a latent is active or silent, and samples of them.

A window is an aligned piece of a row; it is used where at least half of its positions are counted
(not bos, eos, pad or the row's first position). A latent is active in a window where it is active
at a counted position of it, and silent elsewhere.

Shape suffixes: R rows, S positions of a row, N windows, L positions of a window, E active
positions of one latent, A its active windows, W windows of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# Active windows are drawn evenly from these many quantiles of their strongest activation.
QUANTILES = 10


@dataclass(frozen=True)
class Windows:
    """The windows of one split.

    Attributes:
        size: positions per window (L).
        row_N: row of each window; windows are numbered by row, then by place in it.
        slot_N: place in the row: the window covers positions slot * size to (slot + 1) * size.
        number_RK: number of the window at each slot of each row, -1 where it is not used.
        counted_RS: the mask of counted positions, of the whole split.
        tokens: counted positions of the whole split.
    """

    size: int
    row_N: np.ndarray
    slot_N: np.ndarray
    number_RK: np.ndarray
    counted_RS: np.ndarray
    tokens: int

    def __len__(self) -> int:
        return len(self.row_N)

    def cut(self, values_RS: np.ndarray) -> np.ndarray:
        """`values_RS` by window: (N, L)."""
        rows = values_RS.shape[0]
        return values_RS.reshape(rows, -1, self.size)[self.row_N, self.slot_N]


def windows_of(counted_RS: np.ndarray, *, size: int) -> Windows:
    """The windows of a split, from its mask of counted positions. `size` divides S."""
    rows, positions = counted_RS.shape
    assert positions % size == 0, (positions, size)
    counted_RK = counted_RS.reshape(rows, -1, size).sum(axis=-1)
    used_RK = 2 * counted_RK >= size
    row_N, slot_N = np.nonzero(used_RK)
    number_RK = np.full(used_RK.shape, -1, dtype=np.int64)
    number_RK[row_N, slot_N] = np.arange(len(row_N))
    return Windows(size, row_N, slot_N, number_RK, counted_RS, int(counted_RS.sum()))


class Entries(Protocol):
    """Cached activations of one layer: what `clearnets.latents.store.load_layer` gives."""

    @property
    def num_latents(self) -> int: ...
    @property
    def offsets(self) -> np.ndarray: ...
    @property
    def row(self) -> np.ndarray: ...
    @property
    def position(self) -> np.ndarray: ...
    @property
    def act(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Activity:
    """Where one latent is active in one split.

    Attributes:
        count: counted positions at which it is active, in used windows or not.
        window_E, place_E: window and position in it of each activation inside a used window.
        active_A: numbers of the active windows, ascending.
        peak_A: strongest activation in each of them.
    """

    count: int
    window_E: np.ndarray
    place_E: np.ndarray
    active_A: np.ndarray
    peak_A: np.ndarray

    def silent(self, windows: Windows) -> np.ndarray:
        """Numbers of the silent windows, ascending."""
        silent_N = np.ones(len(windows), dtype=bool)
        silent_N[self.active_A] = False
        return np.flatnonzero(silent_N)


def activity(entries: Entries, latent: int, windows: Windows) -> Activity:
    """Where `latent` is active. Activations of zero and uncounted positions do not count."""
    span = slice(int(entries.offsets[latent]), int(entries.offsets[latent + 1]))
    row_E = entries.row[span].astype(np.int64)
    position_E = entries.position[span].astype(np.int64)
    act_E = entries.act[span].astype(np.float32)
    live_E = (act_E > 0) & windows.counted_RS[row_E, position_E]
    window_E = windows.number_RK[row_E, position_E // windows.size]
    used_E = live_E & (window_E >= 0)
    window_E, place_E, act_E = window_E[used_E], position_E[used_E] % windows.size, act_E[used_E]
    active_A, first_E = np.unique(window_E, return_inverse=True)
    peak_A = np.zeros(len(active_A), dtype=np.float32)
    np.maximum.at(peak_A, first_E, act_E)
    return Activity(int(live_E.sum()), window_E, place_E, active_A, peak_A)


@dataclass(frozen=True)
class Examples:
    """A sample of a latent's windows, the active ones first.

    Attributes:
        window_W: numbers of the windows, all different.
        num_active: how many of them, from the first on, are active.
        hard_W: silent windows that were drawn because they hold the latent's trigger word.
        active_WL: the positions at which the latent is active.
    """

    window_W: np.ndarray
    num_active: int
    hard_W: np.ndarray
    active_WL: np.ndarray


def sample(
    found: Activity,
    windows: Windows,
    *,
    holds: np.ndarray,
    active: int,
    silent: int,
    rng: np.random.Generator,
) -> Examples:
    """Draw windows without replacement.

    Active windows come evenly from quantiles of their strongest activation. Of the silent ones
    half hold the latent's trigger word, where there are as many; the others are drawn uniformly
    from all silent windows that are left. Fewer than asked for are given where there are fewer.

    Args:
        holds: numbers of the windows of this split that hold the trigger word.
        active, silent: windows to draw of each kind.
    """
    active_W = np.sort(_spread(found, active, rng))
    silent_W = found.silent(windows)
    hard_pool = np.intersect1d(silent_W, holds, assume_unique=True)
    hard_W = np.sort(rng.permutation(hard_pool)[: silent // 2])
    rest_pool = np.setdiff1d(silent_W, hard_W, assume_unique=True)
    rest_W = np.sort(rng.permutation(rest_pool)[: silent - len(hard_W)])
    window_W = np.concatenate([active_W, hard_W, rest_W])
    is_hard_W = np.zeros(len(window_W), dtype=bool)
    is_hard_W[len(active_W) : len(active_W) + len(hard_W)] = True
    active_WL = np.zeros((len(window_W), windows.size), dtype=bool)
    at_E = np.searchsorted(active_W, found.window_E)
    drawn_E = at_E < len(active_W)
    drawn_E[drawn_E] = active_W[at_E[drawn_E]] == found.window_E[drawn_E]
    active_WL[at_E[drawn_E], found.place_E[drawn_E]] = True
    return Examples(window_W, len(active_W), is_hard_W, active_WL)


def _spread(found: Activity, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` active windows, or all, in equal shares from each quantile of their peaks."""
    if len(found.active_A) <= count:
        return found.active_A
    weakest_first = found.active_A[np.lexsort((found.active_A, found.peak_A))]
    bins = np.array_split(weakest_first, QUANTILES)
    shares = [len(part) for part in np.array_split(np.arange(count), QUANTILES)]
    drawn = [rng.permutation(part)[:share] for part, share in zip(bins, shares)]
    return np.concatenate(drawn)


def activations(
    entries: Entries, latent: int, windows: Windows, window_W: np.ndarray
) -> np.ndarray:
    """The activations of `latent` in some windows, (W, L); zero where it is not active.

    Activations at uncounted positions are left out.
    """
    span = slice(int(entries.offsets[latent]), int(entries.offsets[latent + 1]))
    row_E = entries.row[span].astype(np.int64)
    position_E = entries.position[span].astype(np.int64)
    act_E = np.where(windows.counted_RS[row_E, position_E], entries.act[span], 0)
    window_E = windows.number_RK[row_E, position_E // windows.size]
    order_W = np.argsort(window_W)
    at_E = np.searchsorted(window_W[order_W], window_E)
    wanted_E = at_E < len(window_W)
    wanted_E[wanted_E] = window_W[order_W][at_E[wanted_E]] == window_E[wanted_E]
    act_WL = np.zeros((len(window_W), windows.size), dtype=np.float32)
    at_E = order_W[at_E[wanted_E]]
    act_WL[at_E, position_E[wanted_E] % windows.size] = np.maximum(act_E[wanted_E], 0)
    return act_WL
