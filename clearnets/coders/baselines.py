"""Fit baselines of reconstruction without a coder, with which the coders' fvu is compared.

Fitted on the tokens that the coders are trained on, from sums in double precision: the mean of the
output by current token, its first k principal components, and the least-squares linear map from
the feedforward's input. numpy computes them: the linear algebra of torch's library depends on the
processor.

Shapes: N counted tokens, E width of the feedforward's input, D of its output, C both together,
V vocabulary, k components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# Directions of the input below this share of the largest variance are none: the input of a
# feedforward is layer-normalised, so that one direction of it is exactly constant.
RANK_TOLERANCE = 1e-8


class Sums:
    """Sufficient statistics of one layer, added up over batches."""

    def __init__(self, d_in: int, d_out: int, vocab_size: int) -> None:
        self._d_in, self._d_out = d_in, d_out
        both = d_in + d_out
        self._count = 0
        self._sum_C = np.zeros(both)
        self._products_CC = np.zeros((both, both))
        self._token_sums_VD = np.zeros((vocab_size, d_out))
        self._token_counts_V = np.zeros(vocab_size)

    def add(self, tokens_N: Tensor, x_NE: Tensor, y_ND: Tensor) -> None:
        """Count a batch: current token, feedforward input and output."""
        tokens = tokens_N.numpy(force=True)
        xy_NC = np.concatenate([_double(x_NE), _double(y_ND)], axis=1)
        self._count += len(tokens)
        self._sum_C += xy_NC.sum(0)
        self._products_CC += xy_NC.T @ xy_NC
        order_N = tokens.argsort(kind="stable")
        seen, starts = np.unique(tokens[order_N], return_index=True)
        if len(seen):
            sums = np.add.reduceat(xy_NC[order_N, self._d_in :], starts)
            self._token_sums_VD[seen] += sums
        self._token_counts_V += np.bincount(tokens, minlength=len(self._token_counts_V))

    def fit(self, k: int) -> Baselines:
        """Return the three predictors of everything added so far."""
        d_in = self._d_in
        mean_C = self._sum_C / self._count
        covariance_CC = self._products_CC / self._count - np.outer(mean_C, mean_C)
        x_mean_E, y_mean_D = np.split(mean_C, [d_in])
        # Ascending eigenvalues, so the last k are the principal components.
        _, vectors_DD = np.linalg.eigh(covariance_CC[d_in:, d_in:])
        inverse_EE = np.linalg.pinv(
            covariance_CC[:d_in, :d_in], rcond=RANK_TOLERANCE, hermitian=True
        )
        map_ED = inverse_EE @ covariance_CC[:d_in, d_in:]
        counts_V1 = self._token_counts_V[:, None]
        by_token_VD = self._token_sums_VD / np.maximum(counts_V1, 1)
        return Baselines(
            by_token_VD=np.where(counts_V1 > 0, by_token_VD, y_mean_D),
            mean_D=y_mean_D,
            components_Dk=vectors_DD[:, -k:],
            map_ED=map_ED,
            offset_D=y_mean_D - x_mean_E @ map_ED,
        )


@dataclass(frozen=True)
class Baselines:
    """The fitted predictors of one layer."""

    by_token_VD: Array
    """Mean output by current token; the mean over all for a token that was not seen."""
    mean_D: Array
    components_Dk: Array
    map_ED: Array
    offset_D: Array

    def residuals(self, tokens_N: Tensor, x_NE: Tensor, y_ND: Tensor) -> dict[str, float]:
        """Return the sum of squared residuals of each predictor."""
        x, y = _double(x_NE), _double(y_ND)
        centred_ND = y - self.mean_D
        within_Nk = centred_ND @ self.components_Dk
        return {
            "fvu_token_mean": _squares(y - self.by_token_VD[tokens_N.numpy(force=True)]),
            "fvu_pca": _squares(centred_ND) - _squares(within_Nk),
            "fvu_linear": _squares(y - x @ self.map_ED - self.offset_D),
        }


def _double(values: Tensor) -> Array:
    return values.numpy(force=True).astype(np.float64)


def _squares(values: Array) -> float:
    return float(np.square(values).sum())
