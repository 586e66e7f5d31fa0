"""Find windows of text in which a latent is active or non-activating, and draw samples of them.

Windows of the *grid* are aligned pieces of rows; those are used of which at least half of the
positions are counted (not bos, eos, pad or the row's first position). A latent is active in a
window where it is active at a counted position of it, and non-activating elsewhere. Samples
are drawn from the grid. Where it is wanted, the active windows of a sample are then moved, so that
the strongest activation of each stands in its middle: see `centred`.

Shape suffixes: R rows, S positions of a row, N windows, L positions of a window, E active
positions of one latent, A its active windows, W windows of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Windows:
    """Windows of one split, anywhere in its rows.

    Attributes:
        size: positions per window (L).
        counted_RS: the mask of counted positions, of the whole split.
        row_N: row of each window.
        start_N: its first position in the row.
    """

    size: int
    counted_RS: np.ndarray
    row_N: np.ndarray
    start_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)

    def cut(self, values_RS: np.ndarray) -> np.ndarray:
        """Return `values_RS` by window, (N, L)."""
        return values_RS[self.row_N[:, None], self.start_N[:, None] + np.arange(self.size)]

    def these(self, window_W: np.ndarray) -> Windows:
        """Return the windows with the given indices."""
        return Windows(self.size, self.counted_RS, self.row_N[window_W], self.start_N[window_W])


@dataclass(frozen=True)
class Grid(Windows):
    """The windows of the grid of one split, numbered by row, then by place in it.

    Attributes:
        number_RK: number of the window at each slot of each row, -1 where it is not used: slot k
            begins at position k * size.
    """

    number_RK: np.ndarray

    @property
    def slot_N(self) -> np.ndarray:
        """Slot of each window in its row."""
        return self.start_N // self.size

    @cached_property
    def tokens(self) -> int:
        """Counted positions of the whole split, in used windows or not."""
        return int(self.counted_RS.sum())


def windows_of(counted_RS: np.ndarray, *, size: int) -> Grid:
    """Return the grid of a split, from its mask of counted positions. `size` divides S."""
    rows, positions = counted_RS.shape
    assert positions % size == 0, (positions, size)
    counted_RK = counted_RS.reshape(rows, -1, size).sum(axis=-1)
    used_RK = 2 * counted_RK >= size
    row_N, slot_N = np.nonzero(used_RK)
    number_RK = np.full(used_RK.shape, -1, dtype=np.int64)
    number_RK[row_N, slot_N] = np.arange(len(row_N))
    return Grid(size, counted_RS, row_N, slot_N * size, number_RK)


def centred(windows: Windows, place_N: np.ndarray) -> Windows:
    """Move windows so that a position of each row stands in the middle, at `size // 2`.

    A moved window has counted positions only, and so holds no more than one document: it lies
    within the run of counted positions around its middle. Nearer than half a window to an end of
    the run it begins or ends there. In a run shorter than a window it stays where it is.

    Args:
        place_N: a counted position of the row of each window.
    """
    counted_NS = windows.counted_RS[windows.row_N]
    position_S = np.arange(counted_NS.shape[1])
    begins_N = np.where(counted_NS | (position_S > place_N[:, None]), 0, position_S + 1).max(1)
    ends_N = np.where(counted_NS | (position_S < place_N[:, None]), len(position_S), position_S)
    last_N = ends_N.min(1) - windows.size
    start_N = np.clip(place_N - windows.size // 2, begins_N, last_N)
    start_N = np.where(last_N < begins_N, windows.start_N, start_N)
    return Windows(windows.size, windows.counted_RS, windows.row_N, start_N)


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

    @property
    def strongest_first(self) -> np.ndarray:
        """Numbers of the active windows by their strongest activation; of equal ones the last."""
        return self.active_A[np.argsort(self.peak_A, kind="stable")[::-1]]

    def within(self, window_W: np.ndarray) -> Activity:
        """Return the same in some windows alone; `count` holds what is active there."""
        kept_E, kept_A = np.isin(self.window_E, window_W), np.isin(self.active_A, window_W)
        window_E, place_E = self.window_E[kept_E], self.place_E[kept_E]
        return Activity(
            len(window_E), window_E, place_E, self.active_A[kept_A], self.peak_A[kept_A]
        )

    def silent(self, windows: Grid) -> np.ndarray:
        """Return numbers of the silent windows, ascending."""
        silent_N = np.ones(len(windows), dtype=bool)
        silent_N[self.active_A] = False
        return np.flatnonzero(silent_N)


def activity(entries: Entries, latent: int, windows: Grid) -> Activity:
    """Return where `latent` is active; zeros and uncounted positions do not count."""
    span = slice(int(entries.offsets[latent]), int(entries.offsets[latent + 1]))
    row_E = entries.row[span].astype(np.int64)
    position_E = entries.position[span].astype(np.int64)
    act_E = entries.act[span].astype(np.float32)
    live_E = (act_E > 0) & windows.counted_RS[row_E, position_E]
    window_E = windows.number_RK[row_E, position_E // windows.size]
    used_E = live_E & (window_E >= 0)
    window_E, place_E, act_E = window_E[used_E], position_E[used_E] % windows.size, act_E[used_E]
    # Entries are sorted by row and position, and so by window.
    begins_A = np.flatnonzero(np.diff(window_E, prepend=-1))
    peak_A = np.maximum.reduceat(act_E, begins_A) if len(begins_A) else act_E
    return Activity(int(live_E.sum()), window_E, place_E, window_E[begins_A], peak_A)


@dataclass(frozen=True)
class Examples:
    """A sample of a latent's windows, the active ones first.

    Attributes:
        window_W: numbers of the windows, all different.
        num_active: how many of them, from the first on, are active.
        hard_W: non-activating windows that were drawn because they hold the latent's trigger word.
        active_WL: the positions at which the latent is active.
    """

    window_W: np.ndarray
    num_active: int
    hard_W: np.ndarray
    active_WL: np.ndarray


def sample(
    found: Activity,
    windows: Grid,
    *,
    active_W: np.ndarray,
    silent: int,
    holds: np.ndarray = _NONE,
    first: np.ndarray = _NONE,
    avoid: np.ndarray = _NONE,
    rng: np.random.Generator,
) -> Examples:
    """Return a sample with these active windows, and silent ones drawn without replacement.

    Of the silent ones half hold the latent's trigger word, where there are as many; the others are
    those that come `first`, and then drawn uniformly from all other ones. Fewer
    than asked for are given where there are fewer.

    Args:
        active_W: numbers of active windows, as by `choose`.
        silent: non-activating windows to draw.
        holds: numbers of the windows of this split that hold the trigger word, ascending.
        first: numbers of windows that are wanted, in this order, where they are non-activating.
        avoid: numbers of windows that are not to be drawn.
    """
    active_W = np.sort(active_W)
    free_N = np.ones(len(windows), dtype=bool)
    free_N[found.active_A] = False
    free_N[avoid] = False
    hard_W = np.sort(rng.permutation(holds[free_N[holds]])[: silent // 2])
    free_N[hard_W] = False
    wanted = first[free_N[first]][: silent - len(hard_W)]
    free_N[wanted] = False
    filled = rng.permutation(np.flatnonzero(free_N))[: silent - len(hard_W) - len(wanted)]
    rest_W = np.sort(np.concatenate([wanted, filled]))
    window_W = np.concatenate([active_W, hard_W, rest_W])
    is_hard_W = np.zeros(len(window_W), dtype=bool)
    is_hard_W[len(active_W) : len(active_W) + len(hard_W)] = True
    active_WL = np.zeros((len(window_W), windows.size), dtype=bool)
    at_E = np.searchsorted(active_W, found.window_E)
    drawn_E = at_E < len(active_W)
    drawn_E[drawn_E] = active_W[at_E[drawn_E]] == found.window_E[drawn_E]
    active_WL[at_E[drawn_E], found.place_E[drawn_E]] = True
    return Examples(window_W, len(active_W), is_hard_W, active_WL)


def choose(
    found: Activity,
    count: int,
    *,
    how: Literal["top", "random", "quantiles", "mix"] = "quantiles",
    quantiles: int = 10,
    ratio_top: float = 0.2,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw `count` active windows, or all where there are fewer, without replacement.

    Args:
        how: the `top` ones by their strongest activation; `random` ones; equal shares from each of
            the `quantiles` of it; or a `mix`: the top ones, and quantiles of the rest.
        ratio_top: share of the top ones in a mix.
    """
    if len(found.active_A) <= count:
        return found.active_A
    weakest_first = found.strongest_first[::-1]
    if how == "random":
        return rng.permutation(found.active_A)[:count]
    top = {"top": count, "mix": int(count * ratio_top), "quantiles": 0}[how]
    there = len(weakest_first) - top
    drawn, begin = [], 0
    for size, share in zip(_equal(there, quantiles), _equal(count - top, quantiles)):
        drawn.append(rng.permutation(weakest_first[begin : begin + size])[:share])
        begin += size
    return np.concatenate([*drawn, weakest_first[there:]])


def _equal(number: int, parts: int) -> list[int]:
    """Divide `number` into parts that differ by one at most, the larger ones first."""
    size, more = divmod(number, parts)
    return [size + (part < more) for part in range(parts)]


def activations(
    entries: Entries, latent: int, windows: Windows, window_W: np.ndarray
) -> np.ndarray:
    """Return the activations of `latent` in some windows, (W, L); zero where it is not active.

    Activations at uncounted positions are left out.
    """
    span = slice(int(entries.offsets[latent]), int(entries.offsets[latent + 1]))
    some = windows.these(window_W)
    row_U, at_W = np.unique(some.row_N, return_inverse=True)
    at_E = np.searchsorted(row_U, entries.row[span])
    known_E = at_E < len(row_U)
    known_E[known_E] = row_U[at_E[known_E]] == entries.row[span][known_E]
    act_US = np.zeros((len(row_U), windows.counted_RS.shape[1]), dtype=np.float32)
    position_E = entries.position[span].astype(np.int64)
    act_US[at_E[known_E], position_E[known_E]] = entries.act[span][known_E]
    act_US = np.where(windows.counted_RS[row_U], np.maximum(act_US, 0), 0)
    return Windows(some.size, some.counted_RS, at_W, some.start_N).cut(act_US)
