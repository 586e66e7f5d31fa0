"""`clearnets score`: the judge of rules on held-out windows, with shuffled explanations beside.

A layer is judged as a whole, in about a second: every latent by every explained latent's rule. So
a run that was killed goes on from the last finished layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clearnets import paths
from clearnets.artifacts import (
    Unit,
    Work,
    build_all,
    read_jsonl,
    settings_of,
    to_line,
    write_json,
    write_text,
)
from clearnets.autointerp.records import (
    EXPLAINED,
    EXPLANATIONS,
    SCORED,
    SCORERS,
    STATUSES,
    UNSCORABLE,
    hookpoints,
)
from clearnets.config import Config, Family
from clearnets.runtime import Runtime, progress, seed_for

if TYPE_CHECKING:
    from clearnets.autointerp.reading import Text
    from clearnets.autointerp.scorers.rules import Trial
    from clearnets.config import Score
    from clearnets.latents.store import LayerCache

SPLIT = "score"


def units(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[Unit]:
    """One unit per seed and hookpoint."""
    return [
        Unit(
            stage="score",
            out=paths.score(family, seed, point),
            settings={"seed": seed, "family": family, "hookpoint": point, **config.dump("score")},
            inputs={
                "data": paths.data(),
                "cache": paths.cache(family, seed, SPLIT),
                "explain": paths.explain(family, seed, point),
            },
        )
        for seed in config.seeds
        for point in hookpoints(family, config.model, layers)
    ]


def run(config: Config, *, runtime: Runtime, family: Family, layers: tuple[int, ...]) -> None:
    """Score the explanations of a family's layers, for every seed; metrics over all layers."""
    from clearnets.autointerp.reading import read
    from clearnets.data.tokens import open_tokens

    texts: dict[int, Text] = {}
    for unit, work in build_all(units(config, family=family, layers=layers)):
        # The windows of an explanation are those that it was made with.
        explained_with = settings_of(unit.inputs["explain"])["explain"]
        size = explained_with["window"]
        if size not in texts:
            texts[size] = read(open_tokens(paths.data()), SPLIT, size=size)
        _build(config.score, unit, work, texts[size], explained_with["min_windows"])
    write_json(paths.metrics(f"score-{family}"), _metrics(config, family))


def _build(settings: Score, unit: Unit, work: Work, text: Text, min_windows: int) -> None:
    from clearnets.latents.store import load_layer

    names = (unit.settings["family"], unit.settings["hookpoint"], unit.settings["seed"])
    cache = load_layer(unit.inputs["cache"], unit.settings["hookpoint"])
    records = read_jsonl(unit.inputs["explain"] / EXPLANATIONS)
    label = f"score {names[0]} seed {names[2]} {names[1]}"
    with progress(label, len(records), "latents") as bar:
        trials: dict[int, Trial] = {}
        for record in records:
            latent = record["latent"]
            seed = seed_for(settings.seed, "score", *names, latent)
            trial = prepare(text, cache, record, settings, min_windows, seed)
            if trial is not None:
                trials[latent] = trial
            bar.advance()
    scored = score_latents(text, records, trials)
    write_text(work.out / SCORED, "".join(f"{to_line(record)}\n" for record in scored))


def prepare(
    text: Text,
    cache: LayerCache,
    record: Mapping[str, Any],
    settings: Score,
    min_windows: int,
    seed: int,
) -> Trial | None:
    """What a latent is judged on; None where it is not explained, or active or silent in fewer
    than `min_windows` windows."""
    import numpy as np

    from clearnets.autointerp.scorers.rules import Trial, mark
    from clearnets.latents.examples import activity, sample

    if record["status"] != EXPLAINED:
        return None
    windows, trigger = text.windows, record["trigger"]
    found = activity(cache, record["latent"], windows)
    if min(len(found.active_A), len(windows) - len(found.active_A)) < min_windows:
        return None
    rng = np.random.default_rng(seed)
    examples = sample(
        found,
        windows,
        holds=text.holding(text.lexicon.id(trigger)),
        active=settings.active,
        silent=settings.silent,
        rng=rng,
    )
    return Trial(examples, mark(text, examples, trigger=trigger, rng=rng))


def score_latents(
    text: Text, records: Sequence[Mapping[str, Any]], trials: Mapping[int, Trial]
) -> list[dict[str, Any]]:
    """A record of scores for each record of explanations; the judge reads the sentences alone."""
    from clearnets.autointerp.rules import parse
    from clearnets.autointerp.scorers.rules import judge_all

    sentences = {record["latent"]: record["explanation"] for record in records}
    rules = [parse(sentences[latent]) for latent in trials]
    verdicts = dict(zip(trials, judge_all(text, list(trials.values()), rules)))
    scored = []
    for record in records:
        line = {key: record[key] for key in ("latent", "status", "rate", "windows")}
        if record["status"] == EXPLAINED and record["latent"] not in trials:
            line["status"] = UNSCORABLE
        verdict = verdicts.get(record["latent"])
        for scorer in SCORERS:
            line[scorer] = verdict[scorer].own if verdict else None
        for scorer in SCORERS:
            line[f"{scorer}_shuffled"] = _rounded(verdict[scorer].shuffled if verdict else None)
            line[f"{scorer}_elsewhere"] = _rounded(verdict[scorer].elsewhere if verdict else None)
        scored.append(line)
    return scored


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _metrics(config: Config, family: Family) -> dict[str, Any]:
    """Per seed, over all layers that are up to date: latents by status, mean accuracies."""
    metrics: dict[str, Any] = {}
    for unit in units(config, family=family, layers=config.model.layers):
        if unit.fresh():
            name = f"seed-{unit.settings['seed']}"
            metrics.setdefault(name, []).extend(read_jsonl(unit.out / SCORED))
    return {name: summary(records) for name, records in metrics.items()}


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Latents by status, and the mean balanced accuracy of each score over those that have it."""
    from clearnets.autointerp.statistics import balanced_accuracy

    status = [record["status"] for record in records]
    numbers: dict[str, Any] = {name: status.count(name) for name in STATUSES}
    for scorer in SCORERS:
        own = [balanced_accuracy(**r[scorer]) for r in records if r[scorer] is not None]
        numbers[f"rule_{scorer}"] = _mean(own)
    for scorer in SCORERS:
        column = f"{scorer}_shuffled"
        numbers[f"rule_{column}"] = _mean([r[column] for r in records if r[column] is not None])
    return numbers


def _mean(values: Sequence[Any]) -> float | None:
    return round(float(sum(values)) / len(values), 6) if values else None
