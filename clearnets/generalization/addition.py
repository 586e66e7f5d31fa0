"""One-layer transformers for modular addition, several runs side by side in one module.

Every weight has a first dimension for the run, so that five seeds cost little more than one. The
architecture of Nanda et al. 2023 (no LayerNorm, ReLU, learned positions, no biases in
attention): tokens `a b =`, an answer at `=`. Only that position reaches the answer, so only it goes
through attention and feedforward, and as its query is the same for all pairs, attention scores and
values are tables over the numbers.

Shapes: M runs, N pairs, P numbers (the prime), D width of the residual stream, H heads, F width of
the dense feedforward, L latents, K active latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clearnets.models import sparse_ops
from clearnets.pipeline.runtime import seed_for

Normal = Callable[..., nn.Parameter]


class Attention(nn.Module):
    """Attention from the position of `=` to the three positions, all heads together."""

    def __init__(self, normal: Normal, width: int, num_heads: int) -> None:
        super().__init__()
        head = width // num_heads
        self.num_heads = num_heads
        self.W_Q_MDD = _concatenated(normal("W_Q", num_heads, width, head, fan_in=width))
        self.W_K_MDD = _concatenated(normal("W_K", num_heads, width, head, fan_in=width))
        self.W_V_MDD = normal("W_V", width, width, fan_in=width)
        self.W_O_MDD = normal("W_O", width, width, fan_in=width)

    def forward(
        self, first_MPD: Tensor, second_MPD: Tensor, equals_M1D: Tensor, one_hots: Sequence[Tensor]
    ) -> Tensor:
        """Return (M, N, D) from the residual stream of all numbers at both positions and of `=`."""
        num_heads, head = self.num_heads, equals_M1D.shape[2] // self.num_heads
        W_Q_MHDh, W_K_MHDh = (
            weight_MDD.unflatten(2, (num_heads, head)).transpose(1, 2)
            for weight_MDD in (self.W_Q_MDD, self.W_K_MDD)
        )
        q_MHh1 = (equals_M1D.unsqueeze(1) @ W_Q_MHDh).transpose(2, 3)
        key_query_MDH = (W_K_MHDh @ q_MHh1).squeeze(3).transpose(1, 2) / head**0.5
        # A row per number: a score for each head, then the value.
        scores_and_values = [
            one_hot @ torch.cat([x @ key_query_MDH, x @ self.W_V_MDD], dim=2)
            for x, one_hot in zip((first_MPD, second_MPD), one_hots)
        ]
        own = torch.cat([equals_M1D @ key_query_MDH, equals_M1D @ self.W_V_MDD], dim=2)
        positions = [*scores_and_values, own.expand_as(scores_and_values[0])]
        weights_MNH3 = torch.stack([x[..., :num_heads] for x in positions], dim=3).softmax(dim=3)
        mixed = sum(
            weights_MNH3[..., [i]] * x[..., num_heads:].unflatten(2, (num_heads, head))
            for i, x in enumerate(positions)
        )
        assert isinstance(mixed, Tensor)
        return mixed.flatten(2) @ self.W_O_MDD


def _concatenated(heads_MHDh: Tensor) -> nn.Parameter:
    """Concatenate the heads' matrices to one (M, D, D), of which the rank is measured."""
    return nn.Parameter(heads_MHDh.detach().transpose(1, 2).flatten(2))


class DenseMLP(nn.Module):
    """ReLU feedforward."""

    def __init__(self, normal: Normal, width: int, inner: int) -> None:
        super().__init__()
        self.W_in_MDF = normal("W_in", width, inner, fan_in=width)
        self.b_in_M1F = normal("b_in", 1, inner, fan_in=None)
        self.W_out_MFD = normal("W_out", inner, width, fan_in=width)
        self.b_out_M1D = normal("b_out", 1, width, fan_in=None)

    def forward(self, x_MND: Tensor) -> Tensor:
        hidden_MNF = torch.baddbmm(self.b_in_M1F, x_MND, self.W_in_MDF).relu()
        return torch.baddbmm(self.b_out_M1D, hidden_MNF, self.W_out_MFD)


class LatentEncoder(nn.Module):
    """GroupMax over the latents, as in the sparse GPT-NeoX."""

    def __init__(self, normal: Normal, width: int, num_latents: int, k: int) -> None:
        super().__init__()
        self.weight = normal("W_enc", num_latents, width, fan_in=width)
        self.bias = normal("b_enc", num_latents, fan_in=None)
        self.k = k

    def forward(self, x_MND: Tensor) -> tuple[Tensor, Tensor]:
        """Return values at least 0 and indices, both (M, N, K)."""
        runs = zip(x_MND, self.weight, self.bias)
        codes = [sparse_ops.encode(*run, k=self.k, selection="groupmax") for run in runs]
        acts, indices = zip(*codes)
        return torch.stack(acts), torch.stack(indices)


class LatentDecoder(nn.Module):
    """Weighted sum of one row of the weight, (M, L, D), per active latent, and a bias."""

    def __init__(self, normal: Normal, width: int, num_latents: int) -> None:
        super().__init__()
        self.weight = normal("W_dec", num_latents, width, fan_in=width)
        self.bias = normal("b_dec", 1, width, fan_in=None)

    def forward(self, acts_MNK: Tensor, indices_MNK: Tensor) -> Tensor:
        codes = zip(acts_MNK, indices_MNK, self.weight)
        return torch.stack([sparse_ops.decode(*code) for code in codes]) + self.bias


class SparseMLP(nn.Module):
    """A feedforward that is sparse by construction."""

    def __init__(self, normal: Normal, width: int, num_latents: int, k: int) -> None:
        super().__init__()
        self.encoder = LatentEncoder(normal, width, num_latents, k)
        self.decoder = LatentDecoder(normal, width, num_latents)

    def forward(self, x_MND: Tensor) -> Tensor:
        return self.decoder(*self.encoder(x_MND))


class Adders(nn.Module):
    """M models of one architecture, side by side."""

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        modulus: int,
        width: int,
        num_heads: int,
        mlp: Callable[[Normal], nn.Module],
    ) -> None:
        """Draw each run's weights from its own seed and their names.

        Normal with variance 1/D, and 1/P for the unembedding; biases are zero, as in the source.
        """
        super().__init__()

        def normal(name: str, *shape: int, fan_in: int | None) -> nn.Parameter:
            if fan_in is None:
                return nn.Parameter(torch.zeros(len(seeds), *shape))
            draws = [
                torch.randn(
                    shape, generator=torch.Generator().manual_seed(seed_for(seed, "weights", name))
                )
                for seed in seeds
            ]
            return nn.Parameter(torch.stack(draws) / fan_in**0.5)

        self.modulus = modulus
        self.W_E_MPD = normal("W_E", modulus, width, fan_in=width)
        self.equals_M1D = normal("equals", 1, width, fan_in=width)
        self.places_M3D = normal("places", 3, width, fan_in=width)
        self.attention = Attention(normal, width, num_heads)
        self.mlp = mlp(normal)
        self.W_U_MDP = normal("W_U", width, modulus, fan_in=modulus)

    def forward(self, pairs_MN2: Tensor) -> Tensor:
        """Return logits (M, N, P) of the sum of pairs of numbers below P."""
        one_hots = [
            nn.functional.one_hot(numbers_MN, self.modulus).to(self.W_E_MPD.dtype)
            for numbers_MN in pairs_MN2.unbind(2)
        ]
        return self.answer(one_hots)

    def answer(self, one_hots: Sequence[Tensor]) -> Tensor:
        """Return the same from the pairs as two one-hot codes (M, N, P), which can be reused."""
        first, second, last = self.places_M3D.split(1, dim=1)
        equals_M1D = self.equals_M1D + last
        x_MND = equals_M1D + self.attention(
            self.W_E_MPD + first, self.W_E_MPD + second, equals_M1D, one_hots
        )
        x_MND = x_MND + self.mlp(x_MND)
        return x_MND @ self.W_U_MDP
