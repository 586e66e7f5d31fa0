"""Train coders on activations of a known dictionary, with the loop that trains them on models.

Shape suffixes: T tokens, D dimensions, L latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from clearnets.coders import library, objective, training
from clearnets.coders.training import Activations, Chain, Schedule

if TYPE_CHECKING:
    from clearnets.families import Selection

BATCH = 1024
"""Tokens of a step."""
_NAME = "planted"
_RATE, _WARMUP = 0.01, 40


def train_coder(
    x_TD: NDArray[np.float64],
    *,
    selection: Selection,
    num_latents: int,
    k: int,
    steps: int,
    seed: int,
    state: Path,
) -> Any:
    """Return an SAE trained on activations, which come in order and again from the first.

    Args:
        selection: how active latents are chosen.
        steps: of `BATCH` tokens; 0 leaves the coder untrained.
        seed: of its initial weights.
        state: where no file is; resume states are written there.
    """
    coder = library.new_coder(
        _NAME,
        selection=selection,
        d_in=x_TD.shape[1],
        num_latents=num_latents,
        k=k,
        seed=seed,
    )
    every_TD = torch.from_numpy(x_TD).float()

    def read(step: int) -> Activations:
        rows_B = torch.arange(step * BATCH, (step + 1) * BATCH) % len(every_TD)
        part_BD = every_TD[rows_B]
        both, nothing = {_NAME: part_BD}, torch.empty(0)
        totals = {_NAME: objective.variation(part_BD)}
        return Activations(both, both, totals, None, nothing)  # pyright: ignore

    schedule = Schedule("adam", _RATE, min(_WARMUP, steps), steps, bias_step=0.02)
    training.fit(read, [Chain({_NAME: coder}, state)], schedule, save_every=steps + 1)
    return coder


@torch.no_grad()
def encode(coder: Any, x_TD: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return the strengths of all latents (T, L) and the reconstruction (T, D)."""
    made = objective.forward(coder, torch.from_numpy(x_TD).float())
    code_TL = torch.zeros(len(x_TD), coder.num_latents)
    code_TL.scatter_add_(1, made.indices_Nk.long(), made.acts_Nk)
    return code_TL.double().numpy(), made.output_ND.double().numpy()
