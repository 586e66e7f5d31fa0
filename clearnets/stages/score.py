"""`clearnets score`: explanations judged on held-out windows, with shuffled ones as a control.

The judge of rules takes about a second for a layer, every latent by every explained latent's rule,
so a run that was killed continues behind the last finished layer. A language model is asked about
all latents of a layer at once; its replies are stored as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from clearnets.autointerp.llm.transcripts import leave_empty
from clearnets.autointerp.records import (
    JUDGED,
    PROBABILITIES,
    SCORED,
    SCORERS,
    SPLITS,
    STATUSES,
    layer_names,
)
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    Work,
    build_all,
    read_jsonl,
    write_json,
    write_jsonl,
)
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import LATENTS, Stage

if TYPE_CHECKING:
    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.autointerp.scored_layer import ScoredLayer
    from clearnets.autointerp.texts import Texts
    from clearnets.config import Config, Family, NonActivating


STAGE = Stage(
    name="score",
    does="Score the explanations of a family's latents on held-out text.",
    example="clearnets score --aux transcoder --layers 0-7",
    over=LATENTS,
    params=("seeds", "score"),
    reads=(
        *("artifacts/data", "artifacts/words", "artifacts/cache/{item}"),
        *("artifacts/explain/{item}", "artifacts/embed", "artifacts/qualify"),
    ),
    writes=("artifacts/transcripts/score/{item}",),
    small=("artifacts/score/{item}",),
    metrics=True,
    by_layer=True,
)


def units(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[Unit]:
    """One unit per seed and hookpoint."""
    from clearnets.autointerp.sampling import needed

    split = SPLITS[config.explain.protocol]
    kinds: list[NonActivating] = [config.score.non_activating]
    if config.explain.protocol == "delphi":  # What the explainer saw is drawn again.
        kinds.append(config.explain.non_activating)
    return [
        Unit(
            stage="score",
            out=paths.score(family, seed, point),
            settings={
                "seed": seed,
                "family": family,
                "hookpoint": point,
                **config.dump(*STAGE.settings),
            },
            inputs={
                "data": paths.data(),
                "words": paths.words(),
                "cache": paths.cache(family, seed, split),
                "explain": paths.explain(family, seed, point),
                **({"qualify": paths.qualify()} if config.score.judge else {}),
                **{
                    name: path
                    for kind in kinds
                    for name, path in needed(
                        kind, family, embed=paths.embed(), coders=paths.coders(family, seed)
                    ).items()
                },
            },
        )
        for seed in config.seeds
        for point in config.hookpoints(family, layers)
    ]


def run(config: Config, *, runtime: Runtime, family: Family, layers: tuple[int, ...]) -> None:
    """Score the explanations of a family's layers, for every seed; metrics over all layers."""
    todo, load = units(config, family=family, layers=layers), _loader(config)
    judge = config.score.judge
    if judge is None:
        leave_empty(paths.transcripts_of("score", family))
        for unit, work in build_all(todo):
            layer, _ = load(unit)
            write_jsonl(work.out / SCORED, layer.scores())
    else:
        from clearnets.autointerp.llm.concurrency import build_units
        from clearnets.autointerp.llm.judged_layer import judge_layer
        from clearnets.autointerp.llm.qualification import is_qualified

        async def build(unit: Unit, work: Work, session: Session) -> None:
            layer, texts = load(unit)
            write_jsonl(work.out / SCORED, layer.scores())
            demonstration = not is_qualified(judge, paths.qualify())
            judged, probabilities = await judge_layer(judge, layer, texts, session)
            write_jsonl(work.out / JUDGED, [{**r, "demonstration": demonstration} for r in judged])
            write_json(work.out / PROBABILITIES, probabilities)

        build_units(judge.client, todo, build)
    write_json(paths.metrics(f"score-{family}"), _metrics(config, family))


def _loader(config: Config) -> Callable[[Unit], tuple[ScoredLayer, Texts]]:
    """Return a function that loads a unit's layer, and the text of the split at its first call."""
    from clearnets.autointerp.scored_layer import ScoredLayer
    from clearnets.autointerp.texts import open_texts

    @cache
    def texts() -> Texts:
        return open_texts(SPLITS[config.explain.protocol])

    def load(unit: Unit) -> tuple[ScoredLayer, Texts]:
        return ScoredLayer.of(config.score, layer_names(unit), unit.inputs, texts()), texts()

    return load


def estimate(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[str]:
    """Return what a language model would be asked, as lines for `--dry-run`; none for rules."""
    judge = config.score.judge
    if judge is None:
        return []
    from clearnets.autointerp.llm.concurrency import estimate_units
    from clearnets.autointerp.llm.judged_layer import judge_layer

    todo = units(config, family=family, layers=layers)
    if not all(unit.inputs["explain"].exists() for unit in todo):
        return ["prompts cannot be counted before `clearnets explain` has run"]
    load = _loader(config)
    return estimate_units(
        judge.client, todo, lambda unit, session: judge_layer(judge, *load(unit), session)
    )


def _metrics(config: Config, family: Family) -> dict[str, Any]:
    """Return latents by status and mean accuracies by seed, over all layers that are up to date."""
    metrics: dict[str, Any] = {}
    for unit in units(config, family=family, layers=config.model.layers):
        if unit.fresh():
            name = f"seed-{unit.settings['seed']}"
            metrics.setdefault(name, []).extend(read_jsonl(unit.out / SCORED))
    return {name: summary(records) for name, records in metrics.items()}


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return latents by status, and each score's mean balanced accuracy over those that have it."""
    from clearnets.analysis.statistics import balanced_accuracy

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
