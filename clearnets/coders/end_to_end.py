"""Train the coders of all layers together, end to end: on what the model predicts with all of them
in place.

The loss is the Kullback-Leibler divergence of those predictions from the clean model's, in nats per
predicted token, with a share of the layers' fvu (Braun et al. 2024). Coders stand in the model as
`evaluation.splice_all` puts them there: at counted positions, each reading what those below have
made of the stream.

Shapes: B rows, S positions, N counted tokens, M predicted tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clearnets.coders import feedforward
from clearnets.coders.batches import Batch
from clearnets.coders.cross_layer import InOrder
from clearnets.coders.objective import Loss
from clearnets.coders.training import Activations, Schedule

if TYPE_CHECKING:
    from sparsify import SparseCoder


def add_gradient(
    model: Any,
    coders: Mapping[str, SparseCoder],
    activations: Activations,
    schedule: Schedule,
    *,
    fvu: float,
) -> dict[str, list[Loss]]:
    """Add a batch's share of the step's gradient; return by hookpoint the losses of its pieces.

    The residuals that are returned are those from the clean model's outputs.

    Args:
        model: frozen.
        coders: of all layers, in order.
        activations: of the clean model.
        schedule: the batch is cut into its `micro_acc_steps` pieces, by rows.
        fvu: weight of the layers' mean fvu in the loss.
    """
    batch = activations.batch
    rows = -(-len(batch.tokens_BS) // schedule.micro_acc_steps)
    predicted, share = batch.predicted_BS[:, 1:].sum(), fvu / len(coders)
    pieces = batch.split(rows)
    counts = [int(piece.counted_BS.sum()) for piece in pieces]
    targets = zip(*(activations.outputs[name].split(counts) for name in coders), strict=True)
    found: dict[str, list[Loss]] = {name: [] for name in coders}
    for piece, clean_BSD, y in zip(pieces, activations.hidden_BSD.split(rows), targets):
        spliced = InOrder(coders.values(), schedule.precision)
        value = _divergence(model, spliced, piece, clean_BSD) / predicted
        residuals = [
            (made.output_ND - y_ND).pow(2).sum() for made, y_ND in zip(spliced.made, y, strict=True)
        ]
        for name, residual in zip(coders, residuals):
            value = value + share * residual / activations.totals[name]
        (value / schedule.grad_acc_steps).backward()
        for name, made, residual in zip(coders, spliced.made, residuals):
            codes = made.acts_Nk.detach(), made.indices_Nk
            found[name].append(Loss(value.detach(), residual.detach(), *codes))
    return found


def _divergence(model: Any, spliced: InOrder, batch: Batch, clean_BSD: Tensor) -> Tensor:
    """Return the divergence from the clean model's predictions, summed over predicted tokens."""
    with feedforward.replaced(model, spliced.replacements, batch.counted_BS):
        hidden_BSD = model.base_model(
            batch.tokens_BS, position_ids=batch.positions_BS, use_cache=False
        ).last_hidden_state
    predicted_BS, unembed = batch.predicted_BS[:, 1:], model.get_output_embeddings()
    with torch.no_grad():
        clean_MV = unembed(clean_BSD[:, :-1][predicted_BS]).log_softmax(-1)
    made_MV = unembed(hidden_BSD[:, :-1][predicted_BS]).log_softmax(-1)
    return F.kl_div(made_MV, clean_MV, reduction="sum", log_target=True)
