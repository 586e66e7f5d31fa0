"""Count the parameters, FLOPs and training tokens of models and their coders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clearnets.coders.cross_layer import later_layers
from clearnets.models import flops as compute
from clearnets.models.loading import embedding_parameters

if TYPE_CHECKING:
    from sparsify import SparseCoder

    from clearnets.families import FamilySpec


def model_cost(model: Any, ctx_len: int, tokens: int | None) -> dict[str, int | None]:
    """Return size and compute of a model.

    Args:
        model: a causal language model.
        ctx_len: tokens per row of its training.
        tokens: that it was trained on; None where that is not known.
    """
    flops = compute.model(compute.Architecture.of(model.config.to_dict(), ctx_len))
    parameters = model.num_parameters()
    return {
        "parameters": parameters,
        "parameters_without_embeddings": parameters - embedding_parameters(model),
        "flops_per_token_forward": flops.forward,
        "flops_per_token_training": flops.training,
        "training_tokens": tokens,
        "training_flops": None if tokens is None else tokens * flops.training,
    }


def coder_cost(
    family: FamilySpec, coders: Sequence[SparseCoder], model: Any, ctx_len: int, tokens: int | None
) -> dict[str, int | None]:
    """Return size and compute of the coders of all layers together.

    FLOPs per token are the coders' own; training also runs the model that they read, and end to
    end the model with them in place, forward and backward.

    Args:
        family: of the coders.
        coders: one per layer.
        model: that they read.
        ctx_len: tokens per row of their training.
        tokens: that they were trained on; None where that is not known.
    """
    each = [
        compute.coder(
            family,
            d_in=coder.d_in,
            num_latents=coder.num_latents,
            k=coder.cfg.k,
            multi_topk=coder.cfg.multi_topk,
            later=later_layers(coder),
        )
        for coder in coders
    ]
    flops = sum(each, compute.Flops(0, 0))
    architecture = compute.Architecture.of(model.config.to_dict(), ctx_len)
    reading = compute.trunk(architecture).forward
    if family.objective == "kl":
        reading = compute.model(architecture).forward + compute.spliced(architecture).training
    return {
        "parameters": sum(p.numel() for coder in coders for p in coder.parameters()),
        "flops_per_token_forward": flops.forward,
        "flops_per_token_training": flops.training,
        "training_tokens": tokens,
        "training_flops": None if tokens is None else tokens * (flops.training + reading),
    }
