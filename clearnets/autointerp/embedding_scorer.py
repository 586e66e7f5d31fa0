"""Embedding scorer: is an explanation more similar to windows in which its latent is active?

Windows are ranked by the cosine similarity of their embedding to the explanation's; the score is
the AUROC of active against non-activating windows: the share of pairs of an active and a
non-activating window in which the active one is the more similar, ties counting half (Mann and
Whitney's U). It does not depend on how many windows are active. All latents are judged on the same
windows.

Every latent of a layer is also judged by every other one's explanation, as by the judge of rules.

Shape suffixes: N windows, D dimensions of an embedding, T latents that are judged, E explanations,
G shares of the non-activating windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearnets.autointerp.ranking import areas, curves, mean_of_others


@dataclass(frozen=True)
class Verdict:
    """One latent, judged.

    Attributes:
        auroc: with its own explanation.
        shuffled: mean AUROC with the explanation of each other latent; None where there is none.
        elsewhere: mean AUROC of its own explanation for each other latent.
    """

    auroc: float
    shuffled: float | None
    elsewhere: float | None


def similarity(explanation_ED: np.ndarray, window_ND: np.ndarray) -> np.ndarray:
    """Return the cosine similarity (E, N) of unit vectors.

    In float64 it is exact for vectors in float16 (sums of multiples of 2^-48 below 2^5), so that no
    order of summation decides a tie.
    """
    return explanation_ED.astype(np.float64) @ window_ND.astype(np.float64).T


def judge_all(
    explanation_TD: np.ndarray, window_ND: np.ndarray, active_TN: np.ndarray
) -> list[Verdict]:
    """Judge every latent by every latent's explanation; explanation i is that of latent i."""
    if not len(active_TN):
        return []
    auroc_TT = areas(similarity(explanation_TD, window_ND), active_TN)
    if len(auroc_TT) == 1:
        return [Verdict(float(auroc_TT[0, 0]), None, None)]
    columns = auroc_TT.diagonal(), mean_of_others(auroc_TT), mean_of_others(auroc_TT.T)
    return [Verdict(*map(float, row)) for row in zip(*columns)]


def mean_curves(
    explanation_TD: np.ndarray, window_ND: np.ndarray, active_TN: np.ndarray, share_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean over latents of their ROC curves, (G,): with their own explanation, and with
    every other one's, None where there is no other.

    Curves are averaged at equal shares of the non-activating windows, so the area under the mean is
    the mean AUROC.
    """
    latents = len(active_TN)
    own_G, every_G = np.zeros(len(share_G)), np.zeros(len(share_G))
    for latent, value_N in enumerate(similarity(explanation_TD, window_ND)):
        curve_TG = curves(value_N, active_TN, share_G)
        own_G += curve_TG[latent]
        every_G += curve_TG.sum(axis=0)
    others = latents * (latents - 1)
    return own_G / latents, (every_G - own_G) / others if others else None
