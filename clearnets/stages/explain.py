"""`clearnets explain`: a sentence for each of a uniform sample of latents, from `explain` only.

The explainer `tokens` goes through the latents one by one, and a killed run continues behind the
last one. A language model is asked about all latents of a layer at once; its replies are stored as
they come.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from clearnets.autointerp.llm.transcripts import leave_empty
from clearnets.autointerp.records import EXPLANATIONS, layer_names
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import JsonlWriter, Unit, Work, build_all, write_jsonl
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from clearnets.autointerp.explained_layer import ExplainedLayer
    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.autointerp.texts import Texts
    from clearnets.config import Config, Explain, Family

SPLIT = "explain"


STAGE = Stage(
    name="explain",
    does="Explain a sample of a family's latents: when is each active?",
    example="clearnets explain --aux transcoder --layers 0-7",
    over=LATENTS,
    params=("seeds", "explain"),
    reads=("artifacts/data", "artifacts/words", "artifacts/cache/{item}", "artifacts/embed"),
    writes=("artifacts/transcripts/explain/{item}",),
    small=("artifacts/explain/{item}",),
    by_layer=True,
)


def units(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[Unit]:
    """One unit per seed and hookpoint."""
    from clearnets.autointerp.sampling import needed

    return [
        Unit(
            stage="explain",
            out=paths.explain(family, seed, point),
            settings={
                "seed": seed,
                "family": family,
                "hookpoint": point,
                **config.dump(*STAGE.settings),
            },
            inputs={
                "data": paths.data(),
                "words": paths.words(),
                "cache": paths.cache(family, seed, SPLIT),
                **needed(
                    config.explain.non_activating,
                    family,
                    embed=paths.embed(),
                    coders=paths.coders(family, seed),
                ),
            },
        )
        for seed in config.seeds
        for point in config.hookpoints(family, layers)
    ]


def run(config: Config, *, runtime: Runtime, family: Family, layers: tuple[int, ...]) -> None:
    """Explain the sampled latents of a family's layers, for every seed."""
    todo = units(config, family=family, layers=layers)
    settings, load = config.explain, _loader(config.explain)
    if settings.explainer.kind != "delphi":
        leave_empty(paths.transcripts_of("explain", family))
        for unit, work in build_all(todo):
            layer, _ = load(unit)
            with JsonlWriter(work.out / EXPLANATIONS) as writer:
                _explain(layer, writer)
        return
    from clearnets.autointerp.llm.concurrency import build_units
    from clearnets.autointerp.llm.explainer import explain_layer

    explainer = settings.explainer

    async def build(unit: Unit, work: Work, session: Session) -> None:
        write_jsonl(work.out / EXPLANATIONS, await explain_layer(explainer, *load(unit), session))

    build_units(explainer.client, todo, build)


def _loader(settings: Explain) -> Callable[[Unit], tuple[ExplainedLayer, Texts]]:
    """Return a function that loads a unit's layer, and the text of the split at its first call."""
    from clearnets.autointerp.explained_layer import ExplainedLayer
    from clearnets.autointerp.texts import open_texts

    @cache
    def texts() -> Texts:
        return open_texts(SPLIT)

    def load(unit: Unit) -> tuple[ExplainedLayer, Texts]:
        return ExplainedLayer.of(settings, layer_names(unit), unit.inputs, texts()), texts()

    return load


def _explain(layer: ExplainedLayer, writer: JsonlWriter) -> None:
    """Explain offline the latents that have no record yet."""
    family, point, seed = layer.names
    with progress(f"explain {family} seed {seed} {point}", len(layer.latents), "latents") as bar:
        bar.advance(len(writer.done))
        for latent in layer.latents[len(writer.done) :]:
            writer.append(layer.explain(latent))
            bar.advance()


def estimate(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[str]:
    """Return what a language model would be asked, as lines for `--dry-run`; none for others."""
    explainer = config.explain.explainer
    if explainer.kind != "delphi":
        return []
    from clearnets.autointerp.llm.concurrency import estimate_units
    from clearnets.autointerp.llm.explainer import explain_layer

    load = _loader(config.explain)
    return estimate_units(
        explainer.client,
        units(config, family=family, layers=layers),
        lambda unit, session: explain_layer(explainer, *load(unit), session),
        retries=explainer.retries,
    )
