"""Small SAEs on the activations of one checkpoint, with sparsify's architecture and training.

The activations of a checkpoint fit into memory, so a step draws rows from them without a model.

Shapes: M positions of the data, N of a batch, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearnets import UserError
from clearnets.coders import library, objective
from clearnets.coders.training import Schedule, start_biases
from clearnets.config import CheckpointCoders
from clearnets.pipeline.runtime import seed_for

if TYPE_CHECKING:
    from sparsify import SparseCoder


def fit(
    acts_MD: Tensor,
    settings: CheckpointCoders,
    *,
    name: str,
    seed: int,
    before: SparseCoder | None = None,
) -> SparseCoder:
    """Train an SAE on the activations of one module.

    Every checkpoint's SAE starts with the same weights, which `name` and `seed` determine, or, with
    the setting `finetune`, with those of `before`.

    Args:
        acts_MD: float32, on the device of the training.
        name: the hookpoint's.
        seed: of the first weights and of the drawn rows.
        before: the SAE of the checkpoint before; it is not changed.

    Raises:
        UserError: k is larger than the number of latents.
    """
    width = acts_MD.shape[1]
    num_latents = settings.expansion * width
    if settings.k > num_latents:
        raise UserError(
            f"generalize.coders.k is {settings.k}, and coders of {name} have {num_latents} "
            "latents: lower k or raise expansion"
        )
    coder = library.new_coder(
        name, d_in=width, num_latents=num_latents, k=settings.k, seed=seed
    ).to(acts_MD.device)
    if settings.finetune and before is not None:
        coder.load_state_dict(before.state_dict())
    else:
        start_biases(coder, acts_MD, acts_MD)
    schedule = Schedule("adam", settings.learning_rate, settings.warmup_steps, settings.steps)
    optimizer = torch.optim.Adam(coder.parameters(), lr=settings.learning_rate, fused=True)
    rng = torch.Generator().manual_seed(seed_for(seed, "rows", name))
    for step in range(settings.steps):
        coder.set_decoder_norm_to_unit_norm()
        rows_N = torch.randint(len(acts_MD), (settings.batch_size,), generator=rng)
        x_ND = acts_MD[rows_N.to(acts_MD.device)]
        objective.add_gradient(coder, x_ND, x_ND, objective.variation(x_ND))
        coder.remove_gradient_parallel_to_decoder_directions()
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.step()
        optimizer.zero_grad()
    coder.set_decoder_norm_to_unit_norm()
    return coder.requires_grad_(False)


def own_part(acts_MD: Tensor, part: int, parts: int, *, name: str, seed: int) -> Tensor:
    """Return one of disjoint random parts of the positions that together are all of them.

    Sizes differ by one at most. `seed` and the number of positions determine the parts.

    Raises:
        UserError: there are fewer positions than parts.
    """
    if len(acts_MD) < parts:
        raise UserError(
            f"generalize.coders.data is own, and {name} has {len(acts_MD)} positions for "
            f"{parts} checkpoints: observe more data, or fewer checkpoints"
        )
    rng = torch.Generator().manual_seed(seed_for(seed, "parts"))
    rows_N = torch.randperm(len(acts_MD), generator=rng)[part::parts]
    return acts_MD[rows_N.to(acts_MD.device)]
