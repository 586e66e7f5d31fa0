"""Results of the stages before `collate`, loaded from disk as frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clearnets import UserError
from clearnets.analysis import executed, llm_judge_rows, rating_files
from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of
from clearnets.autointerp.records import (
    EFFECTS,
    JUDGED,
    PROBABILITIES,
    ROC,
    ROC_STEPS,
    SCORED,
    SIMILAR,
)
from clearnets.config import Config
from clearnets.latents.store import STATS
from clearnets.pipeline import artifacts, paths

NAMES = ("family", "seed", "layer")
SCORERS = ("rule-detection", "rule-fuzzing")
# What else is counted of a scorer's verdicts on one latent.
MEASURES = ("precision", "recall", "coverage")
# The scorer by embeddings, whose scores have tables of their own.
EMBEDDING = "embedding"
# The scores of shuffled explanations, from both sides.
CONTROLS = ("shuffled", "elsewhere")
CONCEPT_TABLES = ("concepts", "draws", "latents", "rules")
REFERENCES = ("unigram", "bigram", "trigram", "generator_bound")


@dataclass(frozen=True)
class Circuits:
    """What `clearnets circuits` wrote, with family and seed; without rows where it did not run."""

    answers: pd.DataFrame
    circuits: pd.DataFrame
    nodes: pd.DataFrame
    training: pd.DataFrame


@dataclass(frozen=True)
class Sources:
    """Results of all seeds. Frames carry a `seed` column.

    Attributes:
        models: the names of the models: `dense`, and the sparse one's if there is one.
        curves: model, seed, step, tokens, train_loss, valid_loss.
        references: losses in nats per token of n-gram models and, where the corpus has one, the
            generator's bound.
        pairs: by seed, the content of `pair.json`.
        ablation: seed, model, layer, cost.
        depth: seed, model, joint, joint_all: costs of ablating several layers at once.
        coders: seed, family, layer, fvu, l0, dead, baselines, loss recovered.
        native: seed, family, layer, l0, dead of the sparse model's own latents.
        splice_all: seed, family, losses and loss recovered with all layers replaced.
        compute: by seed, the content of evaluate's `summary.json`.
        l0: (family, seed) -> latents active per counted token, the mean over layers.
        latents_per_layer: by family.
        scores: seed, family, layer, latent, status, rate, windows, and per scorer balanced
            accuracies: own, shuffled and elsewhere (see `clearnets.autointerp.records`); precision,
            recall, and coverage: windows it was judged on over those asked for.
        similarity: the same latents, with status, positives, negatives and AUROCs of the scorer by
            embeddings: own, shuffled and elsewhere.
        roc: seed, family, layer, latents, explanation (own, shuffled), fpr, tpr: the mean ROC curve
            of the scorer by embeddings over the latents of a layer that have a score.
        overlap: seed, family, layer, latent, status, rate, windows, protocol, positives, seen, and
            per scorer the balanced accuracy; no protocol where a latent has too few windows.
        executed: what `clearnets execute` wrote, by family and seed.
        sampled: what `clearnets sample` drew, by table.
        effects: seed, family and what `clearnets effects` wrote of each explained latent.
        targets, steered: seed, family and what `clearnets intervene` wrote.
        circuits: what `clearnets circuits` wrote.
        stability: seed, family and what `clearnets stability` wrote of each latent.
        probes: what `clearnets probes` wrote, as `concepts`.
        planted: what `clearnets planted` wrote.
        concepts: by name (concepts, draws, latents, rules) what `clearnets concepts` wrote, with
            seed, family and layer; the native latents' null is a family of its own. Without rows
            where the corpus has no labels.
        llm_scores: seed, family, layer and a language model's scores, in rows of
            `clearnets.analysis.llm_judge_rows`; None where none judges.
        probabilities: seed, family, layer, demonstration, scorer, bin, positives, negatives: how
            often it gave which probability.
        qualification: test, auroc, answered, qualified: how well the language model that judges
            distinguishes known concepts, and how often it answers; None where none judges.
        ratings: human ratings (see `clearnets.analysis.rating_files`); None where there are none.
    """

    models: Sequence[str]
    curves: pd.DataFrame
    references: Mapping[str, float]
    pairs: Mapping[int, Mapping[str, Any]]
    ablation: pd.DataFrame
    depth: pd.DataFrame
    coders: pd.DataFrame
    native: pd.DataFrame
    splice_all: pd.DataFrame
    compute: Mapping[int, Mapping[str, Any]]
    l0: Mapping[tuple[str, int], float]
    latents_per_layer: Mapping[str, int]
    scores: pd.DataFrame
    similarity: pd.DataFrame
    roc: pd.DataFrame
    overlap: pd.DataFrame
    executed: Mapping[executed.Key, executed.Executed]
    effects: pd.DataFrame
    targets: pd.DataFrame
    steered: pd.DataFrame
    sampled: Mapping[str, pd.DataFrame]
    circuits: Circuits
    stability: pd.DataFrame
    probes: pd.DataFrame
    planted: pd.DataFrame
    concepts: Mapping[str, pd.DataFrame]
    llm_scores: pd.DataFrame | None = None
    probabilities: pd.DataFrame | None = None
    qualification: pd.DataFrame | None = None
    ratings: pd.DataFrame | None = None


def _some_families(config: Config) -> dict[str, tuple[Callable[[str, int], Path], Sequence[str]]]:
    """Return by stage, of those that may be left out, where the results of a family lie, and of
    which families there are any."""
    return {
        "overlap": (paths.overlap, config.families),
        "concepts": (paths.concepts, config.families),
        "probes": (paths.probes, config.families),
        "execute": (paths.execute, config.executed_families),
        "effects": (paths.effects, config.executed_families),
        "intervene": (paths.intervene, config.executed_families),
        "circuits": (paths.circuits, config.circuit_families),
        "stability": (paths.stability, config.stability_families),
    }


def inputs(config: Config) -> dict[str, Path]:
    """Return the units that the tables of a comparison are made from, by name."""
    if not config.compares:
        return {}
    named = {"data": paths.data()}
    named |= {} if "sample" in config.skip else {"sampled": paths.sampled()}
    named |= {} if "planted" in config.skip else {"planted": paths.planted()}
    for seed in config.seeds:
        for mlp in config.models:
            named[f"train/{mlp}/seed-{seed}"] = paths.train(mlp, seed)
        named[f"match/seed-{seed}"] = paths.match(seed)
        named[f"evaluate/seed-{seed}"] = paths.evaluate(seed)
        for family in config.families:
            named[f"cache/{family}/seed-{seed}"] = paths.cache(family, seed, "explain")
            for stage, (place, families) in _some_families(config).items():
                if stage not in config.skip and family in families:
                    named[f"{stage}/{family}/seed-{seed}"] = place(family, seed)
            for point in config.hookpoints_by_layer(family).values():
                place = f"{family}/seed-{seed}/{point}"
                named[f"score/{place}"] = paths.score(family, seed, point)
                if "similarity" not in config.skip:
                    named[f"similarity/{place}"] = paths.similarity(family, seed, point)
                if rating_files.files(config):
                    named[f"explain/{place}"] = paths.explain(family, seed, point)
    return named


def read(config: Config) -> Sources:
    """Load everything that the tables need.

    Raises:
        UserError: a file is missing or broken; it names the stage to run.
    """
    seeds = config.seeds
    numbers = artifacts.read_json(paths.data() / "stats.json")
    curves = [
        _read_csv(paths.train(mlp, seed) / "curve.csv").assign(model=mlp, seed=seed)
        for mlp, seed in product(config.models, seeds)
    ]
    scored = [
        (family, seed, layer, point)
        for family, seed in product(config.families, seeds)
        for layer, point in config.hookpoints_by_layer(family).items()
    ]
    activity = {
        (family, seed): artifacts.read_json(paths.cache(family, seed, "explain") / STATS)
        for family, seed in product(config.families, seeds)
    }
    similar = () if "similarity" in config.skip else scored
    recovered = () if "concepts" in config.skip else CONCEPT_TABLES
    wanted = config.score.n_examples_test + config.score.n_non_activating
    llm_scores, probabilities = _llm_scores(config) if config.score.judge else (None, None)
    return Sources(
        models=config.models,
        curves=pd.concat(curves, ignore_index=True),
        references={name: float(numbers[name]) for name in REFERENCES if name in numbers},
        pairs={s: artifacts.read_json(paths.match(s) / "pair.json") for s in seeds},
        ablation=_per_seed(seeds, "ablation.csv"),
        depth=_per_seed(seeds, "depth.csv"),
        coders=_per_seed(seeds, "coders.csv"),
        native=_per_seed(seeds, "native.csv"),
        splice_all=_per_seed(seeds, "splice_all.csv"),
        compute={s: artifacts.read_json(paths.evaluate(s) / "summary.json") for s in seeds},
        l0={key: _realised_l0(totals) for key, totals in activity.items()},
        latents_per_layer={
            family: _points(totals)[0]["num_latents"] for (family, _), totals in activity.items()
        },
        scores=pd.concat([_scores(*place, wanted) for place in scored], ignore_index=True),
        similarity=_joined(_similarity(*place) for place in similar),
        roc=_joined(_roc(*place) for place in similar),
        overlap=pd.DataFrame() if "overlap" in config.skip else _overlap(config),
        executed=executed.read(config),
        effects=_of_families(config, "effects", EFFECTS),
        targets=_of_families(config, "intervene", "targets.csv"),
        steered=_of_families(config, "intervene", "steered.jsonl"),
        sampled={} if "sample" in config.skip else _sampled(),
        circuits=_circuits(config),
        stability=_of_families(config, "stability", "latents.csv"),
        probes=_probes(config),
        planted=_planted(config),
        concepts={name: _concepts(config, name) for name in recovered},
        llm_scores=llm_scores,
        probabilities=probabilities,
        qualification=_qualification() if config.score.judge else None,
        ratings=rating_files.read(config, {at[:3]: paths.explain(*at[:2], at[3]) for at in scored}),
    )


def _circuits(config: Config) -> Circuits:
    names = (field.name for field in fields(Circuits))
    return Circuits(*(_of_families(config, "circuits", f"{name}.jsonl") for name in names))


def _joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return all rows; no column where there is no frame, because the stage was left out."""
    return pd.concat([pd.DataFrame(), *frames], ignore_index=True)


def _sampled() -> dict[str, pd.DataFrame]:
    """Read the tables of `clearnets sample`, in which no text stands for a missing value."""
    files = {name: paths.sampled() / f"{name}.csv" for name in ("sampled", "sampled_tokens")}
    return {name: pd.read_csv(file, keep_default_na=False) for name, file in files.items()}


def _of_families(config: Config, stage: str, file: str) -> pd.DataFrame:
    """Read one file of what a stage wrote of its families, with family and seed; nothing where the
    stage is left out."""
    place, families = _some_families(config)[stage]
    return _joined(
        _read(place(family, seed) / file).assign(family=family, seed=seed)
        for family, seed in product(families, config.seeds)
        if stage not in config.skip
    )


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return _read_csv(path)
    return pd.DataFrame(artifacts.read_jsonl(path))


def _probes(config: Config) -> pd.DataFrame:
    """Read the rows of `clearnets probes`."""
    return pd.DataFrame() if "probes" in config.skip else _concepts(config, "probes", paths.probes)


def _planted(config: Config) -> pd.DataFrame:
    """Read the rows of `clearnets planted`."""
    skipped = "planted" in config.skip
    return pd.DataFrame() if skipped else _read_csv(paths.planted() / "measures.csv")


def _overlap(config: Config) -> pd.DataFrame:
    """Read the results of `clearnets overlap`, with accuracies in place of counts."""
    frames = []
    for family, seed in product(config.families, config.seeds):
        frame = _read_csv(paths.overlap(family, seed) / "overlap.csv")
        layers = {point: n for n, point in config.hookpoints_by_layer(family).items()}
        frame["layer"] = frame.pop("hookpoint").map(layers)
        for scorer in SCORERS:
            name = scorer.removeprefix("rule-")
            cells = {cell: frame.pop(f"{name}_{cell}") for cell in ("tp", "fp", "tn", "fn")}
            frame[scorer] = stats.balanced_accuracy(**cells)
        frames.append(frame.assign(family=family, seed=seed))
    return pd.concat(frames, ignore_index=True)


def _concepts(
    config: Config, name: str, folder: Callable[[str, int], Path] = paths.concepts
) -> pd.DataFrame:
    """Read one of the tables of concepts, over all families and seeds."""
    frames = []
    for family in config.families:
        for seed in config.seeds:
            frame = _read_csv(folder(family, seed) / f"{name}.csv")
            source = frame.pop("source") if "source" in frame else pd.Series("own", frame.index)
            frame["family"] = source.where(source != "own", family)
            if "hookpoint" in frame:
                layers = {point: n for n, point in config.hookpoints_by_layer(family).items()}
                frame["layer"] = frame.pop("hookpoint").map(layers)
            frames.append(frame.assign(seed=seed))
    return pd.concat(frames, ignore_index=True)


def _llm_scores(config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read rows of `llm_judge_rows`, and how often each probability was given."""
    assert config.score.judge is not None
    scores, probabilities = [], []
    for family, seed in product(config.families, config.seeds):
        for layer, point in config.hookpoints_by_layer(family).items():
            folder = paths.score(family, seed, point)
            names = {"family": family, "seed": seed, "layer": layer}
            records = artifacts.read_jsonl(folder / JUDGED)
            rows = llm_judge_rows.rows(records, config.score.judge.scorers)
            scores += [names | row for row in rows]
            names["demonstration"] = any(record["demonstration"] for record in records)
            given = artifacts.read_json(folder / PROBABILITIES)
            probabilities += [
                {**names, "scorer": scorer, "bin": place, "positives": yes, "negatives": no}
                for scorer, counts in given.items()
                for place, (yes, no) in enumerate(zip(counts["positives"], counts["negatives"]))
            ]
    columns = ("scorer", "bin", "positives", "negatives", "demonstration")
    return (
        columns_of(pd.DataFrame(scores), [*NAMES, *llm_judge_rows.ROW]),
        columns_of(pd.DataFrame(probabilities), [*NAMES, *columns]),
    )


def _points(totals: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(totals["hookpoints"].values())


def _realised_l0(totals: Mapping[str, Any]) -> float:
    """Return active latents per counted token of `explain`, the mean over layers."""
    return float(np.mean([point["entries"] / totals["tokens"] for point in _points(totals)]))


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(artifacts.missing(path)) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable CSV ({error}); {artifacts.remake(path)}") from None


def _per_seed(seeds: Iterable[int], name: str) -> pd.DataFrame:
    frames = [_read_csv(paths.evaluate(seed) / name).assign(seed=seed) for seed in seeds]
    return pd.concat(frames, ignore_index=True)


def _identity(records: list[Any], family: str, seed: int, layer: int) -> dict[str, Any]:
    """Return the columns that say which latents these are, how active, and with what status."""
    keys = ("latent", "status", "rate", "windows")
    names = {"family": family, "seed": seed, "layer": layer}
    return names | {key: [record[key] for record in records] for key in keys}


def _scores(family: str, seed: int, layer: int, point: str, wanted: int) -> pd.DataFrame:
    """Read scores by rules of one hookpoint; `wanted`: windows that each latent is judged on."""
    records = artifacts.read_jsonl(paths.score(family, seed, point) / SCORED)
    columns = _identity(records, family, seed, layer)
    for scorer in SCORERS:
        name = scorer.removeprefix("rule-")
        cells = {
            cell: np.array([record[name][cell] if record[name] else 0 for record in records])
            for cell in ("tp", "fp", "tn", "fn")
        }
        columns[scorer] = stats.balanced_accuracy(**cells)
        for measure, values in stats.rates(**cells).items():
            columns[f"{scorer}-{measure}"] = values
        judged = sum(cells.values())
        columns[f"{scorer}-coverage"] = np.where(judged > 0, judged / wanted, np.nan)
        for control in CONTROLS:
            found = [record[f"{name}_{control}"] for record in records]
            columns[f"{scorer}-{control}"] = np.array(found, dtype=np.float64)
    return pd.DataFrame(columns)


def _similarity(family: str, seed: int, layer: int, point: str) -> pd.DataFrame:
    records = artifacts.read_jsonl(paths.similarity(family, seed, point) / SIMILAR)
    columns = _identity(records, family, seed, layer)
    names = {"auroc": EMBEDDING, **{name: f"{EMBEDDING}-{name}" for name in CONTROLS}}
    for key, name in {"positives": "positives", "negatives": "negatives", **names}.items():
        columns[name] = np.array([record[key] for record in records], dtype=np.float64)
    return pd.DataFrame(columns)


def _roc(family: str, seed: int, layer: int, point: str) -> pd.DataFrame:
    found = artifacts.read_json(paths.similarity(family, seed, point) / ROC)
    curves = {kind: found[kind] for kind in ("own", "shuffled") if found[kind] is not None}
    columns: dict[str, Any] = {
        "explanation": np.repeat(list(curves), ROC_STEPS + 1),
        "fpr": np.tile(np.linspace(0, 1, ROC_STEPS + 1), len(curves)),
        "tpr": np.array(list(curves.values()), dtype=np.float64).reshape(-1),
    }
    names = {"family": family, "seed": seed, "layer": layer, "latents": found["latents"]}
    return pd.DataFrame(columns).assign(**names)


def _qualification() -> pd.DataFrame:
    from clearnets.autointerp.llm.qualification import JUDGES

    tests = [
        {"test": name, **{key: test[key] for key in ("auroc", "answered", "qualified")}}
        for judge in artifacts.read_json(paths.qualify() / JUDGES).values()
        for name, test in judge["tests"].items()
    ]
    return pd.DataFrame(tests, columns=["test", "auroc", "answered", "qualified"])
