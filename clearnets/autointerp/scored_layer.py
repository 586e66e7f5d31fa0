"""The latents of a layer that are scored: their windows, and their scores by the judge of rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from clearnets import UserError
from clearnets.autointerp.records import EXPLAINED, EXPLANATIONS, SCORERS, SPLITS, UNSCORABLE
from clearnets.autointerp.rules.judge import Trial, judge_all, mark
from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.rules.matcher import Text
from clearnets.autointerp.sampling import Negatives, centred, status, to_explain, to_score
from clearnets.autointerp.texts import Texts
from clearnets.config import Explain, Score
from clearnets.latents.examples import Grid, activity
from clearnets.latents.store import LayerCache, load_layer
from clearnets.pipeline.artifacts import read_jsonl, remake, settings_of
from clearnets.pipeline.runtime import progress, seed_for
from clearnets.pipeline.stage import rerun


@dataclass(frozen=True)
class ScoredLayer:
    """What the explanations of one layer are scored on.

    Attributes:
        names: family, hookpoint and training seed, which name the layer's random numbers.
        explained: the settings that the explanations were made with.
        to_explain: how non-activating windows were chosen for explaining, where the explainer saw
            windows of the same text.
        to_score: how they are chosen for scoring.
        records: of the explanations, in order.
        trials: by latent, of those that can be scored.
    """

    names: tuple[str, str, int]
    settings: Score
    explained: Explain
    text: Text[Grid]
    cache: LayerCache
    to_explain: Negatives | None
    to_score: Negatives
    records: list[dict[str, Any]]
    trials: dict[int, Trial]

    @classmethod
    def of(
        cls,
        settings: Score,
        names: tuple[str, str, int],
        inputs: Mapping[str, Path],
        texts: Texts,
    ) -> ScoredLayer:
        """Load a layer's cache and explanations, and draw the windows of every latent.

        Raises:
            UserError: the explanations were made under another protocol.
        """
        point, folder = names[1], inputs["explain"]
        explained = _explained_with(folder)
        if SPLITS[explained.protocol] != texts.split:
            raise UserError(
                f"{folder} was made under protocol {explained.protocol}; "
                f"run `{rerun(folder)}` first"
            )
        seen = None
        if explained.protocol == "delphi":
            seen = Negatives.load(explained.non_activating, inputs, point, texts.split)
        layer = cls(
            names,
            settings,
            explained,
            texts.of(explained.window),
            load_layer(inputs["cache"], point),
            seen,
            Negatives.load(settings.non_activating, inputs, point, texts.split),
            read_jsonl(folder / EXPLANATIONS),
            {},
        )
        with progress(f"score {layer.label}", len(layer.records), "latents") as bar:
            for record in layer.records:
                trial = layer.draw(record)
                if trial is not None:
                    layer.trials[record["latent"]] = trial
                bar.advance()
        return layer

    @property
    def label(self) -> str:
        """The layer's name in progress bars."""
        return f"{self.names[0]} seed {self.names[2]} {self.names[1]}"

    @property
    def sentences(self) -> dict[int, Any]:
        """The explanations by latent."""
        return {record["latent"]: record["explanation"] for record in self.records}

    def draw(self, record: Mapping[str, Any], *draws: str) -> Trial | None:
        """Return the windows that a latent is scored on, and their marks.

        Args:
            record: of its explanation.
            draws: names of another draw than the first.

        Returns:
            None where the latent is not explained, is active or non-activating in fewer than
            `explain.min_windows` windows, or has none left that the protocol draws.
        """
        if record["status"] != EXPLAINED:
            return None
        text, latent, trigger = self.text, record["latent"], record["trigger"]
        found = activity(self.cache, latent, text.windows)
        if status(found, text.windows, self.explained.min_windows) != EXPLAINED:
            return None
        source = (text, self.cache, latent, found)
        seen = None
        if self.to_explain is not None:
            again = seed_for(self.explained.seed, "explain", *self.names, latent)
            seen = to_explain(
                *source,
                self.explained,
                trigger=trigger,
                negatives=self.to_explain,
                rng=np.random.default_rng(again),
            )
        rng = np.random.default_rng(
            seed_for(self.settings.seed, "score", *self.names, latent, *draws)
        )
        examples = to_score(
            *source, self.settings, trigger=trigger, negatives=self.to_score, seen=seen, rng=rng
        )
        # delphi draws none of fewer windows than quantiles; what the explainer saw is left out.
        if examples.num_active in (0, len(examples.window_W)):
            return None
        shown: Text = text
        if self.explained.center_examples:
            shown, examples = centred(text, self.cache, latent, examples)
        return Trial(shown, examples, mark(shown, examples, trigger=trigger, rng=rng))

    def scores(self) -> list[dict[str, Any]]:
        """Return a record of scores by the judge of rules for each record of explanations."""
        return rule_scores(self.records, self.trials, judged=self.settings.rules)


def _explained_with(folder: Path) -> Explain:
    try:
        return Explain.model_validate(settings_of(folder)["explain"], strict=False)
    except ValidationError:
        raise UserError(f"{folder} is of another version; {remake(folder)}") from None


def rule_scores(
    records: Sequence[Mapping[str, Any]], trials: Mapping[int, Trial], *, judged: bool = True
) -> list[dict[str, Any]]:
    """Return a record of scores for each record of explanations; the judge reads the sentences
    alone. All scores are None where the judge of rules is not among the scorers."""
    sentences = {record["latent"]: record["explanation"] for record in records}
    scorable = trials if judged else {}
    rules = [parse(sentences[latent]) for latent in scorable]
    verdicts = dict(zip(scorable, judge_all(list(scorable.values()), rules)))
    scored = []
    for record in records:
        line = outline(record, trials)
        verdict = verdicts.get(record["latent"])
        for scorer in SCORERS:
            line[scorer] = verdict[scorer].own if verdict else None
        for scorer in SCORERS:
            line[f"{scorer}_shuffled"] = _rounded(verdict[scorer].shuffled if verdict else None)
            line[f"{scorer}_elsewhere"] = _rounded(verdict[scorer].elsewhere if verdict else None)
        scored.append(line)
    return scored


def outline(record: Mapping[str, Any], trials: Mapping[int, Trial]) -> dict[str, Any]:
    """Return the part of a record of scores that does not depend on the judge."""
    line = {key: record[key] for key in ("latent", "status", "rate", "windows")}
    if record["status"] == EXPLAINED and record["latent"] not in trials:
        line["status"] = UNSCORABLE
    return line


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
