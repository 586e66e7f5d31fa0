"""Measure how well single latents recover known concepts: thresholds, token sets, draws.

A latent above a threshold is a classifier of tokens, and so is a concept's label. For each pair of
a latent and a concept the threshold is the one of the largest F1 (or MCC) over the counted tokens
of `concept_fit`; the score that is reported is that of the same threshold on `concept_test`. What
is *chosen* (the threshold of a pair, the latent of a concept, the concept of a latent, the tokens
of a set) is chosen on `concept_fit` alone.

One more false alarm lowers F1 and never raises MCC. So the best threshold is the activation at one
of the concept's own tokens, and only these are tried: a twentieth of all. A latent may also never
fire, which scores 0.

Shape suffixes: E entries of a layer (a latent active at a token), e those at tokens of one concept,
L latents of a layer, N latents of a family, the candidates, C concepts, K latents that are looked
at together, W machine words of all positions of a split as bits, V token ids, R draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearnets.latents.store import LayerCache

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Activations are float16 and above zero, so their bits rise with their value.
_BITS = 16
_ALL = (1 << _BITS) - 1
# Latents of a layer that may join the first one where concepts are split, the best by F1, and how
# many of them do at most.
SPLIT_CANDIDATES = 64
MAX_SPLIT = 8
# A latent with fewer hits on `concept_fit` may be pure by accident.
MIN_HITS = 10


@dataclass(frozen=True)
class Labels:
    """The concepts of one split.

    Attributes:
        label_RS: bit i of a counted position says that it is of concept i; 0 where none counts.
        counted_RS: the counted positions.
        concepts: how many there are.
    """

    label_RS: NDArray[np.uint64]
    counted_RS: NDArray[np.bool_]
    concepts: int

    @classmethod
    def of(cls, label_RS: np.ndarray, counted_RS: np.ndarray, concepts: int) -> Labels:
        """Leave out the labels of uncounted positions."""
        masked_RS = np.where(counted_RS, label_RS, np.uint64(0))
        return cls(masked_RS, np.asarray(counted_RS), concepts)

    @cached_property
    def tokens(self) -> int:
        """Counted tokens."""
        return int(self.counted_RS.sum())

    def where(self, concept: int) -> NDArray[np.bool_]:
        """Return the tokens of a concept, (rows, positions)."""
        return (self.label_RS & _bit(concept)) != 0

    @cached_property
    def positives(self) -> Ints:
        """(C,) counted tokens of each concept."""
        return np.array([self.where(c).sum() for c in range(self.concepts)], dtype=np.int64)


def _bit(concept: int) -> np.uint64:
    return np.uint64(1) << np.uint64(concept)


def f1(tp: Any, fired: Any, positives: Any, tokens: Any) -> Any:
    """Return 2 tp / (fired + positives), elementwise; 0 where both are 0."""
    tp, fired = np.asarray(tp, np.float64), np.asarray(fired, np.float64)
    return 2 * tp / np.maximum(fired + positives, 1)


def mcc(tp: Any, fired: Any, positives: Any, tokens: Any) -> Any:
    """Return Matthews' correlation coefficient, elementwise; 0 where a class is empty."""
    tp, fired, positives = (np.asarray(x, np.float64) for x in (tp, fired, positives))
    square = fired * (tokens - fired) * positives * (tokens - positives)
    return (tp * tokens - fired * positives) / np.sqrt(np.where(square > 0, square, np.inf))


Criterion = Callable[[Any, Any, Any, Any], Any]
CRITERIA: Mapping[str, Criterion] = {"f1": f1, "mcc": mcc}


@dataclass(frozen=True)
class Ranked:
    """The entries of a layer on one split, by latent and, within it, the strongest first.

    Attributes:
        code_E: latent * 2**16 + (2**16 - 1 - the bits of the activation), ascending.
        token_E: row * S + position of each entry.
        label_E: its concepts.
        fired_E: entries of the same latent that are at least as strong.
        start_L: first entry of each latent, and the end of the last one.
    """

    code_E: Ints
    token_E: Ints
    label_E: NDArray[np.uint64]
    fired_E: Ints
    start_L: Ints

    @property
    def num_latents(self) -> int:
        return len(self.start_L) - 1

    @cached_property
    def _label_8E(self) -> NDArray[np.uint8]:
        """The labels by byte: one of them is read in an eighth of the time."""
        return np.ascontiguousarray(self.label_E.view(np.uint8).reshape(-1, 8).T)

    def of(self, concept: int) -> Ints:
        """Return which entries are of a concept, ascending."""
        byte, bit = divmod(concept, 8)
        byte = byte if sys.byteorder == "little" else 7 - byte
        return np.flatnonzero(self._label_8E[byte] & np.uint8(1 << bit) != 0)

    def firing(self, latent: Any, code: Any) -> Ints:
        """Return numbers of the tokens at which a latent fires; `code` is its threshold's or -1."""
        end = int(np.searchsorted(self.code_E, code, side="right"))
        return self.token_E[self.start_L[latent] : max(end, int(self.start_L[latent]))]


def rank(cache: LayerCache, labels: Labels) -> Ranked:
    """Sort the entries of a layer for `fit` and `measure`."""
    bits_E = cache.act.astype(np.float16).view(np.uint16).astype(np.int64)
    code_E = (cache.latent.astype(np.int64) << _BITS) + (_ALL - bits_E)
    order_E = np.argsort(code_E)
    code_E = code_E[order_E]
    positions = labels.label_RS.shape[1]
    token_E = (cache.row.astype(np.int64) * positions + cache.position)[order_E]
    start_L = cache.offsets.astype(np.int64)
    # An entry's rank counts all that are as strong: up to the end of its run of equal codes.
    ends = np.flatnonzero(np.diff(code_E, append=-1) != 0) + 1
    end_E = np.repeat(ends, np.diff(ends, prepend=0))
    return Ranked(
        code_E, token_E, labels.label_RS.ravel()[token_E], end_E - start_L[code_E >> _BITS], start_L
    )


@dataclass(frozen=True)
class Thresholds:
    """The best threshold of each latent of a layer for one concept, and its worth where it was fit.

    Attributes:
        code_L: of the weakest activation that fires; -1 for a latent that never does.
        score_L: F1 or MCC on the split that it was fit on.
        tp_L, fired_L: its hits and firings there.
    """

    code_L: Ints
    score_L: Floats
    tp_L: Ints
    fired_L: Ints


def fit(
    ranked: Ranked, at_e: Ints, positives: int, tokens: int, criterion: Criterion
) -> Thresholds:
    """Find each latent's threshold of the largest score; of equal ones the highest.

    Args:
        ranked: the entries.
        at_e: which of them are of the concept, ascending.
        positives: tokens of the concept.
        tokens: all counted tokens.
        criterion: `f1` or `mcc`.
    """
    latents = ranked.num_latents
    code_L = np.full(latents, -1, dtype=np.int64)
    score_L = np.zeros(latents)
    tp_L, fired_L = np.zeros_like(code_L), np.zeros_like(code_L)
    first_L = np.searchsorted(at_e, ranked.start_L)
    there = np.flatnonzero(first_L[:-1] < first_L[1:])
    if not len(there):
        return Thresholds(code_L, score_L, tp_L, fired_L)
    first_l, count_l = first_L[there], first_L[there + 1] - first_L[there]
    # Of a run of equal activations the last entry has all its hits, so it scores highest.
    tp_e = np.arange(1, len(at_e) + 1) - np.repeat(first_l, count_l)
    fired_e = ranked.fired_E[at_e]
    score_e = criterion(tp_e, fired_e, positives, tokens)
    top_l = np.maximum.reduceat(score_e, first_l)
    best = np.flatnonzero(score_e == np.repeat(top_l, count_l))
    best_l = best[np.searchsorted(best, first_l)]
    fires_l = top_l > 0
    there, best_l = there[fires_l], best_l[fires_l]
    code_L[there] = ranked.code_E[at_e[best_l]]
    score_L[there] = top_l[fires_l]
    tp_L[there], fired_L[there] = tp_e[best_l], fired_e[best_l]
    return Thresholds(code_L, score_L, tp_L, fired_L)


def measure(ranked: Ranked, at_e: Ints, code_L: Ints) -> tuple[Ints, Ints]:
    """Return hits and firings (L,) of thresholds on another split, with the entries `ranked`."""
    start_L = ranked.start_L[:-1]
    end_L = np.searchsorted(ranked.code_E, code_L, side="right")
    end_L = np.where(code_L < 0, start_L, end_L)
    tp_L = np.searchsorted(at_e, end_L) - np.searchsorted(at_e, start_L)
    return tp_L, end_L - start_L


def threshold_of(code_L: Ints) -> Floats:
    """Return the activation that a code stands for; nan for a latent that never fires."""
    bits_L = (_ALL - (code_L & _ALL)).astype(np.uint16)
    return np.where(code_L < 0, np.nan, bits_L.view(np.float16).astype(np.float64))


@dataclass(frozen=True)
class Pairs:
    """Every latent of a family against every concept, by one criterion.

    Attributes:
        code_CN: thresholds, chosen on `concept_fit`.
        fit_CN, test_CN: their scores on both splits.
        tp_CN, fired_CN: their hits and firings on `concept_fit`.
    """

    code_CN: Ints
    fit_CN: Floats
    test_CN: Floats
    tp_CN: Ints
    fired_CN: Ints

    def thresholds(self, concept: int, layer: int, num_latents: int) -> Thresholds:
        """Return the thresholds of one layer's latents for one concept."""
        part = slice(layer * num_latents, (layer + 1) * num_latents)
        return Thresholds(
            code_L=self.code_CN[concept, part],
            score_L=self.fit_CN[concept, part],
            tp_L=self.tp_CN[concept, part],
            fired_L=self.fired_CN[concept, part],
        )


def pairs(
    layers: Iterable[tuple[Ranked, Ranked]], on_fit: Labels, on_test: Labels
) -> dict[str, Pairs]:
    """Return by criterion the `Pairs` of all layers of a family, one layer behind the other.

    `layers` gives each layer's entries on `concept_fit` and `concept_test`; one is held at a time.
    """
    each = [_layer_pairs(*layer, on_fit, on_test) for layer in layers]
    return {
        name: Pairs(*(np.concatenate(parts, axis=1) for parts in zip(*(one[name] for one in each))))
        for name in CRITERIA
    }


def _layer_pairs(
    fitted: Ranked, tested: Ranked, on_fit: Labels, on_test: Labels
) -> dict[str, list[np.ndarray]]:
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in CRITERIA}
    sizes = zip(on_fit.positives.tolist(), on_test.positives.tolist())
    for concept, (fit_positives, test_positives) in enumerate(sizes):
        at_fit, at_test = fitted.of(concept), tested.of(concept)
        for name, criterion in CRITERIA.items():
            best = fit(fitted, at_fit, fit_positives, on_fit.tokens, criterion)
            tp_L, fired_L = measure(tested, at_test, best.code_L)
            test_L = criterion(tp_L, fired_L, test_positives, on_test.tokens)
            rows[name].append((best.code_L, best.score_L, test_L, best.tp_L, best.fired_L))
    return {name: [np.stack(column) for column in zip(*found)] for name, found in rows.items()}


@dataclass(frozen=True)
class TokenSet:
    """The best set of token ids for a concept.

    Attributes:
        ids: those that it says yes to, ascending.
        fit, test: its F1 on both splits.
    """

    ids: Ints
    fit: float
    test: float


def token_sets(
    on_fit: Labels, fit_RS: np.ndarray, on_test: Labels, test_RS: np.ndarray
) -> list[TokenSet]:
    """Return for each concept the set of token ids of the largest F1 on `concept_fit`.

    The best set holds the ids with the largest share of the concept's tokens, down to some share
    (Lipton, Elkan and Narayanaswamy 2014), so it is found by one sort. Ids that `concept_fit` does
    not hold are in no set.

    Args:
        on_fit, on_test: the labels.
        fit_RS, test_RS: the tokens.
    """
    size = int(max(fit_RS.max(), test_RS.max())) + 1
    count_V = np.bincount(fit_RS[on_fit.counted_RS], minlength=size)
    found = []
    for concept in range(on_fit.concepts):
        here_RS = on_fit.where(concept)
        positives = int(here_RS.sum())
        hit_V = np.bincount(fit_RS[here_RS], minlength=size)
        share_V = hit_V / np.maximum(count_V, 1)
        order_V = np.argsort(-share_V, kind="stable")
        order_V = order_V[hit_V[order_V] > 0]
        score_V = f1(np.cumsum(hit_V[order_V]), np.cumsum(count_V[order_V]), positives, 0)
        best = int(score_V.argmax()) + 1 if len(score_V) else 0
        ids = np.sort(order_V[:best])
        yes_RS = np.isin(test_RS, ids) & on_test.counted_RS
        truth_RS = on_test.where(concept)
        test = f1((yes_RS & truth_RS).sum(), yes_RS.sum(), truth_RS.sum(), 0)
        found.append(TokenSet(ids, float(score_V[best - 1]) if best else 0.0, float(test)))
    return found


def draws(fit_CN: Floats, *, candidates: int, resamples: int, rng: np.random.Generator) -> Ints:
    """Return for each draw of `candidates` latents the best one for each concept.

    Latents are drawn uniformly without replacement. The best has the largest score on
    `concept_fit`; of equal ones the first counts.

    Returns:
        (R, C) indices into the candidates of the family.
    """
    concepts, latents = fit_CN.shape
    assert candidates <= latents, (candidates, latents)
    order_CN = np.argsort(-fit_CN, axis=1, kind="stable")
    chosen_RC = np.empty((resamples, concepts), dtype=np.int64)
    for draw_C in chosen_RC:
        drawn_N = np.zeros(latents, dtype=bool)
        drawn_N[rng.permutation(latents)[:candidates]] = True
        first_C = drawn_N[order_CN].argmax(axis=1)
        draw_C[:] = order_CN[np.arange(concepts), first_C]
    return chosen_RC


@dataclass(frozen=True)
class Split:
    """How the latents of one layer share a concept.

    Attributes:
        main: the best latent and those that raise F1 on `concept_fit` by enough, in that order.
        fit, test: F1 of their union on both splits.
        absorbed: share of the concept's tokens on `concept_test` at which none of them fires but
            another latent of the concept does.
    """

    main: tuple[int, ...]
    fit: float
    test: float
    absorbed: float


def split(
    fitted: Ranked,
    tested: Ranked,
    best: Thresholds,
    concept: int,
    on_fit: Labels,
    on_test: Labels,
    *,
    gain: float,
    purity: float,
) -> Split:
    """Measure feature splitting and absorption in the layer of a concept's best latent.

    *Split* (Bricken et al. 2023; measured as in Chanin et al. 2024): the concept is shared by
    several latents. Chanin et al. add latents to a sparse probe while its F1 rises by 0.03; here
    the union of thresholded latents takes the place of the probe, each latent at its own best
    threshold, the one that adds most next.

    *Absorption* (Chanin et al. 2024): the main latents are non-activating at some of the concept's
    tokens because a more special latent fires there. They look for it with a probe's direction,
    which not every family here has a place for; here it is a latent of the same layer that is
    almost only active within the concept: at least `purity` of its firings on `concept_fit`, but
    adds too little to be a main one.

    Args:
        fitted, tested: the layer's entries on both splits.
        best: its latents' thresholds for the concept, by F1.
        concept: number of the concept.
        on_fit, on_test: the labels.
        gain: what a further main latent must add to F1 on `concept_fit`.
        purity: of a latent that counts as one of the concept.
    """
    order_L = np.argsort(-best.score_L, kind="stable")
    near_K = order_L[:SPLIT_CANDIDATES][best.score_L[order_L[:SPLIT_CANDIDATES]] > 0]
    pure = (best.tp_L >= MIN_HITS) & (best.tp_L >= purity * best.fired_L)
    pure_K = np.setdiff1d(np.flatnonzero(pure), near_K)
    both_K = np.concatenate([near_K, pure_K])
    truth_W = _pack(on_fit.where(concept).ravel())
    fired_KW = _firings(fitted, near_K, best.code_L, truth_W)
    main, score = _add_while_it_helps(fired_KW, truth_W, gain)
    there_W = _pack(on_test.where(concept).ravel())
    fired_KW = _firings(tested, both_K, best.code_L, there_W)
    union_W = np.bitwise_or.reduce(fired_KW[main], axis=0) if main else np.zeros_like(there_W)
    others = np.flatnonzero(pure[both_K])
    others = others[~np.isin(others, main)]
    rest_W = (
        np.bitwise_or.reduce(fired_KW[others], axis=0) if len(others) else np.zeros_like(there_W)
    )
    there = int(_count(there_W))
    test = f1(_count(union_W & there_W), _count(union_W), there, 0)
    absorbed = _count(there_W & ~union_W & rest_W) / max(there, 1)
    return Split(tuple(int(both_K[k]) for k in main), score, float(test), float(absorbed))


def _add_while_it_helps(
    fired_KW: np.ndarray, truth_W: np.ndarray, gain: float
) -> tuple[list[int], float]:
    """Return the latents, from the first on, that each raise F1 of the union by `gain`, and F1."""
    positives = int(_count(truth_W))
    main: list[int] = []
    union_W, score = np.zeros_like(truth_W), 0.0
    while len(main) < min(MAX_SPLIT, len(fired_KW)):
        tried_KW = union_W | fired_KW
        score_K = f1(_count(tried_KW & truth_W), _count(tried_KW), positives, 0)
        k = int(score_K.argmax()) if main else 0
        if main and score_K[k] < score + gain:
            break
        main.append(k)
        union_W, score = tried_KW[k], float(score_K[k])
    return main, score


def _firings(ranked: Ranked, latent_K: Ints, code_L: Ints, like_W: np.ndarray) -> np.ndarray:
    """Return (K, W) bits of the positions at which latents fire above their thresholds."""
    bits_KW = np.zeros((len(latent_K), len(like_W)), dtype=np.uint64)
    for row_W, latent in zip(bits_KW, latent_K):
        flags = np.zeros(len(like_W) * 64, dtype=bool)
        flags[ranked.firing(latent, code_L[latent])] = True
        row_W[:] = np.packbits(flags).view(np.uint64)
    return bits_KW


def _pack(flag_T: np.ndarray) -> np.ndarray:
    padded = np.zeros(-(-len(flag_T) // 64) * 64, dtype=bool)
    padded[: len(flag_T)] = flag_T
    return np.packbits(padded).view(np.uint64)


def _count(bits_xW: np.ndarray) -> Any:
    return np.bitwise_count(bits_xW).sum(axis=-1, dtype=np.int64)
