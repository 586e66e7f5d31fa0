"""GPT-NeoX whose feedforward comes from the config: dense, or sparse by construction.

Shapes: B rows, S positions, D model width, L latents, K active latents per token (k), R rank.

The model is transformers' own GPT-NeoX with other feedforwards in its layers. Each feedforward
takes and gives a plain tensor, so every consumer of GPT-NeoX works. The latents of a sparse one
are the output of its submodule `mlp.encoder`, a tuple `(top_acts_BSK, top_indices_BSK)` that an
ordinary forward hook reads; `mlp.decoder` maps them to the feedforward's output.
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar, Literal

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
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXMLP

from clearnets import config as settings
from clearnets.config import Mlp
from clearnets.models import sparse_ops
from clearnets.models.latent_encoders import ENCODERS, LatentEncoder


@strict
class SparseGPTNeoXConfig(GPTNeoXConfig):
    """GPT-NeoX's configuration and what the feedforward is.

    Attributes:
        mlp: `dense` (GPT-NeoX's own), `dense_wide` (the same with a neuron for each latent of a
            sparse one, and so as many parameters), `dense_weight_sparse` (the same as `dense`,
            trained to have few weights), `sparse` (the maximum of each of k groups of latents),
            `sparse_topk` (the k largest latents), or the k largest of encoders with fewer
            parameters: `sparse_low_rank` (encoder and decoder factored through `rank` dimensions),
            `sparse_product_key` or `sparse_kronecker` (see `latent_encoders`).
        num_latents: latents per layer of a sparse feedforward, neurons of a wide one.
        k: latents that may be active per token.
        rank: inner width of `sparse_low_rank`.
        weight_share: share of the weights that `dense_weight_sparse` is trained to keep.
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
    weight_share: float = 1.0
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
        if self.mlp == "sparse_product_key":
            if math.isqrt(self.num_latents) ** 2 != self.num_latents:
                raise ValueError(f"num_latents = {self.num_latents} is no square (product keys)")
            if self.hidden_size % 2:
                raise ValueError(f"hidden_size = {self.hidden_size} is odd (product keys)")


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
        self.encoder = ENCODERS[config.mlp](config)
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
    # Children are initialised first, so this replaces the default that their projections got.
    if isinstance(module, LatentEncoder):
        module.init_weights()
        initialization.zeros_(module.bias)
    # The projection of the low-rank kind keeps the variance.
    if isinstance(module, LatentDecoder) and module.up is not None:
        initialization.normal_(module.up.weight, std=1 / math.sqrt(module.up.in_features))
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
        if config.mlp in ENCODERS or config.mlp == "dense_wide":
            # In place of ordinary ones, behind whose draws all twins have the same other weights.
            for layer in self.layers:
                layer.mlp = SparseMLP(config) if config.mlp in ENCODERS else _wide(config)
            self.post_init()


def _wide(config: SparseGPTNeoXConfig) -> nn.Module:
    wide = copy.copy(config)
    wide.intermediate_size = config.num_latents
    return GPTNeoXMLP(wide)


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
    config = SparseGPTNeoXConfig(
        mlp=mlp,
        **model.own_sizes(mlp),
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
