"""Packing of tokenized documents into rows, with labels, and removal of repeated text.

Shapes: T tokens of all documents, D documents, N tokens of one document, R rows, S tokens per
row (ctx_len), W windows, V windows of other documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 32
# A window of a row holds at most one bos and one eos. So when no 30 neighbouring tokens of text
# are shared, no 32-token window of a row is, wherever rows are cut.
GUARD = WINDOW - 2
_BASE = np.uint64(0x9E3779B97F4A7C15)
# Size of the table that filters windows before their exact comparison; a power of two.
_SLOTS = 1 << 24


@dataclass(frozen=True)
class Documents:
    """The concatenated token ids of documents, without special tokens.

    Attributes:
        ids_T: token ids, uint32.
        lengths_D: tokens per document, each at least 1.
        labels_T: concept bitmask per token, uint64, or None where the corpus has none.
        nll_D: nats of the generator's choices per document; zeros where there is no generator.
    """

    ids_T: np.ndarray
    lengths_D: np.ndarray
    labels_T: np.ndarray | None
    nll_D: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths_D)

    @property
    def starts_D(self) -> np.ndarray:
        """Index of each document's first token."""
        return np.cumsum(self.lengths_D) - self.lengths_D

    def select(self, keep_D: np.ndarray) -> Documents:
        """Return the documents where `keep_D` is true, in order."""
        keep_T = np.repeat(keep_D, self.lengths_D)
        labels_T = None if self.labels_T is None else self.labels_T[keep_T]
        return Documents(self.ids_T[keep_T], self.lengths_D[keep_D], labels_T, self.nll_D[keep_D])


def concatenate(parts: Sequence[Documents]) -> Documents:
    """Return the documents of all parts, in order. All parts have labels or none has."""
    if not parts:
        return Documents(
            np.zeros(0, np.uint32), np.zeros(0, np.int64), None, np.zeros(0, np.float64)
        )
    labels = [part.labels_T for part in parts if part.labels_T is not None]
    assert len(labels) in (0, len(parts))
    return Documents(
        np.concatenate([part.ids_T for part in parts]),
        np.concatenate([part.lengths_D for part in parts]),
        np.concatenate(labels) if labels else None,
        np.concatenate([part.nll_D for part in parts]),
    )


def carry_labels(
    offsets_N2: np.ndarray, spans: Sequence[tuple[int, int, int]], text: str
) -> np.ndarray:
    """Return the concept bitmask of each token (N,): the union over the spans that it overlaps.

    Whitespace at a token's ends does not count as overlap.

    Args:
        offsets_N2: first and past-the-last character of each token.
        spans: (start, end, bitmask), sorted and not overlapping.
        text: the document.
    """
    labels_N = np.zeros(len(offsets_N2), np.uint64)
    if not spans:
        return labels_N
    first_N, last_N = offsets_N2[:, 0].copy(), offsets_N2[:, 1].copy()
    # A blank that belongs to a token is nearly always one leading space; any other is rarer.
    blank = np.array([char.isspace() for char in text] + [False])
    while (leading := blank[first_N] & (first_N < last_N)).any():
        first_N += leading
    while (trailing := blank[last_N - 1] & (first_N < last_N)).any():
        last_N -= trailing
    starts, ends, masks = (np.array(column) for column in zip(*spans))
    low_N = np.searchsorted(ends, first_N, side="right")
    high_N = np.where(first_N < last_N, np.searchsorted(starts, last_N, side="left"), 0)
    masks = masks.astype(np.uint64)
    for step in range(int((high_N - low_N).max(initial=0))):
        inside = low_N + step < high_N
        labels_N[inside] |= masks[low_N[inside] + step]
    return labels_N


def stream(docs: Documents, *, bos: int, eos: int | None) -> np.ndarray:
    """Return all documents as `<bos> document <eos>`, concatenated: (T + 2 D,) uint32; without an
    eos (T + D,)."""
    ends = int(eos is not None)
    out = np.empty(len(docs.ids_T) + (1 + ends) * len(docs), np.uint32)
    starts_D = docs.starts_D + (1 + ends) * np.arange(len(docs))
    body = np.ones(len(out), bool)
    out[starts_D], body[starts_D] = bos, False
    if eos is not None:
        ends_D = starts_D + docs.lengths_D + 1
        out[ends_D], body[ends_D] = eos, False
    out[body] = docs.ids_T
    return out


def fill_rows(tokens_T: np.ndarray, *, ctx_len: int, bos: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a stream (see `stream`) into full rows (R, S) and a rest.

    A row that continues a document begins with a bos of its own, so that position 0 is always bos.
    Filling rows with the rest and further documents gives the same rows as all documents at once.
    """
    rows_RS = np.full((len(tokens_T) // (ctx_len - 1) + 1, ctx_len), bos, np.uint32)
    row, at = 0, 0
    while at < len(tokens_T):
        lead = int(tokens_T[at] != bos)
        piece = tokens_T[at : at + ctx_len - lead]
        if len(piece) < ctx_len - lead:
            break
        rows_RS[row, lead:] = piece
        row, at = row + 1, at + len(piece)
    return rows_RS[:row], tokens_T[at:]


def pack_single(
    docs: Documents, *, ctx_len: int, bos: int, eos: int | None, pad: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return rows (R, S) that hold one document each, `<bos> document <eos>` and then pad.

    A longer document continues in further rows, each of which begins with bos; without an eos it
    is cut, so that every row begins with a document.

    Returns:
        Rows, and labels of the same shape (0 at special tokens) or None.
    """
    width = ctx_len - 1
    if eos is None:
        docs = _cut(docs, width)
    body_D = docs.lengths_D + (eos is not None)
    rows_D = -(-body_D // width)
    first_row_D = np.cumsum(rows_D) - rows_D
    rows_RS = np.full((int(rows_D.sum()), ctx_len), pad, np.uint32)
    rows_RS[:, 0] = bos
    position_T = np.arange(len(docs.ids_T)) - np.repeat(docs.starts_D, docs.lengths_D)
    row_T = np.repeat(first_row_D, docs.lengths_D) + position_T // width
    column_T = 1 + position_T % width
    rows_RS[row_T, column_T] = docs.ids_T
    if eos is not None:
        rows_RS[first_row_D + docs.lengths_D // width, 1 + docs.lengths_D % width] = eos
    if docs.labels_T is None:
        return rows_RS, None
    labels_RS = np.zeros(rows_RS.shape, np.uint64)
    labels_RS[row_T, column_T] = docs.labels_T
    return rows_RS, labels_RS


def _cut(docs: Documents, most: int) -> Documents:
    """Return the first tokens of each document, at most so many."""
    position_T = np.arange(len(docs.ids_T)) - np.repeat(docs.starts_D, docs.lengths_D)
    keep_T = position_T < most
    labels_T = None if docs.labels_T is None else docs.labels_T[keep_T]
    return Documents(docs.ids_T[keep_T], np.minimum(docs.lengths_D, most), labels_T, docs.nll_D)


def _mix(value: np.ndarray) -> np.ndarray:
    """Return the splitmix64 hash of each 64-bit number."""
    value = (value.astype(np.uint64) + np.uint64(1)) * _BASE
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def document_hashes(docs: Documents) -> np.ndarray:
    """Return a 64-bit hash of each document's tokens in their order (D,)."""
    if not len(docs):
        return np.zeros(0, np.uint64)
    position_T = np.arange(len(docs.ids_T)) - np.repeat(docs.starts_D, docs.lengths_D)
    powers = np.cumprod(np.full(int(docs.lengths_D.max()), _BASE, np.uint64))
    terms_T = _mix(docs.ids_T) * powers[position_T]
    return _mix(np.add.reduceat(terms_T, docs.starts_D) + docs.lengths_D.astype(np.uint64))


def window_hashes(docs: Documents, *, window: int = GUARD) -> tuple[np.ndarray, np.ndarray]:
    """Return a polynomial hash of every window of `window` tokens within a document.

    A shorter document counts as one window.

    Returns:
        Hashes (W,) uint64 and the document of each (W,).
    """
    short_D = docs.lengths_D < window
    hashes, owners = [document_hashes(docs.select(short_D))], [np.flatnonzero(short_D)]
    count = len(docs.ids_T) - window + 1
    if count > 0:
        mixed_T = _mix(docs.ids_T)
        rolling = np.zeros(count, np.uint64)
        for step in range(window):
            rolling *= _BASE
            rolling += mixed_T[step : step + count]
        owner = np.repeat(np.arange(len(docs)), docs.lengths_D)[:count]
        end = np.repeat(docs.starts_D + docs.lengths_D, docs.lengths_D)[:count]
        within = np.arange(count) + window <= end
        hashes.append(rolling[within])
        owners.append(owner[within])
    return np.concatenate(hashes), np.concatenate(owners)


def drop_leaks(docs: Documents, known: Iterable[Documents]) -> Documents:
    """Return the documents that share no window with any of `known`.

    `known` is read once and never held, so it may be larger than memory.
    """
    if not len(docs):
        return docs
    hashes, owners = window_hashes(docs)
    mine_W = np.unique(hashes)
    # The table rules out most windows of `known`.
    slot = np.uint64(_SLOTS - 1)
    maybe = np.zeros(_SLOTS, bool)
    maybe[mine_W & slot] = True
    found_W = np.zeros(len(mine_W), bool)
    for others in known:
        other_V = window_hashes(others)[0]
        other_V = other_V[maybe[other_V & slot]]
        at_V = np.minimum(np.searchsorted(mine_W, other_V), len(mine_W) - 1)
        found_W[at_V[mine_W[at_V] == other_V]] = True
    clean_D = np.ones(len(docs), bool)
    clean_D[owners[found_W[np.searchsorted(mine_W, hashes)]]] = False
    return docs.select(clean_D)


class Hashes:
    """A growing set of 64-bit hashes that needs little more than eight bytes for each."""

    def __init__(self) -> None:
        self._sorted = np.zeros(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Add hashes; return for each whether it is new, to the set and among those before it."""
        at = np.minimum(np.searchsorted(self._sorted, hashes), max(len(self._sorted) - 1, 0))
        old = self._sorted[at] == hashes if len(self._sorted) else np.zeros(len(hashes), bool)
        fresh = ~old
        for index in np.flatnonzero(fresh):
            value = int(hashes[index])
            fresh[index] = value not in self._recent
            self._recent.add(value)
        if len(self._recent) > max(1 << 16, len(self._sorted) // 16):
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return fresh


def drop_repeats(docs: Documents, seen: Hashes) -> Documents:
    """Return the documents that are not in `seen`, without repeats, and add them to `seen`."""
    return docs.select(seen.add(document_hashes(docs)))


def until(docs: Documents, tokens: int) -> Documents:
    """Return the first documents that, with their bos and eos, together reach `tokens` tokens."""
    ends_D = np.cumsum(docs.lengths_D + 2)
    return docs.select(ends_D - (docs.lengths_D + 2) < tokens)
