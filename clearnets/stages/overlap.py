"""`clearnets overlap`: scores of explanations on windows that their explainer has seen, and others.

Latents of a uniform sample are explained by `tokens` and scored by the judge of rules under three
protocols: see `clearnets.autointerp.protocols`. A layer takes about a second; a run that was killed
continues behind the last finished one.

overlap.csv     a row per latent and protocol: shared windows, counts of the judge's answers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.autointerp.records import SCORERS
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_json, write_json, write_table
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from clearnets.autointerp.texts import Texts
    from clearnets.config import Config, Family

EXPLAIN, SCORE = "explain", "score"
TABLE = "overlap.csv"
COLUMNS = (
    *("hookpoint", "latent", "status", "rate", "windows", "protocol", "positives", "seen"),
    *(f"{scorer}_{cell}" for scorer in SCORERS for cell in ("tp", "fp", "tn", "fn")),
)


STAGE = Stage(
    name="overlap",
    does="Measure what it is worth to score on windows that the explainer has seen.",
    example="clearnets overlap --aux native",
    over=LATENTS,
    params=("seeds", "explain", "overlap"),
    reads=("artifacts/data", "artifacts/words", "artifacts/cache/{item}", "artifacts/embed"),
    writes=("artifacts/overlap/{item}",),
)


def units(config: Config, *, family: Family) -> list[Unit]:
    """One unit per seed."""
    from clearnets.autointerp.sampling import needed

    return [
        Unit(
            stage="overlap",
            out=paths.overlap(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs={
                "data": paths.data(),
                "words": paths.words(),
                EXPLAIN: paths.cache(family, seed, EXPLAIN),
                SCORE: paths.cache(family, seed, SCORE),
                **needed(
                    config.explain.non_activating,
                    family,
                    embed=paths.embed(),
                    coders=paths.coders(family, seed),
                ),
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, family: Family) -> None:
    """Write the table of a family for every seed."""
    from clearnets.autointerp.texts import open_texts

    texts: dict[str, Texts] = {}
    for unit, work in build_all(units(config, family=family)):
        texts = texts or {split: open_texts(split) for split in (EXPLAIN, SCORE)}
        rows = []
        for point in config.hookpoints(family):
            part = work.state / f"{point}.json"
            if not part.exists():
                write_json(part, _layer(config, unit, point, texts))
            rows += read_json(part)
        write_table(work.out / TABLE, COLUMNS, rows)


def _layer(config: Config, unit: Unit, point: str, texts: dict[str, Texts]) -> list[dict]:
    """Return the rows of one layer."""
    from clearnets.autointerp.protocols import Side, compare
    from clearnets.autointerp.sampling import draw

    settings, explain = config.overlap, config.explain
    family, training_seed = unit.settings["family"], unit.settings["seed"]
    names = (family, point, training_seed)
    here, there = (
        Side.of(explain, {**unit.inputs, "cache": unit.inputs[split]}, point, texts[split])
        for split in (EXPLAIN, SCORE)
    )
    drawn = seed_for(settings.seed, "latents", *names)
    latents = draw(here.cache.num_latents, settings.latents, drawn)
    rows = []
    with progress(f"overlap {family} seed {training_seed} {point}", len(latents), "latents") as bar:
        for latent in latents:
            seed = seed_for(settings.seed, "overlap", *names, latent)
            found = compare(here, there, latent, settings, explain, seed)
            rows += [{"hookpoint": point, **row} for row in found]
            bar.advance()
    return rows
