"""`clearnets intervene`: ablate the latents that know a concept, and steer with explained ones.

targets.csv     a concept and the single latent that knows it best (of `clearnets probes`): how far
                predictions move at the concept's tokens when the latent is ablated everywhere
                (`inside`) and at all others (`outside`), in nats per token of Kullback-Leibler
                divergence; the share of all that moves that lies at the concept's tokens (`share`),
                and the mean share there of the latents of all other concepts (`share_others`);
                whether no other concept's tokens are moved as much (`own`). Without rows where the
                corpus has no concepts
steered.jsonl   a record per drawn latent: layer, latent; strength, in mean activations, at which
                adding its direction moves predictions by `divergence`; how well the sentence on
                what it does (`clearnets effects`) names what moves then (`steer_auroc`), the
                sentences of other latents (`steer_auroc_shuffled`), and its own where a random
                direction moves as much (`random_auroc`); all null where the divergence that was
                asked for cannot be reached
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clearnets.autointerp.records import EFFECTS
from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_jsonl, write_jsonl, write_table
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import EXECUTED, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from clearnets.coders.interventions import Steered
    from clearnets.coders.written import Written
    from clearnets.config import Config
    from clearnets.data.tokens import TokenStore

TARGETS, STEERED = "targets.csv", "steered.jsonl"
TARGET_COLUMNS = (
    *("concept", "kind", "layer", "latent", "tokens", "inside", "outside"),
    *("share", "share_others", "share_tokens", "own"),
)
NOTHING = dict.fromkeys(
    ("strength", "divergence", "steer_auroc", "steer_auroc_shuffled", "random_auroc")
)
REACHED = 0.25
"""Share by which the divergence may miss what was asked for."""
BATCH = 16
TEST, CHECKED = "concept_test", "score"

STAGE = Stage(
    name="intervene",
    does="Ablate the latents that know a concept, and steer with explained latents.",
    example="clearnets intervene --aux transcoder",
    over=EXECUTED,
    params=("seeds", "threads", "model.k", "data.corpus", "intervene"),
    reads=(
        *("artifacts/data", "artifacts/match", "artifacts/cache/{item}"),
        *("artifacts/effects/{item}", "artifacts/probes/{item}", "{source}"),
    ),
    writes=("artifacts/intervene/{item}",),
    on_device=True,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed."""
    return [
        Unit(
            stage="intervene",
            out=paths.intervene(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs={
                **paths.read_by(FAMILIES[family], seed),
                CHECKED: paths.cache(family, seed, CHECKED),
                "effects": paths.effects(family, seed),
                "probes": paths.probes(family, seed),
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, family: str) -> None:
    """Write both tables of a family for every seed."""
    from clearnets.coders.written import open_written
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.readers import open_model

    for unit, work in build_all(units(config, family=family)):
        store = open_tokens(paths.data())
        model = open_model(family, unit.settings["seed"], runtime.torch_device()).model
        coders = unit.inputs.get("coders")
        written = open_written(model, FAMILIES[family], coders, k=config.model.k)
        rows = _targets(config, unit, model, written, store) if config.concept_splits else []
        write_table(work.out / TARGETS, TARGET_COLUMNS, rows)
        write_jsonl(work.out / STEERED, _steered(config, unit, model, written, store))


def _targets(
    config: Config, unit: Unit, model: Any, written: Sequence[Written], store: TokenStore
) -> list[dict[str, Any]]:
    """Return the rows of concepts."""
    import numpy as np
    import torch

    from clearnets.coders.batches import evenly_spaced
    from clearnets.coders.interventions import ablate
    from clearnets.latents.probed_corpus import concept_names, open_split

    split = open_split(store, TEST, seed=config.data.corpus.seed)
    rows = evenly_spaced(len(split.tokens_RS), config.intervene.rows)
    some = split.of_rows(rows)
    truth_CT = dict(zip(concept_names(store), some.truth_CT.astype(bool)))
    layers = {point: at for at, point in enumerate(config.hookpoints(unit.settings["family"]))}
    known = [row for row in _best_latents(unit, layers) if truth_CT[row["concept"]].any()]
    latents = [(row["layer"], row["latent"]) for row in known]
    parts: list[list[np.ndarray]] = [[] for _ in known]
    label = f"intervene {unit.settings['family']} seed {unit.settings['seed']}, concepts"
    with progress(label, len(rows), "rows") as bar:
        for start in range(0, len(rows), BATCH):
            tokens_BS = some.tokens_RS[start : start + BATCH].astype(np.int64)
            counted_BS = some.counted_RS[start : start + BATCH]
            batch = (torch.from_numpy(part).to(model.device) for part in (tokens_BS, counted_BS))
            for found, moved_BS in zip(parts, ablate(model, written, latents, *batch)):
                found.append(moved_BS[counted_BS])
            bar.advance(len(tokens_BS))
    if not known:
        return []
    moved_CT = np.stack([np.concatenate(found) for found in parts])
    aimed = _on_target(known, moved_CT, np.stack([truth_CT[row["concept"]] for row in known]))
    return [row | {"layer": config.model.layers[row["layer"]]} for row in aimed]


def _best_latents(unit: Unit, layers: dict[str, int]) -> list[dict[str, Any]]:
    """Return each concept with the latent that knows it best."""
    import csv

    from clearnets.latents.probed_corpus import OWN, TABLE

    with (unit.inputs["probes"] / TABLE).open(newline="", encoding="utf-8") as file:
        return [
            {
                "concept": row["concept"],
                "kind": row["kind"],
                "layer": layers[row["hookpoint"]],
                "latent": int(row["latents"]),
            }
            for row in csv.DictReader(file)
            if row["source"] == OWN and row["probe"] == "1"
        ]


def _on_target(
    known: list[dict[str, Any]], moved_CT: np.ndarray, truth_CT: np.ndarray
) -> list[dict[str, Any]]:
    """Return the rows, given what ablating each concept's latent moves at each token."""
    from clearnets.latents.targets import aims

    latents = [(row["layer"], row["latent"]) for row in known]
    return [{**row, **aim.columns()} for row, aim in zip(known, aims(latents, moved_CT, truth_CT))]


def _steered(
    config: Config, unit: Unit, model: Any, written: Sequence[Written], store: TokenStore
) -> list[dict[str, Any]]:
    """Return the records of steering."""
    import numpy as np

    from clearnets.autointerp.effects import Effect, agreement, predicted
    from clearnets.coders.interventions import Steered

    family, seed = unit.settings["family"], unit.settings["seed"]
    records = read_jsonl(unit.inputs["effects"] / EFFECTS)
    lexicon, made = predicted(model, store.strings()), []
    label = f"intervene {family} seed {seed}, steering"
    points = config.hookpoints_by_layer(family)
    with progress(label, len(points), "layers") as bar:
        for place, (layer, point) in enumerate(points.items()):
            told = [r for r in records if r["layer"] == layer and r["effect"] is not None]
            rng = np.random.default_rng(seed_for(config.intervene.seed, "steer", family, point))
            chosen = sorted(rng.permutation(len(told))[: config.intervene.latents])
            told = [told[at] for at in chosen]
            if told:
                found = _steer(config, unit, model, written, store, (place, point), told)
                own, random = (Steered(*half) for half in zip(*(np.split(x, 2) for x in found)))
                said = [Effect.parse(record["effect"]) for record in told]
                score_I, others_I = agreement(said, own.moved_IV, lexicon)
                random_I, _ = agreement(said, random.moved_IV, lexicon)
                for at, record in enumerate(told):
                    values = own.strength_I[at], own.divergence_I[at], score_I[at], others_I[at]
                    made.append({"layer": layer, "latent": record["latent"], **NOTHING})
                    if _reached(own, at, config) and _reached(random, at, config):
                        rounded = [_rounded(value) for value in (*values, random_I[at])]
                        made[-1] |= dict(zip(NOTHING, rounded, strict=True))
            bar.advance()
    return made


def _reached(steered: Steered, at: int, config: Config) -> bool:
    wanted = config.intervene.divergence
    return bool(abs(steered.divergence_I[at] - wanted) <= REACHED * wanted)


def _rounded(value: float) -> float | None:
    return None if value != value else round(float(value), 6)


def _steer(
    config: Config,
    unit: Unit,
    model: Any,
    written: Sequence[Written],
    store: TokenStore,
    where: tuple[int, str],
    told: list[dict[str, Any]],
) -> Steered:
    """Return what latents of a layer do when they are added, and behind them random directions."""
    import numpy as np

    from clearnets.autointerp.ablated_layer import random_like
    from clearnets.coders.batches import evenly_spaced
    from clearnets.coders.interventions import steer
    from clearnets.latents.store import load_layer

    settings, (layer, point) = config.intervene, where
    tokens_RS = np.asarray(store.split(CHECKED))
    text_RS = tokens_RS[evenly_spaced(len(tokens_RS), settings.steered_rows)]
    rng = np.random.default_rng(seed_for(settings.seed, "steered", unit.settings["family"], point))
    counted_P2 = np.argwhere(store.counted(text_RS))
    drawn_IP = rng.integers(len(counted_P2), size=(len(told), settings.tokens))
    row_IP, position_IP = (np.tile(counted_P2[drawn_IP, side], (2, 1)) for side in (0, 1))
    cache = load_layer(unit.inputs[CHECKED], point)
    latents = [record["latent"] for record in told]
    mean_I = np.array([cache.act[cache.entries(latent)].mean() for latent in latents])
    own_ID = mean_I[:, None] * written[layer].weight_LD[latents].numpy(force=True)
    return steer(
        model,
        layer,
        np.concatenate([own_ID, random_like(own_ID, rng)]),
        text_RS,
        (row_IP, position_IP),
        divergence=settings.divergence,
        trials=settings.trials,
    )
