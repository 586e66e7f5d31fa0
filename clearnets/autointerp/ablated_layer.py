"""The latents of a layer that are ablated: where, what is taken away, and what follows from it.

Shape suffixes: I latents, D width of the residual stream, V vocabulary, P places at which a latent
is ablated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clearnets.autointerp.effects import Effect, Moves, agreement, name
from clearnets.autointerp.rules.matcher import Lexicon
from clearnets.config import Effects
from clearnets.latents.store import LayerCache
from clearnets.pipeline.runtime import seed_for


class Places(NamedTuple):
    """Where latents are ablated: the latent's place in its layer, row and position of the text,
    and the latent's activation there."""

    latent_P: np.ndarray
    row_P: np.ndarray
    position_P: np.ndarray
    act_P: np.ndarray


def random_like(direction_ID: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random direction for each of some directions, of the same length, (I, D)."""
    random_ID = rng.standard_normal(direction_ID.shape)
    length_I1 = np.linalg.norm(direction_ID, axis=1, keepdims=True)
    return random_ID * length_I1 / np.linalg.norm(random_ID, axis=1, keepdims=True)


@dataclass(frozen=True)
class AblatedLayer:
    """The explained latents of one layer.

    Attributes:
        names: family, hookpoint and training seed, which name the layer's random numbers.
        latents: their numbers, ascending.
        direction_ID: what a unit of each adds to the output of the layer's feedforward.
        lens_VD: the logit lens of the model, see `latents.lens`; None where it has none.
    """

    settings: Effects
    names: tuple[str, str, int]
    latents: Sequence[int]
    direction_ID: np.ndarray
    lens_VD: np.ndarray | None

    def draw(self, cache: LayerCache, rows: np.ndarray, split: str) -> Places:
        """Return at most `tokens` places of each latent in some rows of a split.

        Args:
            cache: the layer's activations on the split.
            rows: numbers of the rows, ascending; the places' are counted from the first of them.
        """
        drawn = []
        for at, latent in enumerate(self.latents):
            entries = cache.entries(latent)
            found_E = entries.start + np.flatnonzero(np.isin(cache.row[entries], rows))
            rng = np.random.default_rng(
                seed_for(self.settings.seed, "effects", *self.names, split, latent)
            )
            some_P = np.sort(rng.permutation(len(found_E))[: self.settings.tokens])
            drawn.append((np.full(len(some_P), at), found_E[some_P]))
        latent_P, entry_P = (np.concatenate(parts) for parts in zip(*drawn))
        row_P = np.searchsorted(rows, cache.row[entry_P])
        return Places(latent_P, row_P, cache.position[entry_P], cache.act[entry_P])

    def random_directions(self) -> np.ndarray:
        """Return a random direction for each latent, of the same length, (I, D)."""
        rng = np.random.default_rng(seed_for(self.settings.seed, "effects", *self.names))
        return random_like(self.direction_ID, rng)

    def records(
        self, made: Moves, checked: Moves, random: Moves, lexicon: Lexicon
    ) -> list[dict[str, Any]]:
        """Return a record for each latent.

        Args:
            made: what ablation moves on the text that sentences are made from.
            checked: the same on the text that they are checked on.
            random: the same there with random directions in place of the latents'.
        """
        enough_I = np.minimum(made.count_I, checked.count_I) >= self.settings.min_tokens
        told = np.flatnonzero(enough_I)
        records: list[dict[str, Any]] = [
            {"latent": latent, "tokens_explain": int(here), "tokens_score": int(there)}
            for latent, here, there in zip(self.latents, made.count_I, checked.count_I)
        ]
        if not len(told):
            return records
        words = self.settings.words
        sources: dict[str, tuple[np.ndarray, dict[str, float]]]
        sources = {"effect": (made.plausible_IV[told], {})}
        if self.lens_VD is not None:
            for source, direction_ID in (
                ("lens", self.direction_ID),
                ("random", self.random_directions()),
            ):
                # Tokens that no text holds are not named.
                moves_TV = direction_ID[told] @ self.lens_VD.T * lexicon.written_T
                sources[source] = moves_TV, {"least": 0.0}
        moved_TV = checked.mean_IV[told]
        for source, (moves_TV, least) in sources.items():
            said = [name(moves_V, lexicon, words=words, **least) for moves_V in moves_TV]
            for at, values in zip(told, _judged(source, said, moved_TV, lexicon)):
                records[at] |= values
        for at in told:
            records[at] |= {
                "divergence": _ratio(checked.divergence_I[at], checked.count_I[at]),
                "divergence_random": _ratio(random.divergence_I[at], random.count_I[at]),
                "cost": _ratio(checked.cost_I[at], checked.next_I[at]),
            }
        return records


def _judged(
    source: str, said: Sequence[Effect], moved_IV: np.ndarray, lexicon: Lexicon
) -> list[dict[str, Any]]:
    """Return each latent's sentence and its scores, by the names of a record's fields."""
    own_I, others_I = agreement(said, moved_IV, lexicon)
    return [
        {
            source: effect.render(),
            f"{source}_auroc": round(float(own), 6),
            f"{source}_auroc_shuffled": None if np.isnan(others) else round(float(others), 6),
        }
        for effect, own, others in zip(said, own_I, others_I)
    ]


def _ratio(total: float, count: float) -> float | None:
    return round(float(total / count), 6) if count else None
