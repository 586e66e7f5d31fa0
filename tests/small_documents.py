"""Documents of a few token ids, their rows as the train split packs them, and windows of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearnets.data.packing import WINDOW, Documents, fill_rows, stream

PAD, BOS, EOS = 0, 1, 2


def make(texts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None = None):
    """Return documents of the given ids; the nll of each is its index."""
    return Documents(
        np.array([i for text in texts for i in text], np.uint32),
        np.array([len(text) for text in texts], np.int64),
        None if labels is None else np.array([i for part in labels for i in part], np.uint64),
        np.arange(len(texts), dtype=np.float64),
    )


def pack_dense(docs: Documents, *, ctx_len: int) -> np.ndarray:
    """Return full rows: documents follow each other and are cut anywhere."""
    return fill_rows(stream(docs, bos=BOS, eos=EOS), ctx_len=ctx_len, bos=BOS)[0]


def row_windows(
    rows: np.ndarray, *, pad: int = PAD, bos: int = BOS, eos: int = EOS
) -> set[tuple[int, ...]]:
    """Return every WINDOW neighbouring tokens of rows that lie within one document."""
    found = set()
    for row in rows.tolist():
        for start in range(len(row) - WINDOW + 1):
            window = row[start : start + WINDOW]
            if not (bos in window[1:] or eos in window[:-1] or pad in window):
                found.add(tuple(window))
    return found
