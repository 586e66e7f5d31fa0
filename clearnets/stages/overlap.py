"""`clearnets overlap`: what scoring on windows that the explainer has seen is worth, by latent.

Latents of a uniform sample are explained by `tokens` and scored by the judge of rules under three
protocols: see `clearnets.autointerp.protocols`. A layer takes about a second; a run that was killed
goes on behind the last finished one.

overlap.csv     a latent and protocol: windows that the explainer had seen, answers of the judge
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.autointerp.records import SCORERS
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_json, write_json, write_table
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from clearnets.autointerp.rules.matcher import Text
    from clearnets.config import Config, Family
    from clearnets.latents.examples import Grid

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
    reads=("artifacts/data", "artifacts/cache/{item}", "artifacts/embed"),
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
    texts: dict[str, Text[Grid]] = {}
    for unit, work in build_all(units(config, family=family)):
        texts = texts or _texts(config.explain.window)
        rows = []
        for point in config.hookpoints(family):
            part = work.state / f"{point}.json"
            if not part.exists():
                write_json(part, _layer(config, unit, point, texts))
            rows += read_json(part)
        write_table(work.out / TABLE, COLUMNS, rows)


def _texts(size: int) -> dict[str, Text[Grid]]:
    from clearnets.autointerp.rules.matcher import read
    from clearnets.data.tokens import open_tokens

    store = open_tokens(paths.data())
    return {split: read(store, split, size=size) for split in (EXPLAIN, SCORE)}


def _layer(config: Config, unit: Unit, point: str, texts: dict[str, Text[Grid]]) -> list[dict]:
    """The rows of one layer."""
    from clearnets.autointerp.protocols import Side, compare
    from clearnets.autointerp.sampling import Negatives, draw
    from clearnets.latents.store import load_layer

    settings = config.overlap
    names = (unit.settings["family"], point, unit.settings["seed"])
    kind = config.explain.non_activating
    explain, score = (
        Side(
            texts[split],
            load_layer(unit.inputs[split], point),
            Negatives.load(kind, unit.inputs, point, split),
        )
        for split in (EXPLAIN, SCORE)
    )
    drawn = seed_for(settings.seed, "latents", *names)
    latents = draw(explain.cache.num_latents, settings.latents, drawn)
    rows = []
    with progress(f"overlap {names[0]} seed {names[2]} {point}", len(latents), "latents") as bar:
        for latent in latents:
            seed = seed_for(settings.seed, "overlap", *names, latent)
            found = compare(explain, score, latent, settings, config.explain, seed)
            rows += [{"hookpoint": point, **row} for row in found]
            bar.advance()
    return rows
