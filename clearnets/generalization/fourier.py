"""Progress measures of grokking: losses with and without the key Fourier components of the logits.

A network that has learned modular addition computes the answer's logits from cos(w(a+b)) and
sin(w(a+b)) of few frequencies w = 2πk/P, the key frequencies; one that has memorised does not. So
the losses of the logits with these waves alone, and without them, show progress while the test loss
is still high. Source: Nanda et al. 2023.

Shapes: P numbers (the prime), C answers (P as well), D width, W = (P - 1) / 2 frequencies; logits
of all pairs are (P, P, C), first a, then b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearnets.generalization.metrics import gini

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Waves:
    """The part of the logits that depends on the sum alone.

    Attributes:
        mean_C: logits' means over all pairs.
        by_sum_PC: their means over the pairs of each sum, about `mean_C`.
    """

    mean_C: Floats
    by_sum_PC: Floats

    @classmethod
    def of(cls, logits_PPC: Floats) -> Waves:
        """Project onto functions of a + b: all cos(w(a+b)) and sin(w(a+b)), and nothing else."""
        size = len(logits_PPC)
        a_P = np.arange(size)
        by_sum_PC = np.stack([logits_PPC[a_P, (s - a_P) % size].mean(axis=0) for s in range(size)])
        mean_C = by_sum_PC.mean(axis=0)
        return cls(mean_C, by_sum_PC - mean_C)

    def power_W(self) -> Floats:
        """Return the share of each frequency in the squares of `by_sum_PC`; NaN where all are 0."""
        spectrum = np.fft.rfft(self.by_sum_PC, axis=0)[1:]
        power_W = (np.abs(spectrum) ** 2).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return power_W / power_W.sum()

    def at(self, keys: tuple[int, ...]) -> Floats:
        """Return the part of `by_sum_PC` with these frequencies, counted from 1."""
        spectrum = np.fft.rfft(self.by_sum_PC, axis=0)
        at_keys = np.zeros_like(spectrum)
        at_keys[list(keys)] = spectrum[list(keys)]
        return np.fft.irfft(at_keys, n=len(self.by_sum_PC), axis=0)


def key_frequencies(waves: Waves, share: float = 0.95) -> tuple[int, ...]:
    """Return the fewest frequencies, ascending from 1, with this share of the waves' power."""
    power_W = waves.power_W()
    order = np.argsort(-power_W, kind="stable")
    enough = int(np.searchsorted(np.cumsum(power_W[order]), share * (1 - 1e-12))) + 1
    return tuple(sorted(int(k) + 1 for k in order[:enough]))


def _sums(size: int) -> NDArray[np.int64]:
    return np.add.outer(np.arange(size), np.arange(size)) % size


def cross_entropy(logits_PPC: Floats, chosen_PP: NDArray[np.bool_]) -> float:
    """Return the mean negative log probability, in nats, of the right sums of the chosen pairs."""
    logits_NC = logits_PPC[chosen_PP]
    right_N = _sums(len(logits_PPC))[chosen_PP]
    top_N1 = logits_NC.max(axis=1, keepdims=True)
    log_sum_N = np.log(np.exp(logits_NC - top_N1).sum(axis=1)) + top_N1[:, 0]
    return float((log_sum_N - logits_NC[np.arange(len(right_N)), right_N]).mean())


def restricted_loss(
    logits_PPC: Floats, keys: tuple[int, ...], chosen_PP: NDArray[np.bool_]
) -> float:
    """Return the loss, in nats, of the logits' mean and key waves alone.

    It falls before the test loss does: the waves exist while memorised answers still disturb the
    rest.
    """
    waves = Waves.of(logits_PPC)
    by_sum_PC = waves.mean_C + waves.at(keys)
    return cross_entropy(by_sum_PC[_sums(len(logits_PPC))], chosen_PP)


def excluded_loss(logits_PPC: Floats, keys: tuple[int, ...], chosen_PP: NDArray[np.bool_]) -> float:
    """Return the loss, in nats, of the logits without the key waves.

    On training pairs it rises while the waves replace memorised answers.
    """
    waves_PC = Waves.of(logits_PPC).at(keys)
    return cross_entropy(logits_PPC - waves_PC[_sums(len(logits_PPC))], chosen_PP)


def fourier_sparsity(table_PD: Floats) -> float:
    """Return the Gini coefficient, 0 to 1, of the Fourier components' norms of an embedding.

    It is large where few frequencies are used. The P - 1 components over the numbers are a cosine
    and a sine of each frequency; the constant is left out, as it does not depend on the number.
    """
    spectrum = np.fft.rfft(table_PD, axis=0)[1:]
    # Of an orthonormal basis: cosine and sine of a frequency have the squared norm P / 2 each.
    scale = np.sqrt(2 / len(table_PD))
    norms = [np.linalg.norm(part, axis=1) * scale for part in (spectrum.real, spectrum.imag)]
    return gini(np.concatenate(norms))
