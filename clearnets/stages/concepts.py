"""`clearnets concepts`: how well single latents of one family recover the corpus's known concepts.

Writes four tables per seed, all without rows where the corpus has no labels. Their column `source`
is `own` for the family's latents and, with the native latents, also `random-directions` for their
null.

concepts.csv    a concept: its kind, the best set of token ids, the latent that recovers it best
draws.csv       a draw of equally many candidates: concepts recovered, mean F1
latents.csv     a latent, every one: the concept that it recovers best
rules.csv       a latent explained by a rule: what its explanation says of that concept
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline import stage as pipeline
from clearnets.pipeline.artifacts import Unit, Work, build_all, read_jsonl, write_json, write_table
from clearnets.pipeline.runtime import Runtime, progress

if TYPE_CHECKING:
    from pathlib import Path

    from clearnets.autointerp.rules.concept_naming import Truth
    from clearnets.config import Concepts, Config, Family
    from clearnets.data.tokens import TokenStore
    from clearnets.latents.concept_tables import Corpus
    from clearnets.latents.concepts import Labels, Ranked

FIT, TEST = "concept_fit", "concept_test"
OWN = "own"

CONCEPTS, DRAWS, LATENTS, RULES = "concepts.csv", "draws.csv", "latents.csv", "rules.csv"


STAGE = pipeline.Stage(
    name="concepts",
    does="Measure how well single latents recover the corpus's known concepts.",
    example="clearnets concepts --aux native",
    over=pipeline.LATENTS,
    params=("seeds", "concepts"),
    reads=(
        *("artifacts/data", "artifacts/words"),
        *("artifacts/cache/{item}", "artifacts/explain/{item}"),
    ),
    writes=("artifacts/concepts/{item}",),
    metrics=True,
)


def units(config: Config, *, family: Family) -> list[Unit]:
    """One unit per seed."""
    return [
        Unit(
            stage="concepts",
            out=paths.concepts(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs=_inputs(config, family, seed),
        )
        for seed in config.seeds
    ]


def _inputs(config: Config, family: Family, seed: int) -> dict[str, Path]:
    inputs = {"data": paths.data()}
    for split in config.concept_splits:
        inputs[split] = paths.cache(family, seed, split)
        if (null := FAMILIES[family].null) in DIRECTIONS:
            inputs[f"{split} {null}"] = paths.directions(family, seed, split)
    # What a sentence says of a concept is known of rules alone, which can be executed.
    if config.concept_splits and config.explain.explainer.kind != "delphi":
        inputs["words"] = paths.words()
        for point in config.hookpoints(family):
            inputs[f"explain {point}"] = paths.explain(family, seed, point)
    return inputs


def run(config: Config, *, runtime: Runtime, family: Family) -> None:
    """Write the tables of a family for every seed, and how many concepts it recovers."""
    wanted = units(config, family=family)
    for unit, work in build_all(wanted):
        _build(config, unit, work)
    metrics = {f"seed-{unit.settings['seed']}": _metrics(unit.out) for unit in wanted}
    write_json(paths.metrics(f"concepts-{family}"), metrics)


@dataclass(frozen=True)
class _Tables:
    """The rows of one unit."""

    concepts: list[dict[str, Any]] = field(default_factory=list)
    draws: list[dict[str, Any]] = field(default_factory=list)
    latents: list[dict[str, Any]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        from clearnets.autointerp.rules.concept_naming import RULE_COLUMNS
        from clearnets.latents.concept_tables import CONCEPT_COLUMNS, DRAW_COLUMNS, LATENT_COLUMNS

        write_table(folder / CONCEPTS, CONCEPT_COLUMNS, self.concepts)
        write_table(folder / DRAWS, DRAW_COLUMNS, self.draws)
        write_table(folder / LATENTS, LATENT_COLUMNS, self.latents)
        write_table(folder / RULES, RULE_COLUMNS, self.rules)


def _build(config: Config, unit: Unit, work: Work) -> None:
    tables = _Tables()
    if config.concept_splits:
        from clearnets.data.tokens import open_tokens

        store = open_tokens(paths.data())
        corpus = _corpus(store, config.concepts)
        points = config.hookpoints(unit.settings["family"])
        label = f"concepts {unit.settings['family']} seed {unit.settings['seed']}"
        sources = {OWN: (unit.inputs[FIT], unit.inputs[TEST])}
        if (null := FAMILIES[unit.settings["family"]].null) in DIRECTIONS:
            sources[null] = unit.inputs[f"{FIT} {null}"], unit.inputs[f"{TEST} {null}"]
        explained = {p: unit.inputs[n] for p in points if (n := f"explain {p}") in unit.inputs}
        with progress(label, 2 * len(points) * len(sources), "layers") as bar:
            for name, caches in sources.items():
                truths = _truths(store, corpus) if name == OWN and explained else None
                source = _Source(corpus, config.concepts, name, caches, points, bar.advance)
                source.fill(unit, tables, explained, truths)
    tables.write(work.out)


def _corpus(store: TokenStore, settings: Concepts) -> Corpus:
    import numpy as np

    from clearnets.latents.concept_tables import Corpus
    from clearnets.latents.concepts import Labels

    read = []
    for split in (FIT, TEST):
        found = store.labels(split)
        if found is None:
            path = store.root / "labels" / f"{split}.npy"
            raise UserError(f"{path} is missing; run `dvc repro data` first")
        tokens_RS = np.asarray(store.split(split))
        counted_RS = store.counted(tokens_RS)
        read += [Labels.of(np.asarray(found), counted_RS, len(store.concepts)), tokens_RS]
    return Corpus.of(store.concepts, *read, lexical=settings.lexical)


def _truths(store: TokenStore, corpus: Corpus) -> tuple[Truth, Truth]:
    """Return both splits as rules read them, whole rows at a time."""
    from clearnets.autointerp.rules.concept_naming import Truth
    from clearnets.autointerp.texts import open_texts

    def read(split: str, labels: Labels) -> Truth:
        return Truth.load(open_texts(split).of(store.ctx_len), labels)

    return read(FIT, corpus.on_fit), read(TEST, corpus.on_test)


@dataclass(frozen=True)
class _Source:
    """One set of latents: a family's, or the native latents' null.

    The layers are read twice, one at a time: first every pair of a latent and a concept is
    measured, then what concerns the chosen ones.
    """

    corpus: Corpus
    settings: Concepts
    name: str
    caches: tuple[Path, Path]
    points: list[str]
    done: Callable[[], None]

    def layers(self) -> Iterator[tuple[Ranked, Ranked]]:
        """Yield the entries of each layer on both splits."""
        from clearnets.latents.concepts import rank
        from clearnets.latents.store import load_layer

        fit, test = self.caches
        for point in self.points:
            yield (
                rank(load_layer(fit, point), self.corpus.on_fit),
                rank(load_layer(test, point), self.corpus.on_test),
            )
            self.done()

    def fill(
        self,
        unit: Unit,
        tables: _Tables,
        explained: Mapping[str, Path],
        truths: tuple[Truth, Truth] | None,
    ) -> None:
        """Append this source's rows to the tables; rules' rows where there are `truths`."""
        from clearnets.autointerp.rules.concept_naming import Layer, rule_rows
        from clearnets.latents.concept_tables import Recovery
        from clearnets.latents.concepts import pairs

        family, seed = unit.settings["family"], unit.settings["seed"]
        found = Recovery.of(
            self.corpus,
            self.settings,
            self.name,
            self.points,
            pairs(self.layers(), self.corpus.on_fit, self.corpus.on_test),
            family=family,
            seed=seed,
        )
        rows, latents = found.concept_rows(), found.latent_rows()
        tables.concepts.extend(rows)
        tables.draws.extend(found.draw_rows())
        tables.latents.extend(latents)
        for number, (point, (fitted, tested)) in enumerate(zip(self.points, self.layers())):
            for concept, row in enumerate(rows):
                if row["hookpoint"] == point:
                    row |= found.split_values(number, fitted, tested, concept)
            if truths is not None:
                own = latents[number * found.size : (number + 1) * found.size]
                tables.rules.extend(
                    rule_rows(
                        read_jsonl(explained[point] / EXPLANATIONS),
                        Layer(own, found.codes(number), tested),
                        self.corpus.names,
                        *truths,
                        tolerance=self.settings.tolerance,
                    )
                )


def _metrics(folder: Path) -> dict[str, Any]:
    """Return by kind how many concepts there are, and how many equally many latents recover."""
    from clearnets.latents.concept_tables import CONTEXTUAL, LEXICAL

    metrics: dict[str, Any] = {}
    with (folder / DRAWS).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == OWN]
    for kind in (LEXICAL, CONTEXTUAL):
        own = [row for row in rows if row["kind"] == kind]
        if own:
            metrics[f"{kind}_concepts"] = int(own[0]["concepts"])
            metrics[f"{kind}_recovered"] = sum(int(row["recovered"]) for row in own) / len(own)
    return metrics
