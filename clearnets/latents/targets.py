"""Does ablating the latent that knows a concept move predictions at the concept's tokens, and
little else? After targeted probe perturbation (Karvonen et al., SAEBench, 2025), without a probe.

Shape suffixes: C concepts, each with its latent; T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import numpy as np


class Aim(NamedTuple):
    """What ablating one concept's latent moves.

    Attributes:
        tokens: of the concept.
        inside, outside: nats per token of the concept, and per other token; outside is nan where
            every token is of the concept.
        share: of all that moves, at the concept's tokens; nan where nothing moves.
        share_others: the mean share there of the latents of other concepts, those that are this
            very latent apart; nan where there are none.
        share_tokens: of tokens that are of the concept: a share that knows nothing of it.
        own: whether the latent moves no other concept's tokens by as much per token.
    """

    tokens: int
    inside: float
    outside: float
    share: float
    share_others: float
    share_tokens: float
    own: bool

    def columns(self) -> dict[str, float | None]:
        """Return the fields as a table has them: eight digits, None for nan."""
        values = {name: float(value) for name, value in self._asdict().items()}
        return {name: None if isnan(x) else round(x, 8) for name, x in values.items()} | {
            "tokens": self.tokens,
            "own": int(self.own),
        }


def aims(
    latents: Sequence[tuple[int, int]], moved_CT: np.ndarray, truth_CT: np.ndarray
) -> list[Aim]:
    """Return the aim of each concept's latent.

    Args:
        latents: layer and number of each; two concepts may share one.
        moved_CT: nats at each token, by the concept whose latent is ablated.
        truth_CT: whether a token is of a concept; each concept has one.
    """
    truth_CT = truth_CT.astype(np.float64)
    tokens_C = truth_CT.sum(axis=1)
    # By latent, then by the concept whose tokens are looked at.
    sum_CC, all_C = moved_CT @ truth_CT.T, moved_CT.sum(axis=1)
    mean_CC = sum_CC / tokens_C
    with np.errstate(invalid="ignore", divide="ignore"):
        share_CC = sum_CC / all_C[:, None]
        outside_C = (all_C - sum_CC.diagonal()) / (truth_CT.shape[1] - tokens_C)
    found = []
    for at in range(len(tokens_C)):
        others_C = np.array([latent != latents[at] for latent in latents])
        others_C &= np.isfinite(share_CC[:, at])
        elsewhere_C = np.delete(mean_CC[at], at)
        found.append(
            Aim(
                int(tokens_C[at]),
                mean_CC[at, at],
                outside_C[at],
                share_CC[at, at],
                share_CC[others_C, at].mean() if others_C.any() else np.nan,
                tokens_C[at] / truth_CT.shape[1],
                bool(mean_CC[at, at] > elsewhere_C.max(initial=0.0)),
            )
        )
    return found
