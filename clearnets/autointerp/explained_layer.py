"""The latents of a layer that are explained: a sample of them, and what their explainer sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearnets.autointerp.records import EXPLAINED
from clearnets.autointerp.rules import explainer
from clearnets.autointerp.rules.language import render
from clearnets.autointerp.rules.matcher import Text
from clearnets.autointerp.sampling import Negatives, centred, draw, status, to_explain
from clearnets.autointerp.texts import Texts
from clearnets.config import Explain
from clearnets.latents.examples import Examples, Grid, activity
from clearnets.latents.store import LayerCache, load_layer
from clearnets.pipeline.runtime import seed_for


@dataclass(frozen=True)
class ExplainedLayer:
    """A sample of the latents of one layer, on the split `explain`.

    Attributes:
        names: family, hookpoint and training seed, which name the layer's random numbers.
        latents: the sample, ascending.
    """

    names: tuple[str, str, int]
    settings: Explain
    text: Text[Grid]
    cache: LayerCache
    negatives: Negatives
    latents: list[int]

    @classmethod
    def of(
        cls,
        settings: Explain,
        names: tuple[str, str, int],
        inputs: Mapping[str, Path],
        texts: Texts,
    ) -> ExplainedLayer:
        """Load a layer's cache and draw the sample."""
        cache = load_layer(inputs["cache"], names[1])
        negatives = Negatives.load(settings.non_activating, inputs, names[1], texts.split)
        seed = seed_for(settings.seed, "latents", *names)
        latents = draw(cache.num_latents, settings.latents, seed)
        return cls(names, settings, texts.of(settings.window), cache, negatives, latents)

    def seed(self, latent: int) -> int:
        """Return the seed of one latent's explanation."""
        return seed_for(self.settings.seed, "explain", *self.names, latent)

    def survey(self, latent: int) -> tuple[dict[str, Any], tuple[Text, Examples] | None]:
        """Return a latent's record, without an explanation, and the windows that its explainer
        sees with their text; None in their place where the latent cannot be explained."""
        text, windows = self.text, self.text.windows
        found = activity(self.cache, latent, windows)
        record: dict[str, Any] = {
            "latent": latent,
            "status": status(found, windows, self.settings.min_windows),
            "rate": found.count / windows.tokens,
            "windows": len(found.active_A) / len(windows),
            "trigger": None,
            "explanation": None,
        }
        if record["status"] != EXPLAINED:
            return record, None
        record["trigger"] = explainer.trigger(text, found)
        examples = to_explain(
            text,
            self.cache,
            latent,
            found,
            self.settings,
            trigger=record["trigger"],
            negatives=self.negatives,
            rng=np.random.default_rng(self.seed(latent)),
        )
        if not examples.num_active:  # delphi draws none of fewer windows than there are quantiles.
            return record | {"status": "too_rare", "trigger": None}, None
        if self.settings.center_examples:
            return record, centred(text, self.cache, latent, examples)
        return record, (text, examples)

    def explain(self, latent: int) -> dict[str, Any]:
        """Return a latent's record with the sentence of the rule that `tokens` finds."""
        record, seen = self.survey(latent)
        if seen is not None:
            rule = explainer.explain(
                *seen,
                trigger=record["trigger"],
                share=record["windows"],
                max_words=self.settings.max_words,
            )
            record["explanation"] = render(rule)
        return record
