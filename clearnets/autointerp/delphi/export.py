"""`clearnets export`: a family's explanations and answers as a run of delphi would leave them.

Answers by window are kept nowhere: those of the judge of rules are made again, and those of a
language model are read from its transcripts, without asking it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clearnets import UserError
from clearnets.autointerp.delphi import layout as delphi
from clearnets.autointerp.llm.clients import Backend
from clearnets.config import Config, Family, parse_seed
from clearnets.pipeline.artifacts import check
from clearnets.pipeline.folders import check_new, made_whole
from clearnets.stages import score

if TYPE_CHECKING:
    from clearnets.autointerp.llm.scorers import Shown
    from clearnets.pipeline.artifacts import Unit

By = Literal["rules", "language"]
# Yes or no, and the probability of yes; None where there is none.
Answer = tuple[bool | None, float | None]
SCORERS = ("detection", "fuzzing")


def run(
    config: Config,
    *,
    family: Family,
    layers: tuple[int, ...],
    seed: int | None,
    by: By | None,
    firing_counts: bool,
    out: Path,
) -> tuple[int, int]:
    """Write the folder `out`, all or nothing.

    Args:
        seed: a training seed; the first where None.
        by: whose answers; without, the language model's where one judges.
        firing_counts: also how often each latent is active in the split `score`.

    Returns:
        How many explanations, and how many files of scores.

    Raises:
        UserError: `out` is there already or can't be written, or something to export is not
            there.
    """
    by = by or ("language" if config.score.judge else "rules")
    if by == "rules" and not config.score.rules:
        raise UserError("the judge of rules is not among score.scorers; use --by language")
    if by == "language" and config.score.judge is None:
        raise UserError("no language model is among score.scorers; use --by rules")
    seed = parse_seed(seed, config)
    check_new(out)
    units = score.units(config, family=family, layers=layers)
    units = [unit for unit in units if unit.settings["seed"] == seed]
    for unit in units:
        for path in (*unit.inputs.values(), unit.out):
            check(path)
    with made_whole(out) as part:
        return asyncio.run(_write(config, units, by, firing_counts, part))


async def _write(
    config: Config, units: Sequence[Unit], by: By, firing_counts: bool, folder: Path
) -> tuple[int, int]:
    texts, counts = score.Texts(score.SPLITS[config.explain.protocol]), {}
    explanations, files, least = 0, 0, 1
    scorers = _scorers(config, by)
    for unit in units:
        layer = score.Layer.of(config.score, unit, texts)
        module = unit.settings["hookpoint"]
        counts[module] = layer.cache.offsets[1:] - layer.cache.offsets[:-1]
        least = layer.draws.explained.min_windows
        for record in layer.records:
            if record["explanation"] is not None:
                delphi.write_explanation(folder, module, record["latent"], record["explanation"])
                explanations += 1
        reader = score.Reader(layer, texts)
        said = _by_rules(layer) if by == "rules" else await _by_model(config, unit, layer, texts)
        for latent, answers in said.items():
            shown = reader.shown(latent, layer.trials[latent])
            for scorer in scorers:
                examples = _examples(shown, scorer, answers[scorer])
                delphi.write_scores(folder, scorer, module, latent, examples)
                files += 1
    delphi.write_settings(folder, list(counts), scorers, least)
    if firing_counts:
        delphi.write_firing_counts(folder, counts)
    return explanations, files


def _scorers(config: Config, by: By) -> list[str]:
    """Those whose answers delphi's result analysis can read."""
    judge = config.score.judge
    asked = judge.scorers if by == "language" and judge else SCORERS
    return [scorer for scorer in SCORERS if scorer in asked]


def _by_rules(layer: score.Layer) -> dict[int, dict[str, list[Answer]]]:
    """The answers of the judge of rules, by latent and scorer."""
    from clearnets.autointerp.rules.judge import detects, recognizes
    from clearnets.autointerp.rules.language import parse

    sentences = {record["latent"]: record["explanation"] for record in layer.records}
    said = {}
    for latent, trial in layer.trials.items():
        fired = trial.text.fires(parse(sentences[latent]), trial.examples.window_W)[None]
        both = detects(fired, trial.examples), recognizes(fired, trial.marks)
        said[latent] = {
            scorer: [(bool(yes), None) for part in parts for yes in part[0]]
            for scorer, parts in zip(SCORERS, both)
        }
    return said


async def _by_model(
    config: Config, unit: Unit, layer: score.Layer, texts: score.Texts
) -> dict[int, dict[str, list[Answer]]]:
    """The answers of the language model from its transcript, by latent and scorer."""
    from clearnets.autointerp.llm.clients import identity
    from clearnets.autointerp.llm.transcripts import Session

    judge = config.score.judge
    assert judge is not None
    judge = judge.model_copy(update={"scorers": tuple(_scorers(config, "language"))})
    sentences = {record["latent"]: record["explanation"] for record in layer.records}
    said = {}
    with Session(identity(judge.client), score.transcript(unit), _must_not_ask) as session:
        panel = score.Panel(config.score, judge, layer, texts, session)
        for latent in layer.trials:
            answers = await panel.ask(latent, sentences[latent])
            said[latent] = {
                scorer: [(answer.prediction, answer.probability) for answer in given]
                for scorer, given in answers.items()
            }
    return said


def _must_not_ask() -> Backend:
    raise UserError(
        "the transcripts of this run are not all there; run `dvc pull`, or `clearnets score` again"
    )


def _examples(shown: Shown, scorer: str, answers: Sequence[Answer]) -> list[delphi.Example]:
    """Each item of a scorer with the answer to it."""
    active = shown.trial.examples.num_active
    quantile_W = delphi.quantiles(shown.act_WL.max(axis=1))
    if scorer == "detection":
        items = [(window, window < active) for window in range(len(shown.strings_W))]
    else:
        marks = shown.trial.marks
        items = [(window, True) for window in marks.positive_P.tolist()]
        items += [(window, False) for window in marks.negative_Q.tolist()]
    return [
        delphi.Example(
            strings=shown.strings_W[window],
            act_L=shown.act_WL[window],
            activating=activating,
            prediction=prediction,
            probability=probability,
            distance=int(quantile_W[window]) if activating else 0,
        )
        for (window, activating), (prediction, probability) in zip(items, answers, strict=True)
    ]
