"""Planted latents: active where a known pattern of tokens stands, to test what scores can tell.

    rule      on one token, or on a token right behind another
    noisy     the same, but at half of its places, and as often elsewhere as it misses
    mixture   on two patterns that have nothing to do with each other

Patterns are the most frequent tokens and pairs of tokens in the text that explanations are made
from. Where a noisy latent misses and where it errs follows from a hash of the tokens up to there,
which no sentence about words can say.

Shape suffixes: R rows, S positions of a row, L latents, P pairs (half of the latents), V
vocabulary, K latents that may be active per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

Pattern = Literal["rule", "noisy", "mixture"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
LATENTS = 128
"""Latents of a family: half on a token, half on a pair of tokens."""
NONE = -1
_MOST = 0.005
"""Share of the positions at which a pattern may stand: others are in nearly every window."""
_REACH = 8
"""Tokens back to which the hash looks."""
# Of a linear congruential generator (Knuth's MMIX), modulo 2^64.
_FACTOR, _ADDEND = np.uint64(6364136223846793005), np.uint64(1442695040888963407)


@dataclass(frozen=True)
class Planted:
    """The planted latents of one kind.

    Attributes:
        pattern: their kind.
        token_L: the token of each pattern.
        before_L: the token that stands before it; `NONE` where any may.
        place_L: how often each stands in the text that they were chosen from.
        counted_V: tokens at which a latent may be active.
        positions: of that text.
    """

    pattern: Pattern
    token_L: np.ndarray
    before_L: np.ndarray
    place_L: np.ndarray
    counted_V: np.ndarray
    positions: int

    @classmethod
    def of(cls, pattern: Pattern, tokens_RS: np.ndarray, counted_RS: np.ndarray) -> Planted:
        """Choose the patterns.

        Args:
            tokens_RS: the text, each row beginning with a token that does not count.
            counted_RS: which of its positions count.
        """
        size = int(tokens_RS.max()) + 1
        counted_V = np.zeros(size, bool)
        counted_V[np.unique(tokens_RS[counted_RS])] = True
        here_N = tokens_RS[counted_RS].astype(np.int64)
        single_V = np.bincount(here_N, minlength=size)
        both_RS = counted_RS[:, 1:] & counted_RS[:, :-1]
        pair_N = (tokens_RS[:, :-1].astype(np.int64) * size + tokens_RS[:, 1:])[both_RS]
        pairs, count_P = np.unique(pair_N, return_counts=True)
        token, chosen = _frequent(single_V, len(here_N)), _frequent(count_P, len(here_N))
        half = min(len(token), len(chosen))
        token, chosen = token[:half], chosen[:half]
        return cls(
            pattern,
            np.concatenate([token, pairs[chosen] % size]),
            np.concatenate([np.full(len(token), NONE), pairs[chosen] // size]),
            np.concatenate([single_V[token], count_P[chosen]]),
            counted_V,
            len(here_N),
        )

    @property
    def num_latents(self) -> int:
        """Latents of the family."""
        return len(self.token_L)

    def __call__(self, tokens_RS: np.ndarray) -> np.ndarray:
        """Return the latents that are active at each position, (R, S, K), each once; `NONE` in
        places that are left."""
        matched_RSK = self._patterns(tokens_RS)
        if self.pattern == "rule":
            return matched_RSK
        if self.pattern == "mixture":
            return self._mixed(matched_RSK)
        return self._noisy(matched_RSK, tokens_RS)

    def _patterns(self, tokens_RS: np.ndarray) -> np.ndarray:
        """Return the pattern on the token and that on the pair, (R, S, 2)."""
        tokens_RS = np.minimum(tokens_RS.astype(np.int64), len(self.counted_V) - 1)
        before_RS = np.pad(tokens_RS, ((0, 0), (1, 0)), constant_values=NONE)[:, :-1]
        single_RS = self._alone_V[tokens_RS]
        pair_RS = before_RS * len(self.counted_V) + tokens_RS
        keys, latents = self._pairs
        at_RS = np.minimum(np.searchsorted(keys, pair_RS), len(keys) - 1)
        pair_RS = np.where((keys[at_RS] == pair_RS) & (before_RS >= 0), latents[at_RS], NONE)
        return np.stack([single_RS, pair_RS], axis=-1)

    @cached_property
    def _alone_V(self) -> np.ndarray:
        """The latent of each token that is a pattern by itself."""
        alone_V = np.full(len(self.counted_V), NONE)
        single = np.flatnonzero(self.before_L == NONE)
        alone_V[self.token_L[single]] = single
        return alone_V

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs as numbers, ascending, and their latents."""
        pairs = np.flatnonzero(self.before_L != NONE)
        keys = self.before_L[pairs] * len(self.counted_V) + self.token_L[pairs]
        order = np.argsort(keys)
        return keys[order], pairs[order]

    def _mixed(self, matched_RSK: np.ndarray) -> np.ndarray:
        """Return latents that are active on their own pattern and on another of its kind, which
        stands a quarter of the way further on in the order of frequency."""
        half = self.num_latents // 2
        base = np.where(matched_RSK < half, 0, half)
        other_RSK = base + (matched_RSK - base - max(1, half // 4)) % half
        other_RSK = np.where(matched_RSK == NONE, NONE, other_RSK)
        return np.concatenate([matched_RSK, other_RSK], axis=-1)

    def _noisy(self, matched_RSK: np.ndarray, tokens_RS: np.ndarray) -> np.ndarray:
        """Return half of the places, and a latent at random at as many others."""
        hash_RS = _hashes(tokens_RS)
        kept_RSK = np.stack([hash_RS >> np.uint64(63), (hash_RS >> np.uint64(62)) & np.uint64(1)])
        left_RSK = np.where(np.moveaxis(kept_RSK, 0, -1) == 1, matched_RSK, NONE)
        # One number in [0, 1) per position, independent of those bits.
        draw_RS = (hash_RS << np.uint64(2) >> np.uint64(11)).astype(np.float64) / 2.0**53
        # Each latent errs as often as it misses: at half of its places, of all positions.
        edges_L = np.cumsum(self.place_L / 2) / self.positions
        wrong_RS = np.searchsorted(edges_L, draw_RS, side="right")
        silent_RS = (wrong_RS >= self.num_latents) | (wrong_RS[..., None] == matched_RSK).any(-1)
        wrong_RS = np.where(silent_RS, NONE, wrong_RS)
        known_RS = self.counted_V[np.minimum(tokens_RS, len(self.counted_V) - 1)]
        wrong_RS = np.where(known_RS, wrong_RS, NONE)
        return np.concatenate([left_RSK, wrong_RS[..., None]], axis=-1)


def _frequent(count_x: np.ndarray, positions: int) -> np.ndarray:
    """Return the most frequent patterns that are not too frequent, the first ones of equal ones."""
    # In a tiny text a few places are a large share.
    rare_x = np.where(count_x <= max(_MOST * positions, 8), count_x, 0)
    order = np.argsort(-rare_x, kind="stable")[: LATENTS // 2]
    return order[rare_x[order] > 0]


def _hashes(tokens_RS: np.ndarray) -> np.ndarray:
    """Return 64 bits for each position (R, S), from its token and the ones before it."""
    padded = np.pad(tokens_RS.astype(np.uint64), ((0, 0), (_REACH, 0)))
    length = tokens_RS.shape[1]
    hash_RS = np.zeros(tokens_RS.shape, np.uint64)
    for back in range(_REACH):
        at = _REACH - back
        hash_RS = (hash_RS ^ padded[:, at : at + length]) * _FACTOR + _ADDEND
        hash_RS ^= hash_RS >> np.uint64(29)
    return hash_RS
