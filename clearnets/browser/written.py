"""Explanations that people wrote in the page, scored by the judges of stage `score` on the same
held-out windows, beside those of the explainer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from clearnets import UserError
from clearnets.analysis.llm_judge_rows import MAIN_MEASURE, measured
from clearnets.analysis.statistics import balanced_accuracy
from clearnets.autointerp import records
from clearnets.autointerp.rules.language import Clause, Rule, parse, render
from clearnets.autointerp.rules.matcher import NOTHING
from clearnets.autointerp.scored_layer import ScoredLayer, rule_scores
from clearnets.autointerp.texts import Texts, open_texts
from clearnets.browser.findings import EMBEDDING, REASONS, scorers
from clearnets.browser.terminal import printable
from clearnets.config import Config, Family, layers_in_words, parse_family, parse_seed
from clearnets.families import NO_LAYER, TOKENS
from clearnets.pipeline.artifacts import Unit, check, read_jsonl, write_table
from clearnets.pipeline.console import first_of, print_table
from clearnets.pipeline.runtime import progress
from clearnets.pipeline.stage import rerun

if TYPE_CHECKING:
    from clearnets.autointerp.llm.transcripts import Connect

PERSON, EXPLAINER = "person", "explainer"
COLUMNS = ("family", "seed", "layer", "latent", "by", "status", "explanation")
SAVE = "save one from the page of `clearnets browse`"
RULES = (
    "not in the language of rules, which has sentences such as: "
    'The word "the" right after "in" or "on". (docs/rules.md lists all its phrases)'
)
UNKNOWN = (
    "a word is one token, and a class has the two names that artifacts/words/classes.jsonl gives it"
)
# Keyboards of phones turn quotes.
_STRAIGHT = str.maketrans("“”‘’", "\"\"''")
# What the judges say, by latent.
Found = Mapping[int, Mapping[str, Any]]


class Line(BaseModel):
    """One line of a file: a latent, and what a person says of it; no layer where a family has
    none."""

    model_config = ConfigDict(strict=True, frozen=True)

    experiment: str
    family: str
    seed: int
    layer: int | None
    latent: int
    explanation: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

    @property
    def place(self) -> tuple[str, int, int]:
        """Return family, seed and layer, which is NO_LAYER where there is none."""
        return self.family, self.seed, NO_LAYER if self.layer is None else self.layer


@dataclass(frozen=True)
class Scored:
    """Explanations with their scores.

    Attributes:
        scorers: the names of the scores.
        rows: values of COLUMNS and scores, where there are any; of each latent the person's first.
        unknown: words and classes that a person named and the text does not have.
        demonstration: a language model judged that has not qualified.
    """

    scorers: list[str]
    rows: list[dict[str, Any]]
    unknown: list[str]
    demonstration: bool


def read(path: Path, config: Config) -> list[Line]:
    """Read a file of the page. Where a latent occurs twice, the last line counts.

    Raises:
        UserError: a line is none of this experiment; it says which, and what to do.
    """
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {SAVE}") from None
    found: dict[tuple[Any, ...], Line] = {}
    for number, text in enumerate(texts, 1):
        try:
            line = Line.model_validate_json(text)
            _check_line(line, config)
        except ValidationError:
            raise UserError(f"{path}, line {number}: no explanation; {SAVE}") from None
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        found[*line.place, line.latent] = line
    if not found:
        raise UserError(f"{path} holds no explanation; {SAVE}")
    return list(found.values())


def _check_line(line: Line, config: Config) -> None:
    if line.experiment != config.experiment:
        raise UserError(
            f"of experiment {line.experiment!r:.60}, and this is {config.experiment!r}; "
            "choose another with --experiment"
        )
    parse_seed(line.seed, config)
    layers = config.hookpoints_by_layer(parse_family(line.family, config))
    if line.place[2] not in layers:
        raise UserError(f"no layer {line.layer}; {layers_in_words(list(layers))}")


def judge(
    config: Config, lines: Sequence[Line], units_of: Callable[[Family], Sequence[Unit]]
) -> Scored:
    """Score what people wrote.

    Args:
        units_of: gives the units of stage `score` of a family, of all layers and seeds.

    Raises:
        UserError: a latent was not drawn, or results are missing or stale; it names the cure.
    """
    groups: dict[tuple[str, int, int], list[Line]] = {}
    for line in lines:
        groups.setdefault(line.place, []).append(line)
    found = []
    for (family, seed, layer), own in groups.items():
        wanted = (family, config.hookpoints_by_layer(family)[layer], seed)
        unit = next(unit for unit in units_of(family) if records.layer_names(unit) == wanted)
        _check_unit(unit, own)
        found.append((unit, own))
    return asyncio.run(_judge(config, found))


def _check_unit(unit: Unit, lines: Sequence[Line]) -> None:
    for path in (*unit.inputs.values(), unit.out):
        check(path)
    if not unit.fresh():
        raise UserError(f"{unit.out} is of other parameters or inputs; run `{rerun(unit.out)}`")
    drawn = _by_latent(unit.inputs["explain"] / records.EXPLANATIONS)
    for line in lines:
        if line.latent not in drawn:
            name = f"latent {line.latent} of {unit.inputs['explain']}"
            raise UserError(f"{name} was not drawn; take one that is in `clearnets browse`")


def _by_latent(path: Path) -> Found:
    return {record["latent"]: record for record in read_jsonl(path)}


async def _judge(config: Config, groups: Sequence[tuple[Unit, list[Line]]]) -> Scored:
    texts = open_texts(records.SPLITS[config.explain.protocol])
    model, rows, unknown, demonstration = config.score.judge, [], [], False
    if model is not None:
        from clearnets.autointerp.llm.concurrency import connection
    async with connection(model.client) if model else nullcontext() as connect:
        for unit, lines in groups:
            names = records.layer_names(unit)
            layer = ScoredLayer.of(config.score, names, unit.inputs, texts)
            own = {line.latent: line.explanation for line in lines}
            rules = _by_rules(layer, own) if config.score.rules else {}
            said = await _by_model(unit, layer, texts, own, connect) if connect else {}
            scored = _by_latent(unit.out / records.SCORED)
            judged = _by_latent(unit.out / records.JUDGED) if model else {}
            demonstration |= any(record["demonstration"] for record in judged.values())
            for line in lines:
                unknown += _unknown(layer, line.explanation) if rules else ()
                status = scored[line.latent]["status"]
                for by, text, found in (
                    (PERSON, line.explanation, (rules, said)),
                    (EXPLAINER, layer.sentences[line.latent], (scored, judged)),
                ):
                    row = line.model_dump(exclude={"experiment"})
                    row |= {"by": by, "status": status, "explanation": text}
                    rows.append(row | dict(_numbers(line.latent, *found, config)))
    return Scored(_scorers(config), rows, list(dict.fromkeys(unknown)), demonstration)


def _scorers(config: Config) -> list[str]:
    """Return the names of the scores of `score` that depend on an explanation."""
    return [name for name in scorers(config) if name not in (EMBEDDING, "judge-intruder")]


def _numbers(
    latent: int, rules: Found, judged: Found, config: Config
) -> Iterator[tuple[str, float]]:
    """Yield each score with its name: balanced accuracy, or what else a scorer measures."""
    for name in records.SCORERS:
        counts = rules.get(latent, {}).get(name)
        if counts:
            yield f"rule-{name}", float(balanced_accuracy(**counts))
    for name in config.score.judge.scorers if config.score.judge else ():
        value = measured(name, judged.get(latent, {}).get(name))[MAIN_MEASURE.get(name, "accuracy")]
        if value is not None and name != "intruder":
            yield f"judge-{name}", value


def as_rule(sentence: str) -> str | None:
    """Return a sentence as the judge of rules reads it, or None; a full stop may be missing."""
    straight = sentence.translate(_STRAIGHT)
    for text in (sentence, f"{sentence}.", straight, f"{straight}."):
        try:
            parse(text)
        except UserError:
            continue
        return text
    return None


def _unknown(layer: ScoredLayer, sentence: str) -> Iterator[str]:
    """Yield the words and classes of a rule that are none of this text, in words."""
    rule = as_rule(sentence)
    for clause in parse(rule).clauses if rule else ():
        for item in (*clause.words, *(clause.context.words if clause.context else ())):
            if layer.text.lexicon.id(item) < NOTHING:
                yield render(Rule((Clause((item,)),))).rstrip(".")


def _by_rules(layer: ScoredLayer, own: Mapping[int, str]) -> Found:
    """Return, by latent, the record of scores that stage `score` would write for a sentence."""
    rules = {latent: rule for latent, text in own.items() if (rule := as_rule(text))}
    explained = [
        record | {"explanation": rules[record["latent"]]}
        for record in layer.records
        if record["latent"] in rules
    ]
    trials = {latent: trial for latent, trial in layer.trials.items() if latent in rules}
    return {record["latent"]: record for record in rule_scores(explained, trials)}


async def _by_model(
    unit: Unit, layer: ScoredLayer, texts: Texts, own: Mapping[int, str], connect: Connect
) -> Found:
    """Ask the language model. Its replies are kept beside those of `score`: none is asked for
    twice."""
    from clearnets.autointerp.llm import controls
    from clearnets.autointerp.llm.completions import identity
    from clearnets.autointerp.llm.concurrency import together
    from clearnets.autointerp.llm.judged_layer import Panel
    from clearnets.autointerp.llm.scorers import count
    from clearnets.autointerp.llm.transcripts import Session, folder_of

    assert layer.settings.judge is not None
    reader = controls.controlled(layer.settings.judge, "shuffled")  # Without `intruder`.
    latents = [latent for latent in own if latent in layer.trials]
    with (
        Session(identity(reader.client), folder_of(unit), connect) as session,
        progress(f"judge {layer.label}", len(latents), "latents") as bar,
    ):
        panel = Panel(reader, layer, texts, session)
        asked = [panel.ask(latent, own[latent]) for latent in latents]
        answers = await together(asked, bar.advance)
    return {
        latent: {name: count(name, given) for name, given in found.items()}
        for latent, found in zip(latents, answers)
    }


def show(found: Scored, config: Config) -> bool:
    """Print a table, and below it why scores are missing; return whether a person has any."""
    cells, missing = [], {}
    for row in found.rows:
        layer = TOKENS if row["layer"] is None else row["layer"]
        name = f"{row['family']}/{layer}/{row['latent']}"
        if row["seed"] != config.seeds[0]:
            name += f"/seed-{row['seed']}"
        numbers = [f"{row[key]:.3f}" if key in row else "–" for key in found.scorers]
        cells.append([name, row["by"], *numbers, printable(row["explanation"] or "–")])
        if row["by"] == PERSON and not set(found.scorers) & set(row):
            unread = row["status"] == records.EXPLAINED and config.score.judge is None
            why = RULES if unread else REASONS.get(row["status"], "the model gave no answer")
            missing.setdefault(why, []).append(name)
    print_table(["latent", "by", *found.scorers, "explanation"], cells)
    for why, names in missing.items():
        print(f"no score for {first_of(names)}: {why}")
    if found.unknown:
        print(f"not in this text: {first_of(found.unknown)}; {UNKNOWN}")
    if found.demonstration:
        print("this language model has not qualified as a judge: its scores are a demonstration")
    return sum(map(len, missing.values())) * 2 < len(cells)


def write(found: Scored, out: Path) -> None:
    """Write the scores as a CSV.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_table(out, [*COLUMNS, *found.scorers], found.rows)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another") from None
