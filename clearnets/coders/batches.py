"""From the token store to batches on a device.

Shapes: R rows of a split, B rows of a batch, S positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearnets import UserError
from clearnets.coders.feedforward import document_positions
from clearnets.data.tokens import TokenStore
from clearnets.pipeline.runtime import seed_for


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


def make_batch(
    store: TokenStore, rows_BS: np.ndarray, device: torch.device | str, *, within: bool = False
) -> Batch:
    """A batch of token rows; `within` keeps attention within documents.

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
    """Rows of the train split for each batch of the coders, (batches, batch_size), all different.

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
