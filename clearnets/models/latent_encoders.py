"""Encoders of feedforwards that are sparse by construction: maps to latents, of which k are kept.

Shapes: B rows, S positions, N = B*S tokens, D model width, L latents, K active latents per token
(k), R rank, H = sqrt(L) sub-keys.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import initialization

from clearnets.models import sparse_ops
from clearnets.models.flops import nearest_factors
from clearnets.models.top_k import top_k

if TYPE_CHECKING:
    from clearnets.models.sparse_gptneox import SparseGPTNeoXConfig


class LatentEncoder(nn.Module):
    """Dense map to the latents: `weight` (L, D) has one row per latent."""

    selection: sparse_ops.Selection = "topk"

    def __init__(self, config: SparseGPTNeoXConfig) -> None:
        super().__init__()
        self.d_in, self.k = config.hidden_size, config.k
        self.gelu = config.latent_act == "gelu"
        self.make_weights(config)
        self.bias = nn.Parameter(torch.empty(config.num_latents))

    def make_weights(self, config: SparseGPTNeoXConfig) -> None:
        """Register the parameters of `products`."""
        self.weight = nn.Parameter(torch.empty(config.num_latents, config.hidden_size))

    def init_weights(self) -> None:
        """Draw them so that pre-activations of inputs of unit variance have unit variance: the
        competition for the k places is then open from the first step."""
        initialization.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[1]))

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(top_acts_BSK, top_indices_BSK)`: values ≥ 0 (0 is not active), int64 indices."""
        acts_NK, indices_NK = self.encode(x_BSD.flatten(0, -2))
        if self.gelu:
            # It rises above zero, so the same latents are the largest before and behind it.
            acts_NK = nn.functional.gelu(acts_NK)
        shape = (*x_BSD.shape[:-1], self.k)
        return acts_NK.view(shape), indices_NK.view(shape)

    def encode(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices of the k latents of each token."""
        return sparse_ops.encode(x_ND, self.weight, self.bias, k=self.k, selection=self.selection)

    def products(self, x_ND: Tensor) -> Tensor:
        """Return pre-activations (N, L) without their bias."""
        return x_ND @ self.weight.mT


class GroupMaxEncoder(LatentEncoder):
    """The same, of which the maximum of each of k groups is kept."""

    selection = "groupmax"


class LowRankEncoder(LatentEncoder):
    """A map to `rank` dimensions, and from there a row of `weight` (L, R) per latent."""

    def make_weights(self, config: SparseGPTNeoXConfig) -> None:
        self.down = nn.Linear(config.hidden_size, config.rank, bias=False)
        self.weight = nn.Parameter(torch.empty(config.num_latents, config.rank))

    def init_weights(self) -> None:
        initialization.normal_(self.down.weight, std=1 / math.sqrt(self.down.in_features))
        super().init_weights()

    def encode(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(self.down(x_ND))

    def products(self, x_ND: Tensor) -> Tensor:
        return super().products(self.down(x_ND))


class FactoredEncoder(LatentEncoder):
    """An encoder whose `products` cost far less than those with a matrix (L, D).

    All pre-activations are made, and their gradient is as large. That is little beside a product
    with (L, D), and unlike a search in the factors alone it leaves each latent a bias of its own.
    """

    def encode(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        pre_NL = self.products(x_ND) + self.bias
        with torch.no_grad():
            _, indices_NK = top_k(pre_NL.detach(), self.k)
        return pre_NL.gather(1, indices_NK).relu(), indices_NK


class ProductKeyEncoder(FactoredEncoder):
    """Product keys (Lample et al. 2019): latent i * H + j has the score of sub-key i for the first
    half of a query, plus that of sub-key j for the second half."""

    def make_weights(self, config: SparseGPTNeoXConfig) -> None:
        half, keys = config.hidden_size // 2, math.isqrt(config.num_latents)
        self.query = nn.Linear(config.hidden_size, 2 * half, bias=False)
        self.keys = nn.Parameter(torch.empty(2, keys, half))

    def init_weights(self) -> None:
        initialization.normal_(self.query.weight, std=1 / math.sqrt(self.query.in_features))
        initialization.normal_(self.keys, std=1 / math.sqrt(2 * self.keys.shape[2]))

    def products(self, x_ND: Tensor) -> Tensor:
        first, second = self.query(x_ND).chunk(2, dim=1)
        first_NH, second_NH = first @ self.keys[0].mT, second @ self.keys[1].mT
        return (first_NH[:, :, None] + second_NH[:, None, :]).flatten(1)


class KroneckerEncoder(FactoredEncoder):
    """The Kronecker product of `left` and `right` in place of a matrix (L, D), as in a branch of
    the original: with the input as a matrix X, pre-activations are left @ X @ rightᵀ."""

    def make_weights(self, config: SparseGPTNeoXConfig) -> None:
        rows, columns = nearest_factors(config.num_latents), nearest_factors(config.hidden_size)
        self.left = nn.Parameter(torch.empty(rows[0], columns[0]))
        self.right = nn.Parameter(torch.empty(rows[1], columns[1]))

    def init_weights(self) -> None:
        for weight in (self.left, self.right):
            initialization.normal_(weight, std=1 / math.sqrt(weight.shape[1]))

    def products(self, x_ND: Tensor) -> Tensor:
        x_NCD = x_ND.unflatten(1, (self.left.shape[1], self.right.shape[1]))
        return (self.left @ (x_NCD @ self.right.mT)).flatten(1)


# By feedforward; those that are not here are dense.
ENCODERS: dict[str, type[LatentEncoder]] = {
    "sparse": GroupMaxEncoder,
    "sparse_topk": LatentEncoder,
    "sparse_low_rank": LowRankEncoder,
    "sparse_product_key": ProductKeyEncoder,
    "sparse_kronecker": KroneckerEncoder,
}
