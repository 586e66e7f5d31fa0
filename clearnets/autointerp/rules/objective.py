"""What the explainer `tokens` maximizes: how well a rule tells active windows and active positions.

    DETECTION (hit - false) + (1 - DETECTION) phi

hit and false are the shares of active and of non-activating windows in which the rule fires, so
their difference is twice the balanced accuracy of rule-detection, less one. phi is the correlation
of firing with being active over single positions; its square is the share of the variance of the
latent's bits that the rule explains. For phi the windows of the sample count as much as those of
their kind do in the text: active windows, and non-activating ones with and without the trigger
word, of which the sample holds more than their share.

Shape suffixes: see `clearnets.autointerp.rules.explainer`; A active windows, x any axes.
"""

from __future__ import annotations

import numpy as np

from clearnets.autointerp.rules.matcher import count, fires, pack
from clearnets.latents.examples import Examples

# The weight of windows against that of positions.
DETECTION = 0.65


class Objective:
    """The objective on a sample of a latent's windows."""

    def __init__(
        self, examples: Examples, counted_WB: np.ndarray, trigger_WB: np.ndarray, share: float
    ) -> None:
        """Take the positions that count, and those of the trigger word.

        Args:
            share: of the text's windows, those in which the latent is active.
        """
        self._active = examples.num_active
        self._active_AB = pack(examples.active_WL[: self._active])
        # A product with these counts the active and the non-activating windows that fire. Such sums
        # of ones are exact in any order.
        active_W = np.arange(len(examples.window_W)) < self._active
        self._kind_W2 = np.stack([active_W, ~active_W], axis=1).astype(np.float32)
        weight_W = _weights(examples, fires(trigger_WB), share)
        # Not `@`: BLAS may sum in another order with other threads.
        self._weight_W = weight_W / np.einsum("w,w->", weight_W, count(counted_WB))
        right_A = count(self._active_AB)
        self._rate = float(np.einsum("a,a->", self._weight_W[: self._active], right_A))

    def __call__(self, fired_xWB: np.ndarray) -> np.ndarray:
        """Return the objective of each of many sets of positions: 0 is chance, 1 perfect."""
        a = self._active
        fires_x2 = fires(fired_xWB).astype(np.float32) @ self._kind_W2
        hit_x = fires_x2[..., 0].astype(np.float64) / a
        false_x = fires_x2[..., 1].astype(np.float64) / (fired_xWB.shape[-2] - a)
        right_xA = count(fired_xWB[..., :a, :] & self._active_AB)
        right_x = np.einsum("...a,a->...", right_xA, self._weight_W[:a])
        fired_x = np.einsum("...w,w->...", count(fired_xWB), self._weight_W)
        spread_x = fired_x * (1 - fired_x) * self._rate * (1 - self._rate)
        phi_x = (right_x - fired_x * self._rate) / np.sqrt(np.maximum(spread_x, 1e-12))
        return DETECTION * (hit_x - false_x) + (1 - DETECTION) * phi_x


def _weights(examples: Examples, holds_W: np.ndarray, share: float) -> np.ndarray:
    """Return how many of the text's windows each window of the sample stands for, in shares."""
    a, hard_W = examples.num_active, examples.hard_W
    weight_W = np.full(len(hard_W), share / a)
    drawn_W = ~hard_W
    drawn_W[:a] = False
    # Of the windows that were not drawn for their trigger word, so many hold it by chance.
    holding = (np.count_nonzero(holds_W & drawn_W) + 1) / (np.count_nonzero(drawn_W) + 2)
    holds_S = holds_W[a:]
    for same_S, part in ((holds_S, holding), (~holds_S, 1 - holding)):
        weight_W[a:][same_S] = (1 - share) * part / max(np.count_nonzero(same_S), 1)
    return weight_W
