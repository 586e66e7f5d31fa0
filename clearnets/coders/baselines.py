"""Fit baselines of reconstruction without a coder, with which the coders' fvu is compared.

Fitted on the tokens that the coders are trained on, from sums in double precision: the mean of the
output by current token, its first k principal components, and the least-squares linear map from
the feedforward's input.

Memory grows with the tokens that the text holds and not with the vocabulary.

Shapes: N counted tokens, E width of the feedforward's input, D of its output, C both together,
V vocabulary, T tokens of it that the text holds, k components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Directions of the input below this share of the largest variance are none: the input of a
# feedforward is layer-normalised, so that one direction of it is exactly constant.
RANK_TOLERANCE = 1e-8


def places(tokens: np.ndarray, vocab_size: int) -> tuple[Tensor, int]:
    """Return the place of each token id among those that a text holds, (V,) int64, and their
    number T, which is also the place of all others."""
    held_T = np.unique(tokens).astype(np.int64)
    place_V = torch.full((vocab_size,), len(held_T))
    place_V[torch.from_numpy(held_T)] = torch.arange(len(held_T))
    return place_V, len(held_T)


class Sums:
    """Sufficient statistics of one layer, added up over batches.

    `place_V` and `num_held` are those of `places`, for a text that holds all tokens that are added.
    """

    def __init__(
        self, d_in: int, d_out: int, place_V: Tensor, num_held: int, device: torch.device | str
    ) -> None:
        options = {"dtype": torch.float64, "device": device}
        self._d_in, self._d_out = d_in, d_out
        both = d_in + d_out
        self._count = 0
        self._sum_C = torch.zeros(both, **options)
        self._products_CC = torch.zeros(both, both, **options)
        self._place_V = place_V.to(device)
        # The last row is that of all other tokens.
        self._token_sums_TD = torch.zeros(num_held + 1, d_out, **options)
        self._token_counts_T = torch.zeros(num_held + 1, **options)

    def add(self, tokens_N: Tensor, x_NE: Tensor, y_ND: Tensor) -> None:
        """Count a batch: current token, feedforward input and output."""
        y_ND = y_ND.double()
        xy_NC = torch.cat([x_NE.double(), y_ND], dim=1)
        self._count += len(tokens_N)
        self._sum_C += xy_NC.sum(0)
        self._products_CC += xy_NC.mT @ xy_NC
        place_N = self._place_V[tokens_N]
        self._token_sums_TD.index_add_(0, place_N, y_ND)
        self._token_counts_T.index_add_(0, place_N, torch.ones_like(place_N, dtype=torch.float64))

    def fit(self, k: int) -> Baselines:
        """Return the three predictors of everything added so far."""
        d_in = self._d_in
        mean_C = self._sum_C / self._count
        covariance_CC = self._products_CC / self._count - mean_C.outer(mean_C)
        x_mean_E, y_mean_D = mean_C.split((d_in, self._d_out))
        counts_T1 = self._token_counts_T[:, None]
        # Ascending eigenvalues, so the last k are the principal components.
        _, vectors_DD = torch.linalg.eigh(covariance_CC[d_in:, d_in:])
        inverse_EE = torch.linalg.pinv(
            covariance_CC[:d_in, :d_in], rtol=RANK_TOLERANCE, hermitian=True
        )
        map_ED = inverse_EE @ covariance_CC[:d_in, d_in:]
        return Baselines(
            place_V=self._place_V,
            by_token_TD=torch.where(
                counts_T1 > 0, self._token_sums_TD / counts_T1.clamp(min=1), y_mean_D
            ),
            mean_D=y_mean_D,
            components_Dk=vectors_DD[:, -k:],
            map_ED=map_ED,
            offset_D=y_mean_D - x_mean_E @ map_ED,
        )


@dataclass(frozen=True)
class Baselines:
    """The fitted predictors of one layer, in double precision."""

    place_V: Tensor
    """Row of each token in `by_token_TD`, shared by all layers."""
    by_token_TD: Tensor
    """Mean output by current token; the mean over all for those that were not seen."""
    mean_D: Tensor
    components_Dk: Tensor
    map_ED: Tensor
    offset_D: Tensor

    def residuals(self, tokens_N: Tensor, x_NE: Tensor, y_ND: Tensor) -> dict[str, Tensor]:
        """Sum of squared residuals of each predictor, as scalars."""
        x_NE, y_ND = x_NE.double(), y_ND.double()
        centred_ND = y_ND - self.mean_D
        return {
            "fvu_token_mean": (y_ND - self.by_token_TD[self.place_V[tokens_N]]).pow(2).sum(),
            "fvu_pca": centred_ND.pow(2).sum() - (centred_ND @ self.components_Dk).pow(2).sum(),
            "fvu_linear": (y_ND - x_NE @ self.map_ED - self.offset_D).pow(2).sum(),
        }
