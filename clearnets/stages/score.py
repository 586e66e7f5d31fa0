"""`clearnets score`: the judge of rules on held-out windows, with shuffled explanations beside.

A layer is judged as a whole, in about a second: every latent by every explained latent's rule. So
a run that was killed goes on from the last finished layer. A language model that judges beside it,
or in its place, is asked about all latents of a layer at once; what it said is kept as it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.autointerp.llm.transcripts import leave_empty
from clearnets.autointerp.records import (
    EXPLAINED,
    EXPLANATIONS,
    JUDGED,
    PROBABILITIES,
    SCORED,
    SCORERS,
    STATUSES,
    UNSCORABLE,
)
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    Work,
    build_all,
    read_jsonl,
    remake,
    settings_of,
    to_line,
    write_json,
    write_text,
)
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import LATENTS, Stage, rerun

if TYPE_CHECKING:
    from pathlib import Path

    from clearnets.autointerp.llm.scorers import Answers, Shown
    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.autointerp.rules.judge import Trial
    from clearnets.autointerp.rules.matcher import Text
    from clearnets.autointerp.sampling import Negatives
    from clearnets.config import Config, DelphiScorer, Explain, Family, NonActivating, Score
    from clearnets.latents.examples import Grid
    from clearnets.latents.store import LayerCache

# Where explanations are scored: on text that the explainer never saw, or on what it saw.
SPLITS = {"held-out": "score", "delphi": "explain"}


STAGE = Stage(
    name="score",
    does="Score the explanations of a family's latents on held-out text.",
    example="clearnets score --aux transcoder --layers 0-7",
    over=LATENTS,
    params=("seeds", "score"),
    reads=(
        *("artifacts/data", "artifacts/cache/{item}", "artifacts/explain/{item}"),
        *("artifacts/embed", "artifacts/qualify"),
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
    todo = units(config, family=family, layers=layers)
    if config.score.judge:
        asyncio.run(_judge_all(config.score, config.score.judge, todo, runtime.num_threads))
    else:
        leave_empty(paths.transcripts_of("score", family))
        texts = Texts(SPLITS[config.explain.protocol])
        for unit, work in build_all(todo):
            layer = Layer.of(config.score, unit, texts)
            _write_scores(config.score, layer, work)
    write_json(paths.metrics(f"score-{family}"), _metrics(config, family))


class Texts:
    """A split, cut into windows of each size that is asked for."""

    def __init__(self, split: str) -> None:
        from clearnets.data.tokens import open_tokens

        self.split = split
        self._store = open_tokens(paths.data())
        self._read: dict[int, Text[Grid]] = {}
        self.tokens_RS = self._store.split(split)

    def of(self, size: int) -> Text[Grid]:
        """The split in windows of `size` tokens."""
        from clearnets.autointerp.rules.matcher import read

        if size not in self._read:
            self._read[size] = read(self._store, self.split, size=size)
        return self._read[size]

    def strings(self) -> list[str]:
        """The texts of all tokens."""
        return self._store.strings()


@dataclass(frozen=True)
class Draws:
    """How the windows of a layer's latents are drawn, for explaining and for scoring."""

    names: tuple[str, str, int]
    explained: Explain
    to_explain: Negatives | None
    to_score: Negatives

    @classmethod
    def of(cls, settings: Score, unit: Unit, split: str) -> Draws:
        from clearnets.autointerp.sampling import Negatives

        explained = _explained_with(unit.inputs["explain"])
        if SPLITS[explained.protocol] != split:
            path = unit.inputs["explain"]
            raise UserError(
                f"{path} was made under protocol {explained.protocol}; run `{rerun(path)}` first"
            )
        point = unit.settings["hookpoint"]
        again = None
        if explained.protocol == "delphi":
            again = Negatives.load(explained.non_activating, unit.inputs, point, split)
        return cls(
            (unit.settings["family"], point, unit.settings["seed"]),
            explained,
            again,
            Negatives.load(settings.non_activating, unit.inputs, point, split),
        )


def _explained_with(folder: Path) -> Explain:
    from pydantic import ValidationError

    from clearnets.config import Explain

    try:
        return Explain.model_validate(settings_of(folder)["explain"], strict=False)
    except ValidationError:
        raise UserError(f"{folder} is of another version; {remake(folder)}") from None


@dataclass(frozen=True)
class Layer:
    """What a layer is judged on.

    Attributes:
        records: of `explain`, in order.
        trials: by latent; those that can be scored.
    """

    draws: Draws
    text: Text[Grid]
    cache: LayerCache
    records: list[dict[str, Any]]
    trials: dict[int, Trial]

    @classmethod
    def of(cls, settings: Score, unit: Unit, texts: Texts) -> Layer:
        from clearnets.latents.store import load_layer

        # The windows of an explanation are those that it was made with.
        draws = Draws.of(settings, unit, texts.split)
        text = texts.of(draws.explained.window)
        cache = load_layer(unit.inputs["cache"], unit.settings["hookpoint"])
        records = read_jsonl(unit.inputs["explain"] / EXPLANATIONS)
        trials: dict[int, Trial] = {}
        with progress(f"score {_label(draws.names)}", len(records), "latents") as bar:
            for record in records:
                latent = record["latent"]
                seed = seed_for(settings.seed, "score", *draws.names, latent)
                trial = prepare(text, cache, record, settings, draws, seed)
                if trial is not None:
                    trials[latent] = trial
                bar.advance()
        return cls(draws, text, cache, records, trials)

    @property
    def names(self) -> tuple[str, str, int]:
        """Family, hookpoint and seed."""
        return self.draws.names


def _label(names: tuple[str, str, int]) -> str:
    return f"{names[0]} seed {names[2]} {names[1]}"


def _write_scores(settings: Score, layer: Layer, work: Work) -> None:
    scored = score_latents(layer.records, layer.trials, rules=settings.rules)
    write_text(work.out / SCORED, "".join(f"{to_line(record)}\n" for record in scored))


async def _judge_all(settings: Score, judge: DelphiScorer, todo: list[Unit], threads: int) -> None:
    from clearnets.autointerp.llm.clients import identity
    from clearnets.autointerp.llm.concurrency import connection
    from clearnets.autointerp.llm.qualification import is_qualified
    from clearnets.autointerp.llm.transcripts import Session, put_in_place

    texts: Texts | None = None
    async with connection(judge.client, threads=threads) as connect:
        for unit, work in build_all(todo):
            texts = texts or Texts(unit.inputs["cache"].name)
            layer = Layer.of(settings, unit, texts)
            _write_scores(settings, layer, work)
            demonstration = not is_qualified(judge, paths.qualify())
            with Session(identity(judge.client), transcript(unit), connect) as session:
                judged, probabilities = await _judge(settings, judge, layer, texts, session)
                lines = [to_line({**r, "demonstration": demonstration}) for r in judged]
                write_text(work.out / JUDGED, "".join(f"{line}\n" for line in lines))
                write_json(work.out / PROBABILITIES, probabilities)
                session.seal(work.out)
    for unit in todo:
        put_in_place(unit.out, transcript(unit))


async def _judge(
    settings: Score, judge: DelphiScorer, layer: Layer, texts: Texts, session: Session
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A language model's scores of a layer, and how often it gave which probability."""
    from clearnets.autointerp.llm import controls
    from clearnets.autointerp.llm.concurrency import together

    panel = Panel(settings, judge, layer, texts, session)
    plan = controls.plan(layer.trials, judge, seed_for(settings.seed, "controls", *layer.names))
    sentences = {record["latent"]: record["explanation"] for record in layer.records}
    probabilities = controls.Histogram()

    async def one(record: Mapping[str, Any]) -> dict[str, Any]:
        line, latent = _line(record, layer.trials), record["latent"]
        if latent not in layer.trials:
            return {**line, **controls.nothing(judge)}
        own = await panel.ask(latent, sentences[latent])
        probabilities.add(own)
        shuffled = {
            giver: await panel.ask(latent, sentences[giver], control="shuffled")
            for giver in plan.givers[latent]
        }
        reordered, redrawn = None, None
        if latent in plan.reasked:
            reordered = await panel.ask(latent, sentences[latent], control="reordered")
            redrawn = await panel.ask(latent, sentences[latent], control="redrawn")
        return {**line, **controls.scores(judge, own, shuffled, reordered, redrawn)}

    with progress(f"judge {_label(layer.names)}", len(layer.records), "latents") as bar:
        judged = await together(map(one, layer.records), bar.advance)
    return judged, probabilities.counts()


class Reader:
    """The windows of a layer's trials as a reader sees them."""

    def __init__(self, layer: Layer, texts: Texts) -> None:
        self._layer, self._strings = layer, texts.strings()
        self._tokens_RS = texts.tokens_RS

    def shown(self, latent: int, trial: Trial) -> Shown:
        """The windows of a trial, to be read."""
        from clearnets.autointerp.llm.scorers import Shown
        from clearnets.latents.examples import activations

        windows, window_W = trial.text.windows, trial.examples.window_W
        token_WL = windows.these(window_W).cut(self._tokens_RS)
        return Shown(
            trial=trial,
            strings_W=[[self._strings[token] for token in token_L] for token_L in token_WL],
            act_WL=activations(self._layer.cache, latent, windows, window_W),
        )


class Panel:
    """A language model that is asked about the latents of a layer."""

    def __init__(
        self, settings: Score, judge: DelphiScorer, layer: Layer, texts: Texts, session: Session
    ) -> None:
        self._settings, self._judge, self._layer, self._session = settings, judge, layer, session
        self._reader = Reader(layer, texts)

    async def ask(self, latent: int, explanation: str, *, control: str = "") -> dict[str, Answers]:
        """What each scorer says of a latent, given an explanation; or those for which there is such
        a control (see `clearnets.autointerp.llm.controls`)."""
        from clearnets.autointerp.llm import controls, scorers

        names = (*self._layer.names, latent)
        trial: Trial | None = self._layer.trials[latent]
        if control == "redrawn":
            record = next(one for one in self._layer.records if one["latent"] == latent)
            trial = prepare(
                self._layer.text,
                self._layer.cache,
                record,
                self._settings,
                self._layer.draws,
                seed_for(self._settings.seed, "score", *names, control),
            )
            assert trial is not None, "a latent can be scored with any draw or with none"
        again = [control] if control in ("reordered", "redrawn") else []
        seed = seed_for(self._settings.seed, "judge", *names, *again)
        judge = controls.controlled(self._judge, control) if control else self._judge
        return await scorers.answers(
            judge, self._session, self._reader.shown(latent, trial), explanation, seed=seed
        )


def transcript(unit: Unit) -> Path:
    """Where DVC keeps what a language model was asked for a unit."""
    names = (unit.settings["family"], unit.settings["seed"], unit.settings["hookpoint"])
    return paths.transcripts("score", *names)


def estimate(config: Config, *, family: Family, layers: tuple[int, ...]) -> list[str]:
    """What a language model would be asked, as lines for `--dry-run`; nothing for rules."""
    judge = config.score.judge
    if judge is None:
        return []
    from clearnets.autointerp.llm.clients import identity
    from clearnets.autointerp.llm.transcripts import Count, report

    todo = units(config, family=family, layers=layers)
    if not all(unit.inputs["explain"].exists() for unit in todo):
        return ["prompts cannot be counted before `clearnets explain` has run"]
    texts, counts = Texts(SPLITS[config.explain.protocol]), []
    for unit in todo:
        if not unit.inputs["qualify"].exists() or not unit.fresh():
            layer = Layer.of(config.score, unit, texts)
            with Count(identity(judge.client), transcript(unit)) as count:
                asyncio.run(_judge(config.score, judge, layer, texts, count))
            counts.append(count)
    return report(counts)


def prepare(
    text: Text[Grid],
    cache: LayerCache,
    record: Mapping[str, Any],
    settings: Score,
    draws: Draws,
    seed: int,
) -> Trial | None:
    """What a latent is judged on; None where it is not explained, is active or silent in fewer
    than `explain.min_windows` windows, or has none left that the protocol draws."""
    import numpy as np

    from clearnets.autointerp.rules.judge import Trial, mark
    from clearnets.autointerp.sampling import centred, status, to_explain, to_score
    from clearnets.latents.examples import activity

    if record["status"] != EXPLAINED:
        return None
    latent, trigger, explained = record["latent"], record["trigger"], draws.explained
    found = activity(cache, latent, text.windows)
    if status(found, text.windows, explained.min_windows) != EXPLAINED:
        return None
    here = (text, cache, latent, found)
    seen = None
    if draws.to_explain is not None:
        again = np.random.default_rng(seed_for(explained.seed, "explain", *draws.names, latent))
        seen = to_explain(*here, explained, trigger=trigger, negatives=draws.to_explain, rng=again)
    rng = np.random.default_rng(seed)
    examples = to_score(
        *here, settings, trigger=trigger, negatives=draws.to_score, seen=seen, rng=rng
    )
    # delphi draws none of fewer windows than quantiles; what the explainer saw is left out.
    if examples.num_active in (0, len(examples.window_W)):
        return None
    shown: Text = text
    if explained.center_examples:
        shown, examples = centred(text, cache, latent, examples)
    return Trial(shown, examples, mark(shown, examples, trigger=trigger, rng=rng))


def score_latents(
    records: Sequence[Mapping[str, Any]],
    trials: Mapping[int, Trial],
    *,
    rules: bool = True,
) -> list[dict[str, Any]]:
    """A record of scores for each record of explanations; the judge reads the sentences alone.

    Without the judge of rules all scores are null.
    """
    from clearnets.autointerp.rules.judge import judge_all
    from clearnets.autointerp.rules.language import parse

    sentences = {record["latent"]: record["explanation"] for record in records}
    judged = trials if rules else {}
    parsed = [parse(sentences[latent]) for latent in judged]
    verdicts = dict(zip(judged, judge_all(list(judged.values()), parsed)))
    scored = []
    for record in records:
        line = _line(record, trials)
        verdict = verdicts.get(record["latent"])
        for scorer in SCORERS:
            line[scorer] = verdict[scorer].own if verdict else None
        for scorer in SCORERS:
            line[f"{scorer}_shuffled"] = _rounded(verdict[scorer].shuffled if verdict else None)
            line[f"{scorer}_elsewhere"] = _rounded(verdict[scorer].elsewhere if verdict else None)
        scored.append(line)
    return scored


def _line(record: Mapping[str, Any], trials: Mapping[int, Trial]) -> dict[str, Any]:
    """The part of a record of scores that does not depend on the judge."""
    line = {key: record[key] for key in ("latent", "status", "rate", "windows")}
    if record["status"] == EXPLAINED and record["latent"] not in trials:
        line["status"] = UNSCORABLE
    return line


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
