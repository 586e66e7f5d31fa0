"""Results of the stages by latent: explanations, scores, concepts, exchanges."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

from clearnets import UserError
from clearnets.analysis import statistics as stats
from clearnets.analysis.llm_judge_rows import MAIN_MEASURE, measured
from clearnets.autointerp.llm.transcripts import TRANSCRIPT, read_transcript
from clearnets.autointerp.records import EFFECTS, EXPLANATIONS, JUDGED, SCORED, SCORERS, SIMILAR
from clearnets.config import Config, Family, Split
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import missing, read_jsonl

EMBEDDING = "embedding"
# By hookpoint and latent: name, F1 and MCC of a concept.
Recovered = Mapping[tuple[str, int], tuple[str, float, float]]

# Why a latent has no explanation, or no score.
REASONS = {
    "dead": "never active on this text",
    "too_rare": "active in too few windows to explain",
    "too_frequent": "active in nearly all windows",
    "unscorable": "active, or silent, in too few windows of the held-out text to score",
    "unparsable": "the language model gave no explanation that could be read",
    "not_drawn": "not among the latents that were drawn to be explained",
}


@dataclass(frozen=True)
class Exchange:
    """One request to a language model and its reply.

    Attributes:
        task: `explain` or `score`.
        model: its name.
        messages: (role, text) of the request.
        reply: None where none came.
    """

    task: str
    model: str
    messages: list[tuple[str, str]]
    reply: str | None


class Simulated(NamedTuple):
    """A latent as its explanation simulates it.

    Attributes:
        on, off: its activation where the explanation fires, and elsewhere.
        r2: on held-out text; None where the latent is constant there.
    """

    on: float
    off: float
    r2: float | None


class Effect(NamedTuple):
    """What a latent does to the next token.

    Attributes:
        sentence: names the words that ablating it moves most.
        auroc: how well they tell what it moves on held-out text; 0.5 is chance.
        divergence: of the prediction without the latent from that with it, nats per token.
    """

    sentence: str
    auroc: float
    divergence: float


@dataclass(frozen=True)
class Known:
    """Results about a latent that was drawn.

    Attributes:
        status: `explained`, or why there is no explanation or no score.
        trigger: the word at which it is active most often.
        explanation: a sentence.
        scores: by scorer, where there is one; of most scorers 0.5 is chance.
        concept: (name, F1, MCC) of the corpus's concept that the latent recovers best.
        effect, simulated: of families whose explanations are executed.
    """

    status: str
    trigger: str | None = None
    explanation: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    concept: tuple[str, float, float] | None = None
    effect: Effect | None = None
    simulated: Simulated | None = None

    def rule(self, config: Config) -> str | None:
        """Return the explanation where it is of the language of rules."""
        return self.explanation if config.explain.explainer.kind == "tokens" else None


def scorers(config: Config) -> list[str]:
    """Return the names of all scorers of an experiment."""
    rules = [f"rule-{name}" for name in SCORERS] if config.score.rules else []
    judges = config.score.judge.scorers if config.score.judge else ()
    return [*rules, *(f"judge-{name}" for name in judges), EMBEDDING]


@dataclass(frozen=True)
class Beside:
    """Results that are in one file for all layers of a family and seed, by hookpoint and latent."""

    concepts: Recovered
    effects: Mapping[tuple[str, int], Effect]

    @classmethod
    def read(cls, config: Config, family: Family, seed: int) -> Beside:
        """Read them.

        Raises:
            UserError: a result is missing; it names the stage to run.
        """
        return cls(recovered(config, family, seed), _effects(config, family, seed))


def inputs(config: Config, *splits: Split) -> dict[str, Path]:
    """Return the units with results about latents, by name, and their activity on some splits."""
    named = {"data": paths.data(), "words": paths.words()}
    for seed, family in product(config.seeds, config.families):
        for split in splits:
            named[f"cache/{family}/seed-{seed}/{split}"] = paths.cache(family, seed, split)
        named[f"concepts/{family}/seed-{seed}"] = paths.concepts(family, seed)
        for stage, of in (("execute", paths.execute), ("effects", paths.effects)):
            if config.runs(stage, family):
                named[f"{stage}/{family}/seed-{seed}"] = of(family, seed)
        for point in config.hookpoints(family):
            unit = f"{family}/seed-{seed}/{point}"
            named[f"explain/{unit}"] = paths.explain(family, seed, point)
            named[f"score/{unit}"] = paths.score(family, seed, point)
            named[f"similarity/{unit}"] = paths.similarity(family, seed, point)
    return named


def of_layer(
    config: Config, family: Family, seed: int, hookpoint: str, beside: Beside
) -> dict[int, Known]:
    """Read the results about each drawn latent of one hookpoint, by its number.

    Raises:
        UserError: a result is missing or broken; it names the stage to run.
    """
    explained = read_jsonl(paths.explain(family, seed, hookpoint) / EXPLANATIONS)
    folder = paths.score(family, seed, hookpoint)
    scored = {record["latent"]: record for record in read_jsonl(folder / SCORED)}
    similar = read_jsonl(paths.similarity(family, seed, hookpoint) / SIMILAR)
    judges = config.score.judge.scorers if config.score.judge else ()
    judged = read_jsonl(folder / JUDGED) if judges else []
    scores: dict[int, dict[str, float]] = {record["latent"]: {} for record in explained}
    for latent, record in scored.items():
        for name in SCORERS:
            if record.get(name):
                cells = {cell: record[name][cell] for cell in ("tp", "fp", "tn", "fn")}
                scores[latent][f"rule-{name}"] = float(stats.balanced_accuracy(**cells))
    for record in judged:
        for name in judges:
            measure = MAIN_MEASURE.get(name, "accuracy")
            value = measured(name, record[name])[measure] if record[name] else None
            if value is not None:
                scores[record["latent"]][f"judge-{name}"] = value
    for record in similar:
        if record["auroc"] is not None:
            scores[record["latent"]][EMBEDDING] = record["auroc"]
    simulated = simulations(config, family, seed, hookpoint)
    return {
        record["latent"]: Known(
            status=scored.get(record["latent"], record)["status"],
            trigger=record["trigger"],
            explanation=record["explanation"],
            scores=scores[record["latent"]],
            concept=beside.concepts.get((hookpoint, record["latent"])),
            effect=beside.effects.get((hookpoint, record["latent"])),
            simulated=simulated.get(record["latent"]),
        )
        for record in explained
    }


def simulations(config: Config, family: Family, seed: int, hookpoint: str) -> dict[int, Simulated]:
    """Read how the explanations of one hookpoint simulate its latents, where they are executed.

    Raises:
        UserError: a result is missing; it names the stage to run.
    """
    if not config.runs("execute", family):
        return {}
    records = read_jsonl(paths.execute(family, seed) / "latents" / f"{hookpoint}.jsonl")
    return {
        record["latent"]: Simulated(
            record["on"],
            record["off"],
            1 - record["error"] / record["variance"] if record["variance"] else None,
        )
        for record in records
        if record["explanation"]
    }


def _effects(config: Config, family: Family, seed: int) -> dict[tuple[str, int], Effect]:
    if not config.runs("effects", family):
        return {}
    points = config.hookpoints_by_layer(family)
    return {
        (points[record["layer"]], record["latent"]): Effect(
            record["effect"], record["effect_auroc"], record["divergence"]
        )
        for record in read_jsonl(paths.effects(family, seed) / EFFECTS)
        if record["effect"]
    }


def recovered(config: Config, family: Family, seed: int) -> Recovered:
    """Read the concept that each latent of a family recovers best, on `concept_test`; none where
    the corpus has no labels.

    Raises:
        UserError: the table is missing.
    """
    if not config.concept_splits:
        return {}
    path = paths.concepts(family, seed) / "latents.csv"
    if not path.exists():
        raise UserError(missing(path))
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["hookpoint"], int(row["latent"])): (
                row["concept"],
                float(row["f1"]),
                float(row["mcc"]),
            )
            for row in csv.DictReader(file)
            if row["source"] == "own" and row["concept"]
        }


class Transcripts:
    """Exchanges with a language model about the latents of one hookpoint."""

    def __init__(self, family: Family, seed: int, hookpoint: str) -> None:
        self._entries = {
            task: list(_entries(paths.transcripts(task, family, seed, hookpoint)))
            for task in ("explain", "score")
        }

    def of(self, explanation: str | None, most: int) -> tuple[list[Exchange], int]:
        """Return exchanges that gave an explanation or were about it, at most so many of each task,
        and how many there are. They are found by the explanation's text."""
        if not explanation:
            return [], 0
        asked = [e for e in self._entries["explain"] if explanation in _reply(e, "")]
        judged = [
            entry
            for entry in self._entries["score"]
            if any(explanation in message["content"] for message in entry["messages"])
        ]
        shown = [
            Exchange(
                task,
                str(entry["model"].get("model", "")),
                [(message["role"], message["content"]) for message in entry["messages"]],
                _reply(entry, None),
            )
            for task, entries in (("explain", asked), ("score", judged))
            for entry in islice(entries, most)
        ]
        return shown, len(asked) + len(judged)


def _entries(folder: Path) -> list[dict[str, Any]]:
    return list(read_transcript(folder / TRANSCRIPT).values())


def _reply(entry: Mapping[str, Any], otherwise: Any) -> Any:
    return entry["reply"]["text"] if "reply" in entry else otherwise
