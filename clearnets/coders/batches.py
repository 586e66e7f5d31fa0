"""Make batches of tokens on a device, for the training and the evaluation of coders.

Shapes: R rows of a split, B rows of a batch, S positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearnets import UserError
from clearnets.coders.feedforward import document_positions
from clearnets.data.tokens import TokenStore
from clearnets.pipeline.runtime import seed_for

BATCH_ROWS = 64
"""Rows per forward pass of an evaluation, at most; changes no number beyond rounding."""
INTERVENTION_ROWS = 192
"""Losses under interventions are measured on this many rows, evenly spaced over the split (all
where there are fewer): some 20 000 tokens at the default, paired with the clean loss on the same
rows. Losses of the pair, fvu, l0 and dead shares use the whole split."""


class Batch(NamedTuple):
    """Some rows of a split."""

    tokens_BS: Tensor
    """int64."""
    counted_BS: Tensor
    """THE mask: not bos, eos or pad, and not the first position."""
    predicted_BS: Tensor
    """Which tokens the held-out loss counts as targets: not bos or pad; eos counts. The first
    position is never one."""
    positions_BS: Tensor | None
    """Positions within documents, where attention stays within them."""

    def split(self, rows: int) -> list[Batch]:
        """Return batches of so many rows, the last one of those that are left."""
        fields = [[None] * len(self.tokens_BS) if x is None else x.split(rows) for x in self]
        return [Batch(*parts) for parts in zip(*fields)]


def make_batch(
    store: TokenStore, rows_BS: np.ndarray, device: torch.device | str, *, within: bool = False
) -> Batch:
    """Return a batch of token rows; `within` keeps attention within documents.

    Columns of nothing but padding are left out: they cost time and count nowhere.
    """
    filled_S = (rows_BS != store.pad).any(axis=0)
    rows_BS = rows_BS[:, : max(2, int(filled_S.nonzero()[0].max(initial=0)) + 1)]
    predicted_BS = (rows_BS != store.bos) & (rows_BS != store.pad)
    predicted_BS[:, 0] = False
    tokens_BS = torch.from_numpy(rows_BS.astype(np.int64)).to(device)
    return Batch(
        tokens_BS,
        torch.from_numpy(store.counted(rows_BS)).to(device),
        torch.from_numpy(predicted_BS).to(device),
        document_positions(tokens_BS, store.bos) if within else None,
    )


def plan_rows(
    rows: int, *, tokens: int, batch_size: int, ctx_len: int, seed: int, grad_acc_steps: int = 1
) -> np.ndarray:
    """Return the train split's rows for each batch of the coders: (batches, batch_size), all
    different.

    The same for every family of one seed. At least one step, and whole steps of `grad_acc_steps`
    batches only.

    Raises:
        UserError: the split has fewer rows.
    """
    step = batch_size * grad_acc_steps
    needed = step * max(1, tokens // (step * ctx_len))
    if needed > rows:
        raise UserError(
            f"coders.tokens asks for {needed * ctx_len} tokens and the train split has "
            f"{rows * ctx_len}; lower coders.tokens or raise data.tokens.train"
        )
    order = np.random.default_rng(seed_for(seed, "coder-rows")).permutation(rows)
    return order[:needed].reshape(-1, batch_size)


@dataclass(frozen=True)
class HeldOut:
    """The rows of a held-out split, in batches of rows of like length.

    Attributes:
        store: the tokens.
        rows_RS: all rows of the split, the shortest text first.
        chosen: numbers of the rows on which interventions are made.
        device: of the batches.
        on_rows: called after each batch has been used, with the number of its rows.
    """

    store: TokenStore
    rows_RS: np.ndarray
    chosen: np.ndarray
    device: torch.device | str
    on_rows: Callable[[int], None]

    @classmethod
    def of(
        cls,
        store: TokenStore,
        split: str,
        device: torch.device | str,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> HeldOut:
        """Read a split. Its interventions are on `INTERVENTION_ROWS` rows, evenly spaced."""
        rows_RS = np.asarray(store.split(split))
        # Rows of like length make batches with little padding; the sums are the same in any order.
        rows_RS = rows_RS[np.argsort((rows_RS != store.pad).sum(axis=1), kind="stable")]
        return cls(store, rows_RS, evenly_spaced(len(rows_RS), INTERVENTION_ROWS), device, on_rows)

    def all(self) -> Iterator[Batch]:
        """Yield the whole split."""
        return self.batches(self.rows_RS)

    def intervened(self) -> Iterator[Batch]:
        """Yield the rows on which interventions are made."""
        return self.batches(self.rows_RS[self.chosen])

    def others(self) -> Iterator[Batch]:
        """Yield all other rows."""
        return self.batches(np.delete(self.rows_RS, self.chosen, axis=0))

    def batches(self, rows_RS: np.ndarray, *, within: bool = False) -> Iterator[Batch]:
        """Yield any rows of the same store; `within` keeps attention within documents."""
        size = self.store.rows_at_once(BATCH_ROWS)
        for start in range(0, len(rows_RS), size):
            part_BS = rows_RS[start : start + size]
            yield make_batch(self.store, part_BS, self.device, within=within)
            self.on_rows(len(part_BS))


def evenly_spaced(rows: int, count: int) -> np.ndarray:
    """Return at most `count` of `rows` row numbers, evenly spaced over all."""
    return np.arange(min(rows, count)) * rows // min(rows, count)
