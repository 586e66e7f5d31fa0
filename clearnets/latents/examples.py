"""Windows of text in which a latent is active or silent, and samples of them.

A window is an aligned piece of a row; it is used where at least half of its positions are counted
(not bos, eos, pad or the row's first position). A latent is active in a window where it is active
at a counted position of it, and silent elsewhere.

Shape suffixes: R rows, S positions of a row, N windows, L positions of a window, E active
positions of one latent, A its active windows, W windows of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

_NONE = np.zeros(0, dtype=np.int64)


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

    @property
    def strongest_first(self) -> np.ndarray:
        """Numbers of the active windows by their strongest activation; of equal ones the last."""
        return self.active_A[np.argsort(self.peak_A, kind="stable")[::-1]]

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
    active_W: np.ndarray,
    silent: int,
    holds: np.ndarray = _NONE,
    first: np.ndarray = _NONE,
    avoid: np.ndarray = _NONE,
    rng: np.random.Generator,
) -> Examples:
    """A sample with these active windows, and silent ones drawn without replacement.

    Of the silent ones half hold the latent's trigger word, where there are as many; the others are
    those that come `first`, and then drawn uniformly from all silent windows that are left. Fewer
    than asked for are given where there are fewer.

    Args:
        active_W: numbers of active windows, as by `choose`.
        silent: silent windows to draw.
        holds: numbers of the windows of this split that hold the trigger word, ascending.
        first: numbers of windows that are wanted, in this order, where they are silent.
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
    """`count` active windows, or all where there are fewer, without replacement.

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
    rest, strongest = np.split(weakest_first, [len(weakest_first) - top])
    bins = np.array_split(rest, quantiles)
    shares = [len(part) for part in np.array_split(np.arange(count - top), quantiles)]
    drawn = [rng.permutation(part)[:share] for part, share in zip(bins, shares)]
    return np.concatenate([*drawn, strongest])


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
