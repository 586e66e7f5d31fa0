"""`clearnets explain`: a sentence for each of a uniform sample of latents, from `explain` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clearnets import paths
from clearnets.artifacts import JsonlWriter, Unit, Work, build_all
from clearnets.autointerp.records import EXPLAINED, EXPLANATIONS, hookpoints
from clearnets.config import Config, Family
from clearnets.runtime import Runtime, progress, seed_for

if TYPE_CHECKING:
    import numpy as np

    from clearnets.autointerp.reading import Text
    from clearnets.config import Explain
    from clearnets.latents.store import LayerCache

SPLIT = "explain"


def units(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[Unit]:
    """One unit per seed and hookpoint."""
    return [
        Unit(
            stage="explain",
            out=paths.explain(family, seed, point),
            settings={
                "seed": seed,
                "family": family,
                "hookpoint": point,
                **config.dump("explain"),
            },
            inputs={"data": paths.data(), "cache": paths.cache(family, seed, SPLIT)},
        )
        for seed in config.seeds
        for point in hookpoints(family, config.model, layers)
    ]


def run(config: Config, *, runtime: Runtime, family: Family, layers: tuple[int, ...]) -> None:
    """Explain the sampled latents of a family's layers, for every seed."""
    from clearnets.autointerp.reading import read
    from clearnets.data.tokens import open_tokens

    text = None
    for unit, work in build_all(units(config, family=family, layers=layers)):
        if text is None:
            text = read(open_tokens(paths.data()), SPLIT, size=config.explain.window)
        _build(config.explain, unit, work, text)


def _build(settings: Explain, unit: Unit, work: Work, text: Text) -> None:
    from clearnets.latents.store import load_layer

    names = (unit.settings["family"], unit.settings["hookpoint"], unit.settings["seed"])
    cache = load_layer(unit.inputs["cache"], unit.settings["hookpoint"])
    latents = draw(cache.num_latents, settings.latents, seed_for(settings.seed, "latents", *names))
    label = f"explain {names[0]} seed {names[2]} {names[1]}"
    with (
        JsonlWriter(work.out / EXPLANATIONS) as writer,
        progress(label, len(latents), "latents") as bar,
    ):
        bar.advance(len(writer.done))
        for latent in latents[len(writer.done) :]:
            seed = seed_for(settings.seed, "explain", *names, latent)
            writer.append(explain_latent(text, cache, latent, settings, seed))
            bar.advance()


def draw(num_latents: int, count: int, seed: int) -> list[int]:
    """`count` latents, or all, drawn uniformly without replacement, ascending."""
    import numpy as np

    return sorted(np.random.default_rng(seed).permutation(num_latents)[:count].tolist())


def explain_latent(
    text: Text, cache: LayerCache, latent: int, settings: Explain, seed: int
) -> dict[str, Any]:
    """The record of one latent."""
    import numpy as np

    from clearnets.autointerp.explainers import tokens
    from clearnets.autointerp.rules import render
    from clearnets.latents.examples import activity, sample

    windows = text.windows
    found = activity(cache, latent, windows)
    record: dict[str, Any] = {
        "latent": latent,
        "status": _status(found.count, found.active_A, len(windows), settings.min_windows),
        "rate": found.count / windows.tokens,
        "windows": len(found.active_A) / len(windows),
        "trigger": None,
        "explanation": None,
    }
    if record["status"] == EXPLAINED:
        trigger = tokens.trigger(text, found)
        examples = sample(
            found,
            windows,
            holds=text.holding(text.lexicon.id(trigger)),
            active=settings.active,
            silent=settings.silent,
            rng=np.random.default_rng(seed),
        )
        rule = tokens.explain(text, examples, trigger=trigger, max_words=settings.max_words)
        record |= {"trigger": trigger, "explanation": render(rule)}
    return record


def _status(count: int, active_A: np.ndarray, num_windows: int, min_windows: int) -> str:
    if count == 0:
        return "dead"
    if len(active_A) < min_windows:
        return "too_rare"
    return "too_frequent" if num_windows - len(active_A) < min_windows else EXPLAINED
