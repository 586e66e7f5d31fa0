"""A language model as judge of a layer's explanations, with its controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearnets.autointerp.llm import controls, scorers
from clearnets.autointerp.llm.concurrency import together
from clearnets.autointerp.llm.scorers import Answers
from clearnets.autointerp.llm.shown import Shown
from clearnets.autointerp.llm.transcripts import Session
from clearnets.autointerp.rules.judge import Trial
from clearnets.autointerp.scored_layer import ScoredLayer, outline
from clearnets.autointerp.texts import Texts
from clearnets.config import DelphiScorer
from clearnets.latents.examples import activations
from clearnets.pipeline.runtime import progress, seed_for


def shown(layer: ScoredLayer, texts: Texts, latent: int, trial: Trial) -> Shown:
    """Return the windows of a latent's trial with the texts of their tokens."""
    windows, window_W = trial.text.windows, trial.examples.window_W
    token_WL = windows.these(window_W).cut(texts.tokens_RS)
    return Shown(
        trial=trial,
        strings_W=[[texts.strings[token] for token in token_L] for token_L in token_WL],
        act_WL=activations(layer.cache, latent, windows, window_W),
    )


class Panel:
    """A language model that judges the latents of a layer."""

    def __init__(
        self, judge: DelphiScorer, layer: ScoredLayer, texts: Texts, session: Session
    ) -> None:
        self._judge, self._layer, self._texts, self._session = judge, layer, texts, session

    async def ask(self, latent: int, explanation: str, *, control: str = "") -> dict[str, Answers]:
        """Return each scorer's answers about a latent, given an explanation; of a control, those of
        the scorers that have it (see `clearnets.autointerp.llm.controls`)."""
        layer, judge = self._layer, self._judge
        trial: Trial | None = layer.trials[latent]
        if control == "redrawn":
            record = next(one for one in layer.records if one["latent"] == latent)
            trial = layer.draw(record, control)
            assert trial is not None, "a latent can be scored with any draw or with none"
        again = [control] if control in ("reordered", "redrawn") else []
        return await scorers.answers(
            controls.controlled(judge, control) if control else judge,
            self._session,
            shown(layer, self._texts, latent, trial),
            explanation,
            seed=seed_for(layer.settings.seed, "judge", *layer.names, latent, *again),
        )


async def judge_layer(
    judge: DelphiScorer, layer: ScoredLayer, texts: Texts, session: Session
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a language model's scores of a layer, and how often it gave which probability."""
    panel = Panel(judge, layer, texts, session)
    seed = seed_for(layer.settings.seed, "controls", *layer.names)
    plan = controls.plan(layer.trials, judge, seed)
    sentences = layer.sentences
    probabilities = controls.Histogram()

    async def one(record: Mapping[str, Any]) -> dict[str, Any]:
        line, latent = outline(record, layer.trials), record["latent"]
        if latent not in layer.trials:
            return {**line, **controls.nothing(judge)}
        own = await panel.ask(latent, sentences[latent])
        probabilities.add(own)
        shuffled = {
            giver: await panel.ask(latent, sentences[giver], control="shuffled")
            for giver in plan.givers[latent]
        }
        reordered, redrawn = None, None
        if latent in plan.reasked:
            reordered = await panel.ask(latent, sentences[latent], control="reordered")
            redrawn = await panel.ask(latent, sentences[latent], control="redrawn")
        return {**line, **controls.scores(judge, own, shuffled, reordered, redrawn)}

    with progress(f"judge {layer.label}", len(layer.records), "latents") as bar:
        judged = await together(map(one, layer.records), bar.advance)
    return judged, probabilities.counts()
