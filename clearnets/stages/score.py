"""`clearnets score`: the judge of rules on held-out windows, with shuffled explanations beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clearnets import paths
from clearnets.artifacts import (
    JsonlWriter,
    Unit,
    Work,
    build_all,
    read_jsonl,
    settings_of,
    write_json,
)
from clearnets.autointerp.records import (
    EXPLAINED,
    EXPLANATIONS,
    SCORED,
    SCORES,
    STATUSES,
    UNSCORABLE,
    hookpoints,
)
from clearnets.config import Config, Family
from clearnets.runtime import Runtime, progress, seed_for

if TYPE_CHECKING:
    from clearnets.autointerp.reading import Text
    from clearnets.config import Score
    from clearnets.latents.store import LayerCache

SPLIT = "score"
# Other latents' explanations that each latent is judged by; with one alone the control's mean
# depends on the draw by more than its interval says.
SHUFFLES = 5


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
        for point in hookpoints(family, layers)
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
    from clearnets.autointerp.controls import derangements
    from clearnets.latents.store import load_layer

    names = (unit.settings["family"], unit.settings["hookpoint"], unit.settings["seed"])
    cache = load_layer(unit.inputs["cache"], unit.settings["hookpoint"])
    records = read_jsonl(unit.inputs["explain"] / EXPLANATIONS)
    explained = [record for record in records if record["status"] == EXPLAINED]
    shuffle = seed_for(settings.seed, "shuffle", *names)
    orders = derangements(len(explained), times=SHUFFLES, seed=shuffle)
    others = {
        record["latent"]: [explained[order[index]]["explanation"] for order in orders]
        for index, record in enumerate(explained)
    }
    label = f"score {names[0]} seed {names[2]} {names[1]}"
    with (
        JsonlWriter(work.out / SCORED) as writer,
        progress(label, len(records), "latents") as bar,
    ):
        bar.advance(len(writer.done))
        for record in records[len(writer.done) :]:
            latent = record["latent"]
            seed = seed_for(settings.seed, "score", *names, latent)
            scored = score_latent(
                text, cache, record, others.get(latent, []), settings, min_windows, seed
            )
            writer.append(scored)
            bar.advance()


def score_latent(
    text: Text,
    cache: LayerCache,
    record: Mapping[str, Any],
    others: Sequence[str],
    settings: Score,
    min_windows: int,
    seed: int,
) -> dict[str, Any]:
    """The record of one latent, from its explanation's record and other latents' sentences.

    The counts of the others are added up: their balanced accuracy is the mean over them.
    """
    import numpy as np

    from clearnets.autointerp.rules import parse
    from clearnets.autointerp.scorers import rules as judge
    from clearnets.latents.examples import activity, sample

    scored: dict[str, Any] = {key: record[key] for key in ("latent", "status", "rate", "windows")}
    scored |= dict.fromkeys(SCORES)
    if record["status"] != EXPLAINED:
        return scored
    windows, trigger = text.windows, record["trigger"]
    found = activity(cache, record["latent"], windows)
    if min(len(found.active_A), len(windows) - len(found.active_A)) < min_windows:
        return scored | {"status": UNSCORABLE}
    rng = np.random.default_rng(seed)
    examples = sample(
        found,
        windows,
        holds=text.holding(text.lexicon.id(trigger)),
        active=settings.active,
        silent=settings.silent,
        rng=rng,
    )
    marks = judge.mark(text, examples, trigger=trigger, rng=rng)
    for suffix, sentences in (("", [record["explanation"]]), ("_shuffled", others)):
        if sentences:
            rules = [parse(sentence) for sentence in sentences]
            found_by = [judge.detection(text, examples, rule) for rule in rules]
            scored[f"detection{suffix}"] = asdict(sum(found_by, judge.NONE))
            found_by = [judge.fuzzing(text, examples, marks, rule) for rule in rules]
            scored[f"fuzzing{suffix}"] = asdict(sum(found_by, judge.NONE))
    return scored


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
    from clearnets.autointerp.scorers.rules import Counts

    status = [record["status"] for record in records]
    numbers: dict[str, Any] = {name: status.count(name) for name in STATUSES}
    for score in SCORES:
        values = [Counts(**r[score]).balanced_accuracy for r in records if r[score] is not None]
        numbers[f"rule_{score}"] = round(sum(values) / len(values), 6) if values else None
    return numbers
