"""Ablate single latents wherever they are active, and steer with single directions.

Shapes: B rows, S positions, N counted positions of a batch, K active latents per token, D width of
the residual stream, V vocabulary, I directions, P places of each direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearnets.coders import feedforward
from clearnets.coders.single_ablation import Copies, predict
from clearnets.coders.written import Written

WIDEST = 30.0
"""Largest factor by which the strength of a direction changes from one trial to the next."""


@torch.no_grad()
def ablate(
    model: Any,
    written: Sequence[Written],
    latents: Sequence[tuple[int, int]],
    tokens_BS: Tensor,
    counted_BS: Tensor,
) -> Iterator[np.ndarray]:
    """Yield for each latent how far predictions move without it, (B, S): nats of Kullback-Leibler
    divergence at counted positions, 0 at others.

    What the latent writes is taken away at all counted positions at once, so that later positions
    feel what attention carries on.

    Args:
        latents: layer and number of each.
    """
    reading, hidden_BSD = feedforward.read(model, tokens_BS)
    head = model.get_output_embeddings()
    clean_NV = head(hidden_BSD[counted_BS]).log_softmax(-1)
    codes = {}
    for layer in {layer for layer, _ in latents}:
        x_ND, y_ND = (part[layer][counted_BS] for part in (reading.inputs, reading.outputs))
        codes[layer] = written[layer].encode(x_ND, y_ND)
    for layer, latent in latents:
        acts_NK, indices_NK = codes[layer]
        act_BS = acts_NK.new_zeros(counted_BS.shape)
        act_BS[counted_BS] = (acts_NK * (indices_NK == latent)).sum(-1)
        moved_BS = act_BS.new_zeros(act_BS.shape)
        active_B = (act_BS != 0).any(1)
        if active_B.any():
            there_BS = counted_BS & active_B[:, None]
            change_BSD = act_BS[active_B][:, :, None] * written[layer].weight_LD[latent]
            changed_BSD = feedforward.run_above(
                model, layer, reading.residual[layer][active_B] - change_BSD, tokens_BS[active_B]
            )
            changed_NV = head(changed_BSD[counted_BS[active_B]]).log_softmax(-1)
            moved_BS[there_BS] = _divergence(clean_NV[active_B[_rows(counted_BS)]], changed_NV)
        yield moved_BS.numpy(force=True).astype(np.float64)


def _rows(counted_BS: Tensor) -> Tensor:
    """Return the row of each counted position."""
    return counted_BS.nonzero()[:, 0]


def _divergence(clean_NV: Tensor, changed_NV: Tensor) -> Tensor:
    return (clean_NV.exp() * (clean_NV - changed_NV)).sum(-1)


class Steered(NamedTuple):
    """What adding directions does.

    Attributes:
        strength_I: multiple of each direction that was added at last.
        divergence_I: nats per place between predictions with and without it.
        moved_IV: by how much it raises the log-probability of each token, nats, mean over places.
    """

    strength_I: np.ndarray
    divergence_I: np.ndarray
    moved_IV: np.ndarray


def steer(
    model: Any,
    layer: int,
    direction_ID: np.ndarray,
    tokens_RS: np.ndarray,
    places: tuple[np.ndarray, np.ndarray],
    *,
    divergence: float,
    trials: int,
) -> Steered:
    """Add each direction at its places, each place by itself, as strongly as moves predictions by
    `divergence` nats.

    Divergence grows with the square of a small strength, so each trial multiplies the strength by
    the root of what is missing; where that leaves what earlier trials have bracketed, it takes the
    geometric mean of the bracket.

    Args:
        layer: behind which the directions are added; a direction of zeros moves nothing.
        places: row and position, (I, P) each.
        trials: how often the strength is corrected, from one unit of the direction.
    """
    row_IP, position_IP = places
    owner_Q = np.repeat(np.arange(len(row_IP)), row_IP.shape[1])
    strength_I = np.ones(len(direction_ID))
    low_I, high_I = np.zeros(len(direction_ID)), np.full(len(direction_ID), np.inf)
    for trial in range(trials + 1):
        change_ID = (strength_I[:, None] * direction_ID).astype(np.float32)
        copies = Copies(row_IP.ravel(), position_IP.ravel(), change_ID[owner_Q])
        found = _told(model, layer, copies, owner_Q, tokens_RS, len(direction_ID))
        if trial < trials:
            ratio_I = divergence / np.maximum(found.divergence_I, 1e-12)
            low_I = np.where(ratio_I > 1, strength_I, low_I)
            high_I = np.where(ratio_I > 1, high_I, strength_I)
            next_I = strength_I * np.clip(np.sqrt(ratio_I), 1 / WIDEST, WIDEST)
            outside_I = (next_I <= low_I) | (next_I >= high_I)
            strength_I = np.where(outside_I, np.sqrt(low_I * high_I), next_I)
    return found._replace(strength_I=strength_I)


def _told(
    model: Any, layer: int, copies: Copies, owner_Q: np.ndarray, tokens_RS: np.ndarray, count: int
) -> Steered:
    vocabulary = model.get_output_embeddings().weight.shape[0]
    divergence_I, moved_IV = np.zeros(count), np.zeros((count, vocabulary))
    for part in predict(model, tokens_RS, {layer: copies}):
        owners = owner_Q[part.number_Q]
        moved_QV = (part.changed_QV - part.clean_QV).numpy(force=True)
        apart_Q = _divergence(part.clean_QV, part.changed_QV).numpy(force=True)
        np.add.at(divergence_I, owners, apart_Q)
        np.add.at(moved_IV, owners, moved_QV)
    places = len(owner_Q) / count
    return Steered(np.ones(count), divergence_I / places, moved_IV / places)
