"""Activations of a known dictionary, and dictionaries of known quality to test measures on.

After SynthSAEBench. Features fire at rates by a power law. Some come in correlated pairs; of some
the child fires only where its parent does. An activation is the sum of the directions of the
features that fire, each times its strength, and Gaussian noise.

| dictionary | what is wrong with it |
|---|---|
| true | nothing |
| rotated | every direction is turned by the same angle |
| merged | a direction is the sum of two features', for half of them; the rest is random |
| split | the more frequent half of the features has two directions each, the rest none |
| absorbed | the direction of a child also holds that of its parent |
| random | everything |

Shape suffixes: F features, L latents (as many), D dimensions, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearnets.config import Planted

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """A dictionary that is known, and what its features do.

    Attributes:
        direction_FD: of each feature, of length one; the most frequent one first.
        rate_F: share of tokens at which it fires, before parents and pairs are heard.
        parent_F: number of the feature without which it never fires; -1 of most.
        pair_F: number of the feature that it is correlated with; -1 of most.
        noise: standard deviation of every dimension.
    """

    direction_FD: Floats
    rate_F: Floats
    parent_F: NDArray[np.int64]
    pair_F: NDArray[np.int64]
    noise: float

    @classmethod
    def of(cls, settings: Planted, rng: np.random.Generator) -> World:
        """Draw a world. Of each four features the third is a child of the first, and the fourth is
        correlated with the second."""
        count = settings.features
        rate_F = np.arange(1, count + 1) ** -settings.exponent
        rate_F *= settings.active / rate_F.sum()
        number_F = np.arange(count)
        parent_F = np.where(number_F % 4 == 2, number_F - 2, -1)
        pair_F = np.where(number_F % 4 == 3, number_F - 2, -1)
        direction_FD = _unit(rng.normal(size=(count, settings.dimensions)))
        return cls(direction_FD, np.minimum(rate_F, 0.5), parent_F, pair_F, settings.noise)

    def draw(self, tokens: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return activations (T, D), and the strength of each feature in them (T, F)."""
        fires_TF = rng.random((tokens, len(self.rate_F))) < self.rate_F
        for feature in np.flatnonzero(self.pair_F >= 0):
            # Half of the time it does what the other one does.
            follows_T = rng.random(tokens) < 0.5
            other_T = fires_TF[:, self.pair_F[feature]]
            fires_TF[:, feature] = np.where(follows_T, other_T, fires_TF[:, feature])
        for feature in np.flatnonzero(self.parent_F >= 0):
            parent = self.parent_F[feature]
            chance = 0.5 * fires_TF[:, parent]
            fires_TF[:, feature] = rng.random(tokens) < chance
        strength_TF: Floats = np.where(fires_TF, np.abs(rng.normal(1, 0.25, fires_TF.shape)), 0.0)
        noise_TD = rng.normal(0, self.noise, (tokens, self.direction_FD.shape[1]))
        return strength_TF @ self.direction_FD + noise_TD, strength_TF


def _unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _random(world: World, count: int, rng: np.random.Generator) -> Floats:
    return _unit(rng.normal(size=(count, world.direction_FD.shape[1])))


def _rotated(world: World, angle: float, rng: np.random.Generator) -> Floats:
    true_FD = world.direction_FD
    other_FD = rng.normal(size=true_FD.shape)
    other_FD = _unit(other_FD - (other_FD * true_FD).sum(axis=1, keepdims=True) * true_FD)
    return np.cos(angle) * true_FD + np.sin(angle) * other_FD


def _merged(world: World, angle: float, rng: np.random.Generator) -> Floats:
    true_FD = world.direction_FD
    merged_LD = _unit(true_FD[0::2] + true_FD[1::2])
    return np.concatenate([merged_LD, _random(world, len(true_FD) - len(merged_LD), rng)])


def _split(world: World, angle: float, rng: np.random.Generator) -> Floats:
    true_FD = world.direction_FD
    half = World(true_FD[: len(true_FD) // 2], *(getattr(world, name) for name in _OTHERS))
    return np.concatenate([_rotated(half, angle, rng) for _ in range(2)])


_OTHERS = ("rate_F", "parent_F", "pair_F", "noise")


def _absorbed(world: World, angle: float, rng: np.random.Generator) -> Floats:
    found_LD, child = world.direction_FD.copy(), np.flatnonzero(world.parent_F >= 0)
    found_LD[child] += world.direction_FD[world.parent_F[child]]
    return _unit(found_LD)


TRUE, RANDOM = "true", "random"
DICTIONARIES: dict[str, Callable[[World, float, np.random.Generator], Floats]] = {
    TRUE: lambda world, angle, rng: world.direction_FD,
    "rotated": _rotated,
    "merged": _merged,
    "split": _split,
    "absorbed": _absorbed,
    RANDOM: lambda world, angle, rng: _random(world, len(world.direction_FD), rng),
}


def pursue(x_TD: Floats, direction_LD: Floats, steps: int) -> Floats:
    """Encode by matching pursuit: `steps` times the latent that explains most of what is left, with
    a strength that is never below zero. Returns the strengths (T, L)."""
    left_TD, code_TL = x_TD.copy(), np.zeros((len(x_TD), len(direction_LD)))
    every_T = np.arange(len(x_TD))
    for _ in range(steps):
        fit_TL = left_TD @ direction_LD.T
        best_T = fit_TL.argmax(axis=1)
        more_T = np.maximum(fit_TL[every_T, best_T], 0)
        code_TL[every_T, best_T] += more_T
        left_TD -= more_T[:, None] * direction_LD[best_T]
    return code_TL


def recovered(direction_LD: Floats, world: World) -> float:
    """Return the largest cosine of each feature's direction with any latent's, the mean over
    features."""
    return float((world.direction_FD @ direction_LD.T).max(axis=1).mean())


def fvu(x_TD: Floats, made_TD: Floats) -> float:
    """Return the share of variance about the mean that a reconstruction leaves."""
    return float(((x_TD - made_TD) ** 2).sum() / ((x_TD - x_TD.mean(axis=0)) ** 2).sum())
