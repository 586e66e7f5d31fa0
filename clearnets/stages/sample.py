"""`clearnets sample`: a page of explanations to read, good, middling and poor, with their windows.

sampled.csv          a row per drawn latent: part (good, middling, poor), family, seed, layer,
                     latent, scorer, score, explanation, effect
sampled_tokens.csv   a row per token of its windows: family, part, window, place, text, share of the
                     latent's largest activation, and whether its explanation fires there
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_table
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.config import Config


STAGE = Stage(
    name="sample",
    does="Draw explanations to read: good, middling and poor ones, with windows of their latents.",
    example="clearnets sample",
    params=(
        *("seeds", "families", "explain.window", "explain.explainer", "execute.families"),
        "browse.seed",
    ),
    reads=(
        *("artifacts/data", "artifacts/words", "artifacts/cache", "artifacts/explain"),
        *("artifacts/score", "artifacts/similarity", "artifacts/concepts"),
        *("artifacts/execute", "artifacts/effects"),
    ),
    small=("artifacts/sampled",),
)


def units(config: Config) -> list[Unit]:
    """The one unit of this stage."""
    from clearnets.browser import findings
    from clearnets.browser.sampled import SPLIT

    return [
        Unit(
            stage="sample",
            out=paths.sampled(),
            settings=config.dump(*STAGE.params),
            inputs=findings.inputs(config, SPLIT),
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write both tables, where they are stale."""
    from clearnets.browser.sampled import COLUMNS, TOKEN_COLUMNS, tables

    for _, work in build_all(units(config)):
        latents, tokens = tables(config)
        write_table(work.out / "sampled.csv", COLUMNS, latents)
        write_table(work.out / "sampled_tokens.csv", TOKEN_COLUMNS, tokens)
