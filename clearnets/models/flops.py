"""Compute the FLOPs per token of models and coders, in closed form.

Conventions: a multiply-add is 2 FLOPs. Only products with weights and the two products of
attention are counted, as torch's flop counter does: no normalisation, activation, softmax, top-k,
bias or optimizer. Attention counts the whole square of scores, masked or not. Training is forward
plus backward; a dense product costs twice its forward in the backward pass (one product for its
input, one for its weight) and what a kernel computes anew is not counted. Sparse products are
counted as they are done: the encoder's forward is dense, all else touches k latents per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

from clearnets.models.pretrained import KINDS, OURS

if TYPE_CHECKING:
    from clearnets.families import FamilySpec


@dataclass(frozen=True)
class Flops:
    """FLOPs per token."""

    forward: int
    training: int
    """Forward and backward together."""

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.training + other.training)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.forward * times, self.training * times)


def dense_product(d_in: int, d_out: int) -> Flops:
    """Return a linear map whose input and weight both get a gradient."""
    forward = 2 * d_in * d_out
    return Flops(forward, 3 * forward)


def sparse_encoder(d_in: int, num_latents: int, k: int, *, input_gradient: bool = True) -> Flops:
    """Return a dense forward pass to all latents; gradients of k rows and, if asked, the input."""
    forward = 2 * d_in * num_latents
    return Flops(forward, forward + (2 if input_gradient else 1) * 2 * k * d_in)


def sparse_decoder(d_out: int, k: int) -> Flops:
    """Sum of k rows; gradients of those rows and of the k activations."""
    forward = 2 * k * d_out
    return Flops(forward, 3 * forward)


@dataclass(frozen=True)
class Architecture:
    """The sizes of a transformer that decide its FLOPs; most names as in GPT-NeoX's config.

    Attributes:
        mlp: a feedforward of our models, or `gated` (a dense one with a linear branch beside).
        query_width: heads times their width.
        key_width: the same of keys and of values, which several query heads may share.
        num_latents, k, rank: of a sparse mode.
    """

    mlp: str
    hidden_size: int
    num_hidden_layers: int
    query_width: int
    key_width: int
    intermediate_size: int
    vocab_size: int
    ctx_len: int
    num_latents: int = 0
    k: int = 0
    rank: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any], ctx_len: int) -> Architecture:
        """Read the values of a model's `config.json`, of any kind, for this context length."""
        d = _first(config, "hidden_size", "n_embd")
        heads = _first(config, "num_attention_heads", "num_heads", "n_head")
        head = _first(config, "head_dim", default=d // heads)
        kind = config["model_type"]
        return cls(
            mlp=config["mlp"] if kind == OURS else "gated" if KINDS[kind].gated else "dense",
            hidden_size=d,
            num_hidden_layers=_first(config, "num_hidden_layers", "num_layers", "n_layer"),
            query_width=heads * head,
            key_width=_first(config, "num_key_value_heads", default=heads) * head,
            intermediate_size=_first(config, "intermediate_size", "n_inner", default=4 * d),
            vocab_size=config["vocab_size"],
            ctx_len=ctx_len,
            num_latents=config.get("num_latents", 0),
            k=config.get("k", 0),
            rank=config.get("rank", 0),
        )


def _first(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the value of the first of these names that has one: kinds name sizes differently."""
    found = (config[name] for name in names if config.get(name) is not None)
    value = next(found, default)
    if value is None:
        raise KeyError(names[0])
    return value


def nearest_factors(size: int) -> tuple[int, int]:
    """Return the two factors of a size that are nearest to each other, the smaller one first."""
    small = next(n for n in range(isqrt(size), 0, -1) if size % n == 0)
    return small, size // small


def attention(architecture: Architecture) -> Flops:
    """Return one layer's attention: queries, keys, values, scores, weighted sum, output map."""
    d, context = architecture.hidden_size, architecture.ctx_len
    queries, keys = architecture.query_width, architecture.key_width
    products = dense_product(d, queries + 2 * keys) + dense_product(queries, d)
    return products + dense_product(context, queries) + dense_product(queries, context)


def feedforward(architecture: Architecture) -> Flops:
    """Return one layer's feedforward in its mode."""
    d, width, k = architecture.hidden_size, architecture.num_latents, architecture.k
    inner = architecture.intermediate_size
    match architecture.mlp:
        case "dense" | "dense_weight_sparse":
            return dense_product(d, inner) + dense_product(inner, d)
        case "dense_wide":
            return dense_product(d, width) + dense_product(width, d)
        case "gated":
            return dense_product(d, inner) * 2 + dense_product(inner, d)
        case "sparse" | "sparse_topk":
            return sparse_encoder(d, width, k) + sparse_decoder(d, k)
        case "sparse_low_rank":
            rank = architecture.rank
            core = sparse_encoder(rank, width, k) + sparse_decoder(rank, k)
            return dense_product(d, rank) + core + dense_product(rank, d)
        case "sparse_product_key":
            keys = dense_product(d // 2, isqrt(width)) * 2
            return dense_product(d, d) + keys + sparse_decoder(d, k)
        case "sparse_kronecker":
            (high, wide), (rows, _) = nearest_factors(width), nearest_factors(d)
            products = dense_product(d, wide) + dense_product(rows * wide, high)
            return products + sparse_decoder(d, k)
    raise ValueError(f"unknown feedforward {architecture.mlp!r}")


def trunk(architecture: Architecture) -> Flops:
    """Return all layers without the unembedding: what a coder's training runs of the model."""
    layer = attention(architecture) + feedforward(architecture)
    return layer * architecture.num_hidden_layers


def model(architecture: Architecture) -> Flops:
    """Return the whole language model."""
    return trunk(architecture) + dense_product(architecture.hidden_size, architecture.vocab_size)


def spliced(architecture: Architecture) -> Flops:
    """Return the whole language model, frozen, with coders in training in the place of all its
    feedforwards, which still run for the positions that are not counted.

    Activations get gradients and weights none; nothing in the first layer needs one.
    """
    forward = model(architecture).forward
    first = attention(architecture) + feedforward(architecture)
    # Both factors of attention's own products are activations.
    products = dense_product(architecture.ctx_len, architecture.query_width) * 2
    more = products.forward * (architecture.num_hidden_layers - 1)
    return Flops(forward, 2 * forward - first.forward + more)


def coder(
    family: FamilySpec,
    *,
    d_in: int,
    num_latents: int,
    k: int,
    multi_topk: bool = False,
    later: int = 0,
) -> Flops:
    """Return the FLOPs of one coder, without the model that it reads.

    The input is data and gets no gradient, except that an SAE subtracts its output bias from it,
    and that coders below an end-to-end one have changed it (counted for the first layer, too).
    Multi-TopK trains with 4 k latents besides, and is forgotten afterwards.

    Args:
        later: layers above that its latents also write to.
    """
    input_gradient = not family.transcode or family.objective == "kl"
    encoder = sparse_encoder(d_in, num_latents, k, input_gradient=input_gradient)
    if multi_topk:
        narrow = coder(family, d_in=d_in, num_latents=num_latents, k=k)
        wide = coder(family, d_in=d_in, num_latents=num_latents, k=min(4 * k, num_latents))
        # The encoder's product is made once; gradients, decoder and skip for each.
        return Flops(narrow.forward, narrow.training + wide.training - encoder.forward)
    flops = encoder + sparse_decoder(d_in * (1 + later), k)
    if family.skip:
        forward = 2 * d_in * d_in
        flops += Flops(forward, 2 * forward)
    return flops
