"""`clearnets explain`: a sentence for each of a uniform sample of latents, from `explain` only.

The explainer `tokens` goes through the latents one by one, and a killed run from the last one on. A
language model is asked about all latents of a layer at once; what it said is kept as it comes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearnets.autointerp.llm.transcripts import leave_empty
from clearnets.autointerp.records import EXPLAINED, EXPLANATIONS, UNPARSABLE
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import JsonlWriter, Unit, Work, build_all, to_line, write_text
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.autointerp.rules.matcher import Text
    from clearnets.autointerp.sampling import Negatives
    from clearnets.config import Config, DelphiExplainer, Explain, Family
    from clearnets.latents.examples import Examples, Grid
    from clearnets.latents.store import LayerCache

SPLIT = "explain"


STAGE = Stage(
    name="explain",
    does="Explain a sample of a family's latents: when is each active?",
    example="clearnets explain --aux transcoder --layers 0-7",
    over=LATENTS,
    params=("seeds", "explain"),
    reads=("artifacts/data", "artifacts/cache/{item}", "artifacts/embed"),
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
    explainer = config.explain.explainer
    if explainer.kind == "delphi":
        asyncio.run(_ask_all(config.explain, explainer, todo, runtime.num_threads))
        return
    leave_empty(paths.transcripts_of("explain", family))
    source: _Source | None = None
    for unit, work in build_all(todo):
        source = source or _Source.of(config.explain)
        _build(config.explain, unit, work, source.text)


@dataclass(frozen=True)
class _Source:
    """The text of the split, as rules read it and as tokens with their texts."""

    text: Text[Grid]
    tokens_RS: np.ndarray
    strings: list[str]

    @classmethod
    def of(cls, settings: Explain) -> _Source:
        from clearnets.autointerp.rules.matcher import read
        from clearnets.data.tokens import open_tokens

        store = open_tokens(paths.data())
        text = read(store, SPLIT, size=settings.window)
        return cls(text, store.split(SPLIT), store.strings())


def _names(unit: Unit) -> tuple[str, str, int]:
    return unit.settings["family"], unit.settings["hookpoint"], unit.settings["seed"]


def _drawn(settings: Explain, unit: Unit) -> tuple[LayerCache, Negatives, list[int]]:
    from clearnets.autointerp.sampling import Negatives, draw
    from clearnets.latents.store import load_layer

    point = unit.settings["hookpoint"]
    cache = load_layer(unit.inputs["cache"], point)
    negatives = Negatives.load(settings.non_activating, unit.inputs, point, SPLIT)
    seed = seed_for(settings.seed, "latents", *_names(unit))
    return cache, negatives, draw(cache.num_latents, settings.latents, seed)


def _label(unit: Unit) -> str:
    family, point, seed = _names(unit)
    return f"explain {family} seed {seed} {point}"


def _build(settings: Explain, unit: Unit, work: Work, text: Text[Grid]) -> None:
    cache, negatives, latents = _drawn(settings, unit)
    with (
        JsonlWriter(work.out / EXPLANATIONS) as writer,
        progress(_label(unit), len(latents), "latents") as bar,
    ):
        bar.advance(len(writer.done))
        for latent in latents[len(writer.done) :]:
            seed = seed_for(settings.seed, "explain", *_names(unit), latent)
            writer.append(explain_latent(text, cache, latent, settings, negatives, seed))
            bar.advance()


async def _ask_all(
    settings: Explain, explainer: DelphiExplainer, todo: list[Unit], threads: int
) -> None:
    from clearnets.autointerp.llm.clients import identity
    from clearnets.autointerp.llm.concurrency import connection
    from clearnets.autointerp.llm.transcripts import Session, put_in_place

    source: _Source | None = None
    async with connection(explainer.client, threads=threads) as connect:
        for unit, work in build_all(todo):
            source = source or _Source.of(settings)
            with Session(identity(explainer.client), _transcript(unit), connect) as session:
                records = await _ask(settings, explainer, unit, source, session)
                lines = "".join(f"{to_line(record)}\n" for record in records)
                write_text(work.out / EXPLANATIONS, lines)
                session.seal(work.out)
    for unit in todo:
        put_in_place(unit.out, _transcript(unit))


async def _ask(
    settings: Explain, explainer: DelphiExplainer, unit: Unit, source: _Source, session: Session
) -> list[dict[str, Any]]:
    """The records of a layer."""
    from clearnets.autointerp.delphi.adapter import examples_of
    from clearnets.autointerp.llm import explainer as language
    from clearnets.autointerp.llm.concurrency import together
    from clearnets.latents.examples import activations

    cache, negatives, latents = _drawn(settings, unit)

    async def one(latent: int) -> dict[str, Any]:
        seed = seed_for(settings.seed, "explain", *_names(unit), latent)
        record, seen = survey(source.text, cache, latent, settings, negatives, seed)
        if seen is None:
            return record
        text, examples = seen
        token_WL = text.windows.these(examples.window_W).cut(source.tokens_RS)
        act_WL = activations(cache, latent, text.windows, examples.window_W)
        active, silent = examples_of(token_WL, act_WL, source.strings)
        asked = language.record_of(unit.settings["hookpoint"], latent, active, silent)
        explanation = await language.explain(explainer, session, asked, seed=seed)
        status = UNPARSABLE if explanation is None else EXPLAINED
        return {**record, "status": status, "explanation": explanation}

    with progress(_label(unit), len(latents), "latents") as bar:
        return await together(map(one, latents), bar.advance)


def _transcript(unit: Unit) -> Path:
    family, point, seed = _names(unit)
    return paths.transcripts("explain", family, seed, point)


def estimate(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[str]:
    """What a language model would be asked, as lines for `--dry-run`; nothing for `tokens`."""
    explainer = config.explain.explainer
    if explainer.kind == "tokens":
        return []
    from clearnets.autointerp.llm.clients import identity
    from clearnets.autointerp.llm.transcripts import Count, report

    source = _Source.of(config.explain)
    counts = []
    for unit in units(config, family=family, layers=layers):
        if not unit.fresh():
            with Count(identity(explainer.client), _transcript(unit)) as count:
                asyncio.run(_ask(config.explain, explainer, unit, source, count))
            counts.append(count)
    return report(counts, retries=explainer.retries)


def explain_latent(
    text: Text[Grid],
    cache: LayerCache,
    latent: int,
    settings: Explain,
    negatives: Negatives,
    seed: int,
) -> dict[str, Any]:
    """The record of one latent, explained by `tokens`."""
    from clearnets.autointerp.rules import explainer as tokens
    from clearnets.autointerp.rules.language import render

    record, seen = survey(text, cache, latent, settings, negatives, seed)
    if seen is not None:
        trigger = record["trigger"]
        rule = tokens.explain(*seen, trigger=trigger, max_words=settings.max_words)
        record["explanation"] = render(rule)
    return record


def survey(
    text: Text[Grid],
    cache: LayerCache,
    latent: int,
    settings: Explain,
    negatives: Negatives,
    seed: int,
) -> tuple[dict[str, Any], tuple[Text, Examples] | None]:
    """The record of one latent, still without an explanation, and the windows that its explainer
    sees, with the text that they number; none where it cannot be explained."""
    import numpy as np

    from clearnets.autointerp.rules import explainer as tokens
    from clearnets.autointerp.sampling import centred, status, to_explain
    from clearnets.latents.examples import activity

    windows = text.windows
    found = activity(cache, latent, windows)
    record: dict[str, Any] = {
        "latent": latent,
        "status": status(found, windows, settings.min_windows),
        "rate": found.count / windows.tokens,
        "windows": len(found.active_A) / len(windows),
        "trigger": None,
        "explanation": None,
    }
    if record["status"] != EXPLAINED:
        return record, None
    record["trigger"] = tokens.trigger(text, found)
    examples = to_explain(
        text,
        cache,
        latent,
        found,
        settings,
        trigger=record["trigger"],
        negatives=negatives,
        rng=np.random.default_rng(seed),
    )
    if not examples.num_active:  # delphi draws none of fewer windows than there are quantiles.
        return record | {"status": "too_rare", "trigger": None}, None
    if settings.center_examples:
        return record, centred(text, cache, latent, examples)
    return record, (text, examples)
