"""What the latents of a layer write into a model: one interface to all kinds of them.

    coder      the decoder of an SAE or transcoder, and its skip connection
    native     the decoder of a feedforward that is sparse by construction
    neurons    the feedforward's last map, of the k largest neurons, each sign for itself

Shapes: N positions, D width of the feedforward's input and output, L latents, K active ones per
token, W neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from clearnets.coders import cross_layer, objective
from clearnets.families import FamilySpec
from clearnets.models import hookpoints, sparse_ops
from clearnets.models.top_k import top_k

if TYPE_CHECKING:
    from sparsify import SparseCoder

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a feedforward's input and output (N, D) to values and indices (N, K) of active latents."""


@dataclass(frozen=True)
class Written:
    """The latents of one layer, and what they write: codes @ weight + bias, and a skip.

    Attributes:
        encode: computes the codes.
        weight_LD, bias_D: the decoder.
        skip_DD: the linear path beside the latents, from the feedforward's input; None without one.
        whole: whether what they write is the feedforward's output itself.
    """

    encode: Encode
    weight_LD: Tensor
    bias_D: Tensor
    skip_DD: Tensor | None = None
    whole: bool = False

    def decoding(self, weight_LD: np.ndarray, bias_D: np.ndarray) -> Written:
        """Return the same latents with another decoder."""
        weight, bias = (torch.from_numpy(x).to(self.weight_LD) for x in (weight_LD, bias_D))
        return replace(self, weight_LD=weight, bias_D=bias)

    def skipped(self, x_ND: Tensor) -> Tensor | float:
        """Return what the skip connection writes."""
        return 0.0 if self.skip_DD is None else x_ND @ self.skip_DD.mT

    def output(self, x_ND: Tensor, y_ND: Tensor) -> Tensor:
        """Return what the exact latents write, skip connection included."""
        if self.whole:
            return y_ND
        decoded_ND = sparse_ops.decode(*self.encode(x_ND, y_ND), self.weight_LD)
        return decoded_ND + self.bias_D + self.skipped(x_ND)


def open_written(model: Any, family: FamilySpec, coders: Path | None, *, k: int) -> list[Written]:
    """Return what a family's latents write into the model that they are read from, by layer.

    Args:
        model: on its device.
        family: one that `writes`.
        coders: the folder of its coders, if it has any.
        k: active latents per token of neurons, which have none of their own.

    Raises:
        UserError: a coder is missing or damaged.
    """
    assert family.writes, family.name
    if coders is not None:
        device = next(model.parameters()).device
        return of_coders(cross_layer.load(coders, hookpoints.names(model), device))
    return of_neurons(model, k) if family.kind == "neurons" else of_native(model)


def of_coders(coders: Sequence[SparseCoder]) -> list[Written]:
    """Return what coders write, by layer; of no cross-layer ones."""

    def encode(coder: SparseCoder) -> Encode:
        def read(x_ND: Tensor, y_ND: Tensor) -> tuple[Tensor, Tensor]:
            made = objective.reconstruct(coder, x_ND if coder.cfg.transcode else y_ND)
            return made.acts_Nk, made.indices_Nk

        return read

    return [
        Written(encode(coder), _plain(coder.W_dec), _plain(coder.b_dec), coder.W_skip)
        for coder in coders
    ]


def of_native(model: Any) -> list[Written]:
    """Return what the latents of a sparse model write, by layer."""
    made = []
    for mlp in hookpoints.modules(model):
        weight_LD = _plain(mlp.decoder.weight)
        if mlp.decoder.up is not None:
            weight_LD = weight_LD @ _plain(mlp.decoder.up.weight).mT

        def encode(x_ND: Tensor, _: Tensor, mlp: Any = mlp) -> tuple[Tensor, Tensor]:
            return mlp.encoder.forward(x_ND)

        made.append(Written(encode, weight_LD, _plain(mlp.decoder.bias), whole=True))
    return made


def of_neurons(model: Any, k: int) -> list[Written]:
    """Return what the k largest neurons of a model write, by layer; the bias is the last map's.

    Neuron i is latent i where it is positive and latent i + W where it is negative.
    """
    names, width = hookpoints.projections(model)
    made = []
    for mlp, name in zip(hookpoints.modules(model), names):
        last = model.base_model.get_submodule(name)
        weight = _plain(last.weight)
        weight_WD = weight.mT if isinstance(last, nn.Linear) else weight
        bias = getattr(last, "bias", None)
        bias_D = weight_WD.new_zeros(weight_WD.shape[1]) if bias is None else _plain(bias)
        encode = _encode_neurons(mlp, last, width, k)
        made.append(Written(encode, torch.cat([weight_WD, -weight_WD]), bias_D))
    return made


def _encode_neurons(mlp: Any, last: Any, width: int, k: int) -> Encode:
    def encode(x_ND: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        handle = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            # Not by calling it: the feedforward may be hooked itself.
            mlp.forward(x_ND)
        finally:
            handle.remove()
        acts_NK, neurons_NK = top_k(seen[0].abs(), k)
        negative_NK = seen[0].gather(-1, neurons_NK) < 0
        return acts_NK, neurons_NK + width * negative_NK

    return encode


def _plain(tensor: Any) -> Tensor:
    return tensor.detach()
