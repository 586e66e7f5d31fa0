"""GPT-NeoX whose feedforward comes from the config: dense, or sparse by construction.

Shapes: B rows, S positions, D model width, L latents, K active latents per token (k), R rank.

The model is transformers' own GPT-NeoX with other feedforwards in its layers. Each feedforward
takes and gives a plain tensor, so every consumer of GPT-NeoX works. The latents of a sparse one
are the output of its submodule `mlp.encoder`, a tuple `(top_acts_BSK, top_indices_BSK)` that an
ordinary forward hook reads; `mlp.decoder` maps them to the feedforward's output.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXModel,
    GPTNeoXPreTrainedModel,
    initialization,
)

from clearnets import config as settings
from clearnets.models import sparse_ops

Mlp = Literal["dense", "sparse", "sparse_topk", "sparse_low_rank"]


@strict
class SparseGPTNeoXConfig(GPTNeoXConfig):
    """GPT-NeoX's configuration and what the feedforward is.

    Attributes:
        mlp: `dense` (GPT-NeoX's own), `sparse` (the maximum of each of k groups of latents),
            `sparse_topk` (the k largest latents) or `sparse_low_rank` (the k largest, with
            encoder and decoder factored through `rank` dimensions).
        num_latents: latents per layer of a sparse feedforward.
        k: latents that may be active per token.
        rank: inner width of `sparse_low_rank`.
        embedding_std: standard deviation of the initial embeddings.
        zero_unembedding: start the unembedding at zero, so that the first loss is log(vocabulary).
        latent_act: what the value of an active latent goes through: `relu`, which changes nothing
            above zero, or `gelu`, as in the original's top-k modes. It is written only where set.
    """

    model_type = "sparse_gpt_neox"

    mlp: Mlp = "sparse"
    num_latents: int = 8192
    k: int = 32
    rank: int = 32
    embedding_std: float = 0.02
    zero_unembedding: bool = True
    latent_act: ClassVar[Literal["relu", "gelu"]] = "relu"
    # Off outside generate(), which asks for it: with a cache transformers ignores position_ids
    # that start anew with each document, and attention would cross documents.
    use_cache: bool = False

    def validate_architecture(self) -> None:
        """Refuse widths that do not fit together."""
        super().validate_architecture()
        if not 0 < self.k <= self.num_latents:
            raise ValueError(f"k = {self.k} must lie between 1 and num_latents")
        if self.mlp == "sparse" and self.num_latents % self.k:
            raise ValueError(f"num_latents = {self.num_latents} is no multiple of k = {self.k}")
        if self.mlp == "sparse_low_rank" and self.rank < 1:
            raise ValueError(f"rank = {self.rank} must be positive")


class LatentEncoder(nn.Module):
    """Dense map to the latents, of which k per token are kept.

    `weight` is (L, D) with one row per latent, or (L, R) behind the projection `down`.
    """

    def __init__(self, config: SparseGPTNeoXConfig) -> None:
        super().__init__()
        low_rank = config.mlp == "sparse_low_rank"
        width = config.rank if low_rank else config.hidden_size
        self.down = nn.Linear(config.hidden_size, width, bias=False) if low_rank else None
        self.weight = nn.Parameter(torch.empty(config.num_latents, width))
        self.bias = nn.Parameter(torch.empty(config.num_latents))
        self.d_in, self.k = config.hidden_size, config.k
        self.selection: sparse_ops.Selection = "groupmax" if config.mlp == "sparse" else "topk"
        self.gelu = config.latent_act == "gelu"

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(top_acts_BSK, top_indices_BSK)`: values ≥ 0 (0 is not active), int64 indices."""
        if self.down is not None:
            x_BSD = self.down(x_BSD)
        acts_NK, indices_NK = sparse_ops.encode(
            x_BSD.flatten(0, -2), self.weight, self.bias, k=self.k, selection=self.selection
        )
        if self.gelu:
            # It rises above zero, so the same latents are the largest before and behind it.
            acts_NK = nn.functional.gelu(acts_NK)
        shape = (*x_BSD.shape[:-1], self.k)
        return acts_NK.view(shape), indices_NK.view(shape)

    def products(self, x_D: Tensor) -> Tensor:
        """Return the latents' pre-activations (L,) without their bias."""
        # Of matrices: the product of a matrix and a vector depends on the processor.
        x_1D = x_D[None]
        return ((x_1D if self.down is None else self.down(x_1D)) @ self.weight.mT)[0]


class LatentDecoder(nn.Module):
    """Weighted sum of one row of `weight`, (L, D) or (L, R) before the projection `up`, per
    active latent, and a bias."""

    def __init__(self, config: SparseGPTNeoXConfig) -> None:
        super().__init__()
        low_rank = config.mlp == "sparse_low_rank"
        width = config.rank if low_rank else config.hidden_size
        self.weight = nn.Parameter(torch.empty(config.num_latents, width))
        self.up = nn.Linear(width, config.hidden_size, bias=False) if low_rank else None
        self.bias = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, acts_BSK: Tensor, indices_BSK: Tensor) -> Tensor:
        """Return the feedforward's output (B, S, D) for these latents."""
        y_NW = sparse_ops.decode(acts_BSK.flatten(0, -2), indices_BSK.flatten(0, -2), self.weight)
        y_BSW = y_NW.view(*acts_BSK.shape[:-1], -1)
        return (y_BSW if self.up is None else self.up(y_BSW)) + self.bias


class SparseMLP(nn.Module):
    """A feedforward that is sparse by construction."""

    def __init__(self, config: SparseGPTNeoXConfig) -> None:
        super().__init__()
        self.encoder = LatentEncoder(config)
        self.decoder = LatentDecoder(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map the normalised residual stream (B, S, D) to what is added to the stream."""
        top_acts, top_indices = self.encoder(hidden_states)
        return self.decoder(top_acts, top_indices)


class SparseGPTNeoXPreTrainedModel(GPTNeoXPreTrainedModel):
    """Config class and initialisation that the model classes share."""

    config: SparseGPTNeoXConfig
    config_class = SparseGPTNeoXConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=self.config.embedding_std)
        _init_sparse(module, self.config)


def _init_sparse(module: nn.Module, config: SparseGPTNeoXConfig) -> None:
    # The projections of the low-rank kind keep the variance. Children are initialised first, so
    # this replaces the default that they got.
    projection = module.down if isinstance(module, LatentEncoder) else None
    projection = module.up if isinstance(module, LatentDecoder) else projection
    if projection is not None:
        initialization.normal_(projection.weight, std=1 / math.sqrt(projection.in_features))
    # The input is layer-normalised: rows of unit length give pre-activations of unit variance,
    # so that the competition for the k places is open from the first step.
    if isinstance(module, LatentEncoder):
        initialization.normal_(module.weight, std=1 / math.sqrt(module.weight.shape[1]))
        initialization.zeros_(module.bias)
    # Maxima of unit normals are about 2.5. With GPT-2's factor for what is added to the residual
    # stream the output then starts about as large as a dense feedforward's.
    if isinstance(module, LatentDecoder):
        std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
        initialization.normal_(module.weight, std=std)
        initialization.zeros_(module.bias)


class SparseGPTNeoXModel(SparseGPTNeoXPreTrainedModel, GPTNeoXModel):
    """GPT-NeoX without its unembedding, with the feedforward that the config names."""

    def __init__(self, config: SparseGPTNeoXConfig) -> None:
        super().__init__(config)
        if config.mlp != "dense":
            for layer in self.layers:
                layer.mlp = SparseMLP(config)
            self.post_init()


class SparseGPTNeoXForCausalLM(SparseGPTNeoXPreTrainedModel, GPTNeoXForCausalLM):
    """GPT-NeoX as a language model, with the feedforward that the config names."""

    def __init__(self, config: SparseGPTNeoXConfig) -> None:
        super().__init__(config)
        self.gpt_neox = SparseGPTNeoXModel(config)
        self.post_init()
        assert self.generation_config is not None
        self.generation_config.use_cache = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.lm_head and self.config.zero_unembedding:
            initialization.zeros_(self.lm_head.weight)


AutoConfig.register(SparseGPTNeoXConfig.model_type, SparseGPTNeoXConfig)
AutoModel.register(SparseGPTNeoXConfig, SparseGPTNeoXModel)
AutoModelForCausalLM.register(SparseGPTNeoXConfig, SparseGPTNeoXForCausalLM)


def build_model(
    model: settings.GPTNeoX,
    *,
    mlp: Mlp,
    vocab_size: int,
    ctx_len: int,
    pad: int,
    bos: int,
    eos: int,
    seed: int,
) -> SparseGPTNeoXForCausalLM:
    """Return an untrained model in float32. The weights depend on nothing but the arguments.

    Twins of one seed share every initial weight outside their feedforwards.
    """
    latents: dict[str, Any] = {}  # The dense model must not depend on them.
    if mlp != "dense":
        latents = {"num_latents": model.num_latents, "k": model.k}
        latents["rank"] = model.hidden_size // model.rank_ratio
    config = SparseGPTNeoXConfig(
        mlp=mlp,
        **latents,
        embedding_std=model.embedding_std,
        zero_unembedding=model.zero_unembedding,
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        intermediate_size=model.hidden_size * model.mlp_ratio,
        max_position_embeddings=ctx_len,
        initializer_range=model.init_std,
        use_parallel_residual=model.parallel_residual,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": model.rotary_fraction,
        },
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    return initialized(config, seed)


def initialized(config: SparseGPTNeoXConfig, seed: int) -> SparseGPTNeoXForCausalLM:
    """Return an untrained model in float32; its weights follow from config and seed alone."""
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SparseGPTNeoXForCausalLM(config)
