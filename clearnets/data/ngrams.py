"""Losses of unigram, bigram and trigram models, the baselines of a language model's loss.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, equations 23 to 27) on arrays:
an n-gram is one integer, its tokens the digits in base V, so counting is sorting.

Shapes: T tokens of a stream, P predicted tokens, G distinct n-grams, C distinct contexts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Order:
    """One order of the model: adjusted counts of its n-grams, and totals by context."""

    grams_G: np.ndarray
    counts_G: np.ndarray
    contexts_C: np.ndarray
    totals_C: np.ndarray
    backoff_C: np.ndarray
    discounts: np.ndarray


@dataclass(frozen=True)
class NGram:
    """An interpolated Kneser-Ney model; `orders` begins with order 1."""

    vocab_size: int
    predictable: int
    orders: tuple[_Order, ...]

    def probabilities(self, grams_PO: np.ndarray) -> np.ndarray:
        """Return p(last token | tokens before it), (P,), for the rows of `grams_PO` (P, order)."""
        p_P = np.full(len(grams_PO), 1.0 / self.predictable)
        for size, order in enumerate(self.orders, 1):
            codes_P = _encode(grams_PO[:, -size:], self.vocab_size)
            count_P = _lookup(order.grams_G, order.counts_G, codes_P)
            context_P = codes_P // self.vocab_size
            total_P = _lookup(order.contexts_C, order.totals_C, context_P)
            backoff_P = _lookup(order.contexts_C, order.backoff_C, context_P)
            discounted_P = np.maximum(count_P - order.discounts[np.minimum(count_P, 3)], 0)
            known = total_P > 0
            p_P[known] = (discounted_P[known] + backoff_P[known] * p_P[known]) / total_P[known]
        return p_P

    def loss(self, stream: np.ndarray, *, bos: int, pad: int) -> float:
        """Return the mean loss of a stream, in nats per predicted token."""
        grams_PO = predicted(stream, order=len(self.orders), bos=bos, pad=pad)
        return float(-np.log(self.probabilities(grams_PO)).mean())


def predicted(stream: np.ndarray, *, order: int, bos: int, pad: int) -> np.ndarray:
    """Return the n-grams (P, order) that end at each predicted token of a stream (T,).

    A stream is a series of `<bos> tokens`; pads are ignored. Every token but bos is predicted,
    from its predecessors back to its bos, which is repeated where there are too few. For rows
    that begin with bos, `rows.reshape(-1)` is such a stream: these are then the positions of a
    language model's loss.
    """
    stream = stream[stream != pad].astype(np.int64)
    assert len(stream) == 0 or stream[0] == bos
    columns = [stream]
    for back in range(1, order):
        shifted = np.concatenate([np.full(back, bos), stream[:-back]])[: len(stream)]
        # A context reaches back no further than its bos: before that stands bos again.
        ended = columns[0] == bos if back > 1 else np.zeros(len(stream), bool)
        columns.insert(0, np.where(ended, bos, shifted))
    return np.stack(columns, axis=1)[stream != bos]


def fit(stream: np.ndarray, *, order: int, vocab_size: int, bos: int, pad: int) -> NGram:
    """Fit an n-gram model to a stream (see `predicted`), of an order up to 3 or so.

    pad and bos are never predicted and get no probability.
    """
    assert vocab_size**order < 2**63
    codes = _encode(predicted(stream, order=order, bos=bos, pad=pad), vocab_size)
    grams_G, counts_G = np.unique(codes, return_counts=True)
    orders: list[_Order] = []
    for size in range(order, 0, -1):
        orders.insert(0, _order(grams_G, counts_G, vocab_size))
        # The order below counts the different words that come before. Nothing but bos comes
        # before bos, so n-grams that begin with it keep their number of occurrences.
        shorter_G = grams_G % vocab_size ** (size - 1)
        if size > 2:
            starts = shorter_G // vocab_size ** (size - 2) == bos
            weights_G = np.where(starts, counts_G, 1)
        else:
            weights_G = np.ones_like(counts_G)
        grams_G, group_G = np.unique(shorter_G, return_inverse=True)
        counts_G = np.bincount(group_G, weights=weights_G).astype(np.int64)
    return NGram(vocab_size, vocab_size - 2, tuple(orders))


def losses(
    train: np.ndarray, valid: np.ndarray, *, vocab_size: int, bos: int, pad: int
) -> dict[str, float]:
    """Return the losses on `valid` of models fitted to `train`, in nats per predicted token."""
    return {
        name: fit(train, order=order, vocab_size=vocab_size, bos=bos, pad=pad).loss(
            valid, bos=bos, pad=pad
        )
        for order, name in enumerate(("unigram", "bigram", "trigram"), 1)
    }


def _order(grams_G: np.ndarray, counts_G: np.ndarray, vocab_size: int) -> _Order:
    discounts = _discounts(counts_G)
    contexts_C, group_G = np.unique(grams_G // vocab_size, return_inverse=True)
    totals_C = np.bincount(group_G, weights=counts_G).astype(np.int64)
    backoff_C = np.bincount(group_G, weights=discounts[np.minimum(counts_G, 3)])
    return _Order(grams_G, counts_G, contexts_C, totals_C, backoff_C, discounts)


def _discounts(counts_G: np.ndarray) -> np.ndarray:
    """Return the discounts of counts of 0, 1, 2, and 3 or more."""
    n = [int((counts_G == count).sum()) for count in range(5)]
    customary = np.array([0.0, 0.5, 1.0, 1.5])
    if not all(n[1:]):
        return customary
    y = n[1] / (n[1] + 2 * n[2])
    estimates = np.array([0.0, *(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))])
    # From too few n-grams the estimate may be negative, which would leave nothing for new words.
    return estimates if (estimates[1:] > 0).all() else customary


def _encode(grams_PO: np.ndarray, vocab_size: int) -> np.ndarray:
    codes_P = np.zeros(len(grams_PO), np.int64)
    for column in grams_PO.T:
        codes_P = codes_P * vocab_size + column
    return codes_P


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values of the `wanted` keys among sorted `keys`, 0 for those that are absent."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], values.dtype.type(0))
