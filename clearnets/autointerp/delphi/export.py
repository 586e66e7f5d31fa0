"""`clearnets export`: a family's explanations and scores in the files that a run of delphi writes.

Answers by window are not stored: those of the judge of rules are computed again, and those of a
language model are read from its transcripts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clearnets import UserError
from clearnets.autointerp.delphi import layout
from clearnets.autointerp.llm.completions import Backend, identity
from clearnets.autointerp.llm.transcripts import Session, folder_of
from clearnets.autointerp.records import SCORERS, SPLITS, layer_names
from clearnets.autointerp.rules.judge import detects, recognizes
from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.scored_layer import ScoredLayer
from clearnets.autointerp.texts import Texts, open_texts
from clearnets.config import Config, parse_seed
from clearnets.pipeline.artifacts import check
from clearnets.pipeline.folders import check_new, made_whole

if TYPE_CHECKING:
    from clearnets.autointerp.llm.shown import Shown
    from clearnets.pipeline.artifacts import Unit

By = Literal["rules", "language"]
# Yes or no, and the probability of yes; None where there is none.
Answer = tuple[bool | None, float | None]


def run(
    config: Config,
    units: Sequence[Unit],
    *,
    seed: int | None,
    by: By | None,
    firing_counts: bool,
    out: Path,
) -> tuple[int, int]:
    """Write the folder `out`, all or nothing.

    Args:
        units: of the stage `score`: the family's layers, of all training seeds.
        seed: the training seed to export; the first where None.
        by: whose answers; where None, the language model's if one judges.
        firing_counts: also how often each latent is active in the split `score`.

    Returns:
        The number of explanations, and of files of scores.

    Raises:
        UserError: `out` exists or can't be written, or something to export is missing.
    """
    by = by or ("language" if config.score.judge else "rules")
    if by == "rules" and not config.score.rules:
        raise UserError("the judge of rules is not among score.scorers; use --by language")
    if by == "language" and config.score.judge is None:
        raise UserError("no language model is among score.scorers; use --by rules")
    seed = parse_seed(seed, config)
    check_new(out)
    units = [unit for unit in units if unit.settings["seed"] == seed]
    for unit in units:
        for path in (*unit.inputs.values(), unit.out):
            check(path)
    with made_whole(out) as part:
        return asyncio.run(_write(config, units, by, firing_counts, part))


async def _write(
    config: Config, units: Sequence[Unit], by: By, firing_counts: bool, folder: Path
) -> tuple[int, int]:
    from clearnets.autointerp.llm.judged_layer import shown

    texts, counts = open_texts(SPLITS[config.explain.protocol]), {}
    explanations, files, least = 0, 0, 1
    scorers = _scorers(config, by)
    for unit in units:
        layer = ScoredLayer.of(config.score, layer_names(unit), unit.inputs, texts)
        module = layer.names[1]
        counts[module] = layer.cache.offsets[1:] - layer.cache.offsets[:-1]
        least = layer.explained.min_windows
        for latent, sentence in layer.sentences.items():
            if sentence is not None:
                layout.write_explanation(folder, module, latent, sentence)
                explanations += 1
        found = _by_rules(layer) if by == "rules" else await _by_model(config, unit, layer, texts)
        for latent, answers in found.items():
            windows = shown(layer, texts, latent, layer.trials[latent])
            for scorer in scorers:
                examples = _examples(windows, scorer, answers[scorer])
                layout.write_scores(folder, scorer, module, latent, examples)
                files += 1
    layout.write_settings(folder, list(counts), scorers, least)
    if firing_counts:
        layout.write_firing_counts(folder, counts)
    return explanations, files


def _scorers(config: Config, by: By) -> list[str]:
    """Return the scorers whose answers delphi's result analysis can read."""
    judge = config.score.judge
    asked = judge.scorers if by == "language" and judge else SCORERS
    return [scorer for scorer in SCORERS if scorer in asked]


def _by_rules(layer: ScoredLayer) -> dict[int, dict[str, list[Answer]]]:
    """Return the answers of the judge of rules, by latent and scorer."""
    found = {}
    for latent, trial in layer.trials.items():
        rule = parse(layer.sentences[latent])
        fired = trial.text.fires(rule, trial.examples.window_W)[None]
        both = detects(fired, trial.examples), recognizes(fired, trial.marks)
        found[latent] = {
            scorer: [(bool(yes), None) for part in parts for yes in part[0]]
            for scorer, parts in zip(SCORERS, both)
        }
    return found


async def _by_model(
    config: Config, unit: Unit, layer: ScoredLayer, texts: Texts
) -> dict[int, dict[str, list[Answer]]]:
    """Return the answers of the language model from its transcript, by latent and scorer."""
    from clearnets.autointerp.llm.judged_layer import Panel

    judge = config.score.judge
    assert judge is not None
    judge = judge.model_copy(update={"scorers": tuple(_scorers(config, "language"))})
    found = {}
    with Session(identity(judge.client), folder_of(unit), _refuse) as session:
        panel = Panel(judge, layer, texts, session)
        for latent in layer.trials:
            answers = await panel.ask(latent, layer.sentences[latent])
            found[latent] = {
                scorer: [(answer.prediction, answer.probability) for answer in given]
                for scorer, given in answers.items()
            }
    return found


def _refuse() -> Backend:
    raise UserError(
        "the transcripts of this run are not all there; run `dvc pull`, or `clearnets score` again"
    )


def _examples(shown: Shown, scorer: str, answers: Sequence[Answer]) -> list[layout.Example]:
    """Return each item of a scorer with the answer to it."""
    active = shown.trial.examples.num_active
    quantile_W = layout.quantiles(shown.act_WL.max(axis=1))
    if scorer == "detection":
        items = [(window, window < active) for window in range(len(shown.strings_W))]
    else:
        marks = shown.trial.marks
        items = [(window, True) for window in marks.positive_P.tolist()]
        items += [(window, False) for window in marks.negative_Q.tolist()]
    return [
        layout.Example(
            strings=shown.strings_W[window],
            act_L=shown.act_WL[window],
            activating=activating,
            prediction=prediction,
            probability=probability,
            distance=int(quantile_W[window]) if activating else 0,
        )
        for (window, activating), (prediction, probability) in zip(items, answers, strict=True)
    ]
