"""A one-layer transformer for modular addition.

The architecture of Nanda et al. 2023 (no LayerNorm, ReLU, learned positions, no biases in
attention): tokens `a b =`, an answer at `=`. Only that position reaches the answer, so only it goes
through attention and feedforward; keys and values exist once per number, not once per pair.

Shapes: N pairs, P numbers (the prime), R = 2 P + 1 rows (numbers at the first position, numbers at
the second, `=`), D width of the residual stream, H heads, h width of a head, F width of the dense
feedforward, L latents, K active latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from clearnets.pipeline.runtime import seed_for

Normal = Callable[..., nn.Parameter]


class Attention(nn.Module):
    """Attention from the position of `=` to the three positions, all heads together."""

    def __init__(self, normal: Normal, width: int, num_heads: int) -> None:
        super().__init__()
        head = width // num_heads
        self.num_heads = num_heads
        self.W_Q_DD = _concatenated(normal("W_Q", num_heads, width, head, fan_in=width))
        self.W_K_DD = _concatenated(normal("W_K", num_heads, width, head, fan_in=width))
        self.W_V_DD = normal("W_V", width, width, fan_in=width)
        self.W_O_DD = normal("W_O", width, width, fan_in=width)

    def forward(self, x_RD: Tensor, rows_3N: Tensor) -> Tensor:
        """Return (N, D) from the residual stream and each pair's three rows of it."""
        width = x_RD.shape[1]
        heads = self.num_heads, width // self.num_heads
        products_RD = (x_RD @ self.W_K_DD) * (x_RD[-1:] @ self.W_Q_DD)
        score_RH = products_RD.unflatten(1, heads).sum(2) / heads[1] ** 0.5
        table_RC = torch.cat([score_RH, x_RD @ self.W_V_DD], dim=1)
        score_3NH, value_3ND = functional.embedding(rows_3N, table_RC).split(
            [self.num_heads, width], dim=2
        )
        mixed_NHh = (score_3NH.softmax(0).unsqueeze(3) * value_3ND.unflatten(2, heads)).sum(0)
        return mixed_NHh.flatten(1) @ self.W_O_DD


def _concatenated(heads_HDh: Tensor) -> nn.Parameter:
    """Concatenate the heads' matrices to one (D, D), of which the rank is measured."""
    return nn.Parameter(heads_HDh.detach().transpose(0, 1).flatten(1))


class DenseMLP(nn.Module):
    """ReLU feedforward."""

    def __init__(self, normal: Normal, width: int, inner: int) -> None:
        super().__init__()
        self.W_in_DF = normal("W_in", width, inner, fan_in=width)
        self.b_in_F = normal("b_in", inner, fan_in=None)
        self.W_out_FD = normal("W_out", inner, width, fan_in=width)
        self.b_out_D = normal("b_out", width, fan_in=None)

    def forward(self, x_ND: Tensor) -> Tensor:
        hidden_NF = torch.addmm(self.b_in_F, x_ND, self.W_in_DF).relu_()
        return torch.addmm(self.b_out_D, hidden_NF, self.W_out_FD)


class LatentEncoder(nn.Module):
    """GroupMax over the latents, as in the sparse GPT-NeoX."""

    def __init__(self, normal: Normal, width: int, num_latents: int, k: int) -> None:
        super().__init__()
        self.weight = normal("W_enc", num_latents, width, fan_in=width)
        self.bias = normal("b_enc", num_latents, fan_in=None)
        self.k = k

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return values at least 0 and indices, both (N, K); of equals the first is taken."""
        pre_NL = functional.linear(x_ND, self.weight, self.bias)
        size = pre_NL.shape[1] // self.k
        # One member of every group at a time: groups are few numbers, and torch's maximum over a
        # short dimension is slow.
        first, *others = pre_NL.detach().unflatten(1, (self.k, size)).unbind(2)
        best_NK, at_NK = first, torch.zeros_like(first, dtype=torch.int64)
        for place, acts_NK in enumerate(others, 1):
            at_NK = torch.where(acts_NK > best_NK, place, at_NK)
            best_NK = torch.maximum(best_NK, acts_NK)
        indices_NK = at_NK + torch.arange(0, pre_NL.shape[1], size, device=pre_NL.device)
        return pre_NL.gather(1, indices_NK).relu(), indices_NK


class LatentDecoder(nn.Module):
    """Weighted sum of one row of the weight, (L, D), per active latent, and a bias.

    So many latents are active that the product with all of them is faster than a sparse one.
    """

    def __init__(self, normal: Normal, width: int, num_latents: int) -> None:
        super().__init__()
        self.weight = normal("W_dec", num_latents, width, fan_in=width)
        self.bias = normal("b_dec", width, fan_in=None)

    def forward(self, acts_NK: Tensor, indices_NK: Tensor) -> Tensor:
        code_NL = acts_NK.new_zeros(len(acts_NK), len(self.weight))
        return torch.addmm(self.bias, code_NL.scatter(1, indices_NK, acts_NK), self.weight)


class SparseMLP(nn.Module):
    """A feedforward that is sparse by construction."""

    def __init__(self, normal: Normal, width: int, num_latents: int, k: int) -> None:
        super().__init__()
        self.encoder = LatentEncoder(normal, width, num_latents, k)
        self.decoder = LatentDecoder(normal, width, num_latents)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.decoder(*self.encoder(x_ND))


class Adder(nn.Module):
    """A model that adds numbers below a prime."""

    def __init__(
        self,
        seed: int,
        *,
        modulus: int,
        width: int,
        num_heads: int,
        mlp: Callable[[Normal], nn.Module],
    ) -> None:
        """Draw the weights, each from the seed and its name.

        Normal with variance 1/D, and 1/P for the unembedding; biases are zero, as in the source.
        """
        super().__init__()

        def normal(name: str, *shape: int, fan_in: int | None) -> nn.Parameter:
            if fan_in is None:
                return nn.Parameter(torch.zeros(shape))
            rng = torch.Generator().manual_seed(seed_for(seed, "weights", name))
            return nn.Parameter(torch.randn(shape, generator=rng) / fan_in**0.5)

        self.modulus = modulus
        self.W_E_PD = normal("W_E", modulus, width, fan_in=width)
        self.equals_1D = normal("equals", 1, width, fan_in=width)
        self.places_3D = normal("places", 3, width, fan_in=width)
        self.attention = Attention(normal, width, num_heads)
        self.mlp = mlp(normal)
        self.W_U_DP = normal("W_U", width, modulus, fan_in=modulus)

    def forward(self, pairs_N2: Tensor) -> Tensor:
        """Return logits (N, P) of the sum of pairs of numbers below P."""
        first_N, second_N = pairs_N2.unbind(1)
        equals_N = torch.full_like(first_N, 2 * self.modulus)
        rows_3N = torch.stack([first_N, second_N + self.modulus, equals_N])
        first_1D, second_1D, last_1D = self.places_3D.split(1)
        equals_1D = self.equals_1D + last_1D
        x_RD = torch.cat([self.W_E_PD + first_1D, self.W_E_PD + second_1D, equals_1D])
        x_ND = equals_1D + self.attention(x_RD, rows_3N)
        return (x_ND + self.mlp(x_ND)) @ self.W_U_DP
