"""What reconstructs a feedforward's output without a coder: the marks that fvu is read against.

Fitted on the tokens that the coders are trained on, from sums in double precision: the mean of the
output by current token, its first k principal components, and the least-squares linear map from
the feedforward's input.

Shapes: N counted tokens, D width of the feedforward, V vocabulary, k components.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Directions of the input below this share of the largest variance are none: the input of a
# feedforward is layer-normalised, so that one direction of it is exactly constant.
RANK_TOLERANCE = 1e-8


class Sums:
    """Sufficient statistics of one layer, added up over batches."""

    def __init__(self, width: int, vocab_size: int, device: torch.device | str) -> None:
        options = {"dtype": torch.float64, "device": device}
        self._count = 0
        self._sum_2D = torch.zeros(2 * width, **options)
        self._products_2D2D = torch.zeros(2 * width, 2 * width, **options)
        self._token_sums_VD = torch.zeros(vocab_size, width, **options)
        self._token_counts_V = torch.zeros(vocab_size, **options)

    def add(self, tokens_N: Tensor, x_ND: Tensor, y_ND: Tensor) -> None:
        """Count a batch: current token, feedforward input and output."""
        y_ND = y_ND.double()
        xy_N2D = torch.cat([x_ND.double(), y_ND], dim=1)
        self._count += len(tokens_N)
        self._sum_2D += xy_N2D.sum(0)
        self._products_2D2D += xy_N2D.mT @ xy_N2D
        self._token_sums_VD.index_add_(0, tokens_N, y_ND)
        self._token_counts_V.index_add_(0, tokens_N, torch.ones_like(tokens_N, dtype=torch.float64))

    def fit(self, k: int) -> Baselines:
        """The three predictors of everything added so far."""
        width = len(self._sum_2D) // 2
        mean_2D = self._sum_2D / self._count
        covariance_2D2D = self._products_2D2D / self._count - mean_2D.outer(mean_2D)
        x_mean_D, y_mean_D = mean_2D.split(width)
        counts_V1 = self._token_counts_V[:, None]
        # Ascending eigenvalues, so the last k are the principal components.
        _, vectors_DD = torch.linalg.eigh(covariance_2D2D[width:, width:])
        inverse_DD = torch.linalg.pinv(
            covariance_2D2D[:width, :width], rtol=RANK_TOLERANCE, hermitian=True
        )
        map_DD = inverse_DD @ covariance_2D2D[:width, width:]
        return Baselines(
            by_token_VD=torch.where(
                counts_V1 > 0, self._token_sums_VD / counts_V1.clamp(min=1), y_mean_D
            ),
            mean_D=y_mean_D,
            components_Dk=vectors_DD[:, -k:],
            map_DD=map_DD,
            offset_D=y_mean_D - x_mean_D @ map_DD,
        )


@dataclass(frozen=True)
class Baselines:
    """The fitted predictors of one layer, in double precision."""

    by_token_VD: Tensor
    """Mean output by current token; the mean over all for a token that was not seen."""
    mean_D: Tensor
    components_Dk: Tensor
    map_DD: Tensor
    offset_D: Tensor

    def residuals(self, tokens_N: Tensor, x_ND: Tensor, y_ND: Tensor) -> dict[str, Tensor]:
        """Sum of squared residuals of each predictor, as scalars."""
        x_ND, y_ND = x_ND.double(), y_ND.double()
        centred_ND = y_ND - self.mean_D
        return {
            "fvu_token_mean": (y_ND - self.by_token_VD[tokens_N]).pow(2).sum(),
            "fvu_pca": centred_ND.pow(2).sum() - (centred_ND @ self.components_Dk).pow(2).sum(),
            "fvu_linear": (y_ND - x_ND @ self.map_DD - self.offset_D).pow(2).sum(),
        }
