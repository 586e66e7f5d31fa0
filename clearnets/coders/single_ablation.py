"""Ablate single latents at single tokens, and read what the model then predicts there.

Many ablations of one row share a forward pass. Behind the row's tokens stand copies of some of its
positions, each changed by one ablation. A copy attends to the row before its position and to
itself, so that no copy sees another: it predicts what the model does at that position with that one
change. What the change does to later positions is left out.

Shapes: B rows, S positions of a row, Q copies, C copies of one row, D width, V vocabulary,
T = S + C.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clearnets.coders import feedforward

ROWS = 16
"""Rows of a forward pass; changes no number beyond rounding."""


@dataclass(frozen=True)
class Copies:
    """Positions of a text that are changed in one layer, each by itself.

    Attributes:
        row_Q, position_Q: where each stands.
        change_QD: what is added to the residual stream behind the layer there.
    """

    row_Q: np.ndarray
    position_Q: np.ndarray
    change_QD: np.ndarray

    def in_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of the copies in each of some rows, (rows, C); -1 where there is
        none."""
        members = [np.flatnonzero(self.row_Q == row) for row in rows]
        found_RC = np.full((len(rows), max(map(len, members))), -1)
        for found_C, own in zip(found_RC, members):
            found_C[: len(own)] = own
        return found_RC


class Predicted(NamedTuple):
    """What follows some copies of one layer.

    Attributes:
        layer: whose latents are ablated.
        number_Q: of the copies.
        clean_QV, changed_QV: log-probabilities of the next token, without and with their change.
    """

    layer: int
    number_Q: np.ndarray
    clean_QV: Tensor
    changed_QV: Tensor


@torch.no_grad()
def predict(model: Any, tokens_RS: np.ndarray, copies: Mapping[int, Copies]) -> Iterator[Predicted]:
    """Yield what a model predicts for copies, by layer, some rows at a time.

    Args:
        model: causal, in eval mode, on its device.
        tokens_RS: the text. Padding at the end of rows changes nothing before it.
        copies: the ablations, by layer.
    """
    for start in range(0, len(tokens_RS), ROWS):
        rows = np.arange(start, min(start + ROWS, len(tokens_RS)))
        device = next(model.parameters()).device
        tokens_BS = torch.from_numpy(tokens_RS[rows].astype(np.int64)).to(device)
        reading, hidden_BSD = feedforward.read(model, tokens_BS)
        for layer, own in copies.items():
            found_BC = own.in_rows(rows)
            if found_BC.size:
                yield _predict(
                    model, layer, own, found_BC, tokens_BS, reading.residual[layer], hidden_BSD
                )


def _predict(
    model: Any,
    layer: int,
    copies: Copies,
    found_BC: np.ndarray,
    tokens_BS: Tensor,
    stream_BSD: Tensor,
    hidden_BSD: Tensor,
) -> Predicted:
    device, length = tokens_BS.device, tokens_BS.shape[1]
    at_BC = torch.from_numpy(np.where(found_BC < 0, 0, copies.position_Q[found_BC])).to(device)
    change_BCD = torch.from_numpy(copies.change_QD[found_BC]).to(device)
    position_BT = _positions(tokens_BS, at_BC)
    with _own_masks(model, position_BT):
        changed_BTD = feedforward.run_above(
            model,
            layer,
            torch.cat([stream_BSD, _at(stream_BSD, at_BC) + change_BCD], dim=1),
            F.pad(tokens_BS, (0, at_BC.shape[1])),
            position_ids=position_BT,
            attention_mask=_masks(model.config, position_BT, length, stream_BSD.dtype),
        )
    there_BC = torch.from_numpy(found_BC >= 0).to(device)
    unembed, pair = model.get_output_embeddings(), (_at(hidden_BSD, at_BC), changed_BTD[:, length:])
    clean_QV, changed_QV = (unembed(h_BCD[there_BC]).log_softmax(-1) for h_BCD in pair)
    return Predicted(layer, found_BC[found_BC >= 0], clean_QV, changed_QV)


def _at(values_BSD: Tensor, at_BC: Tensor) -> Tensor:
    """Return the values (B, C, D) at some positions of each row."""
    return values_BSD.gather(1, at_BC[:, :, None].expand(-1, -1, values_BSD.shape[2]))


def _positions(tokens_BS: Tensor, at_BC: Tensor) -> Tensor:
    position_S = torch.arange(tokens_BS.shape[1], device=at_BC.device)
    return torch.cat([position_S.expand(len(at_BC), -1), at_BC], dim=1)


def _masks(
    config: Any, position_BT: Tensor, length: int, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """Return what attention adds, (B, 1, T, T): 0 for what a position sees, else the lowest number.

    By type of layer, where a model has layers that see a window only.
    """
    step_T = torch.arange(position_BT.shape[1], device=position_BT.device)
    distance_BTT = position_BT[:, :, None] - position_BT[:, None, :]
    # A copy sees the row before its position, and itself.
    seen_BTT = torch.where(step_T < length, distance_BTT >= (step_T >= length)[:, None], False)
    seen_BTT |= torch.diag(step_T >= length)

    def added(seen_BTT: Tensor) -> Tensor:
        mask_BTT = torch.zeros(seen_BTT.shape, dtype=dtype, device=seen_BTT.device)
        return mask_BTT.masked_fill_(~seen_BTT, torch.finfo(dtype).min)[:, None]

    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return added(seen_BTT)
    inside_BTT = distance_BTT < config.sliding_window
    return {
        "full_attention": added(seen_BTT),
        "sliding_attention": added(seen_BTT & inside_BTT),
    }


@contextmanager
def _own_masks(model: Any, position_BT: Tensor) -> Iterator[None]:
    """Let the masks that GPT-Neo's attention keeps, (1, 1, longest, longest), hold for the
    positions of copies, which stand behind their row."""
    of = {
        module: module.bias
        for module in model.modules()
        if isinstance(getattr(module, "bias", None), Tensor) and module.bias.dtype == torch.bool
    }
    try:
        for module, bias in of.items():
            module.bias = bias[0, 0][position_BT[:, :, None], position_BT[:, None, :]][:, None]
        yield
    finally:
        for module, bias in of.items():
            module.bias = bias
