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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.autointerp.records import EXPLAINED, EXPLANATIONS
from clearnets.families import DIRECTIONS, FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline import stage as pipeline
from clearnets.pipeline.artifacts import Unit, Work, build_all, read_jsonl, write_json, write_table
from clearnets.pipeline.runtime import Runtime, progress, seed_for

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from clearnets.autointerp.rules.concept_naming import Truth
    from clearnets.config import Concepts, Config, Family
    from clearnets.data.tokens import TokenStore
    from clearnets.latents import concepts as recovery

FIT, TEST = "concept_fit", "concept_test"
OWN = "own"

CONCEPTS, DRAWS, LATENTS, RULES = "concepts.csv", "draws.csv", "latents.csv", "rules.csv"
LEXICAL, CONTEXTUAL, ABSENT = "lexical", "contextual", "absent"
CONCEPT_COLUMNS = (
    *("source", "concept", "kind", "positives_fit", "positives_test"),
    *("token_set", "token_set_f1_fit", "token_set_f1"),
    *("hookpoint", "latent", "threshold", "f1_fit", "f1"),
    *("mcc_hookpoint", "mcc_latent", "mcc_threshold", "mcc_fit", "mcc"),
    *("drawn_f1", "drawn_recovered"),
    *("latents_recovering", "layers_recovering", "latents_recovering_in_layer"),
    *("main_latents", "main_f1", "absorbed"),
)
DRAW_COLUMNS = ("source", "draw", "kind", "concepts", "recovered", "mean_f1")
LATENT_COLUMNS = (
    *("source", "hookpoint", "latent", "concept", "kind", "threshold", "f1_fit", "f1"),
    *("mcc_concept", "mcc_threshold", "mcc_fit", "mcc"),
)
RULE_COLUMNS = (
    *("hookpoint", "latent", "concept", "kind", "f1", "rule_f1", "rule_concept"),
    *("named", "as_well", "named_by_others"),
)


STAGE = pipeline.Stage(
    name="concepts",
    does="Measure how well single latents recover the corpus's known concepts.",
    example="clearnets concepts --aux native",
    over=pipeline.LATENTS,
    params=("seeds", "concepts"),
    reads=("artifacts/data", "artifacts/cache/{item}", "artifacts/explain/{item}"),
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
        if FAMILIES[family].null == DIRECTIONS:
            inputs[f"{split} {DIRECTIONS}"] = paths.directions(seed, split)
    # What a sentence says of a concept is known of rules alone, which can be executed.
    if config.concept_splits and config.explain.explainer.kind != "delphi":
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


@dataclass
class _Tables:
    """The rows of one unit."""

    concepts: list[dict[str, Any]]
    draws: list[dict[str, Any]]
    latents: list[dict[str, Any]]
    rules: list[dict[str, Any]]

    def write(self, folder: Path) -> None:
        write_table(folder / CONCEPTS, CONCEPT_COLUMNS, self.concepts)
        write_table(folder / DRAWS, DRAW_COLUMNS, self.draws)
        write_table(folder / LATENTS, LATENT_COLUMNS, self.latents)
        write_table(folder / RULES, RULE_COLUMNS, self.rules)


def _build(config: Config, unit: Unit, work: Work) -> None:
    tables = _Tables([], [], [], [])
    if config.concept_splits:
        from clearnets.data.tokens import open_tokens

        corpus = _Corpus.of(open_tokens(paths.data()), config.concepts)
        points = config.hookpoints(unit.settings["family"])
        label = f"concepts {unit.settings['family']} seed {unit.settings['seed']}"
        sources = {OWN: (unit.inputs[FIT], unit.inputs[TEST])}
        if f"{FIT} {DIRECTIONS}" in unit.inputs:
            sources[DIRECTIONS] = (
                unit.inputs[f"{FIT} {DIRECTIONS}"],
                unit.inputs[f"{TEST} {DIRECTIONS}"],
            )
        with progress(label, 2 * len(points) * len(sources), "layers") as bar:
            for name, caches in sources.items():
                source = _Source(corpus, config.concepts, name, caches, points, bar.advance)
                source.fill(unit, tables)
    tables.write(work.out)


@dataclass(frozen=True)
class _Corpus:
    """What is known of the concepts without any latent."""

    store: TokenStore
    names: tuple[str, ...]
    on_fit: recovery.Labels
    on_test: recovery.Labels
    token_sets: list[recovery.TokenSet]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, store: TokenStore, settings: Concepts) -> _Corpus:
        import numpy as np

        from clearnets.latents import concepts as recovery

        tokens, labels = {}, {}
        for split in (FIT, TEST):
            found = store.labels(split)
            if found is None:
                path = store.root / "labels" / f"{split}.npy"
                raise UserError(f"{path} is missing; run `dvc repro data` first")
            tokens[split] = np.asarray(store.split(split))
            counted = store.counted(tokens[split])
            labels[split] = recovery.Labels.of(np.asarray(found), counted, len(store.concepts))
        on_fit, on_test = labels[FIT], labels[TEST]
        sets = recovery.token_sets(on_fit, tokens[FIT], on_test, tokens[TEST])
        kinds = [
            ABSENT if not p or not q else LEXICAL if one.test >= settings.lexical else CONTEXTUAL
            for one, p, q in zip(sets, on_fit.positives, on_test.positives)
        ]
        return cls(store, store.concepts, on_fit, on_test, sets, tuple(kinds))


@dataclass
class _Source:
    """One set of latents: a family's, or the native latents' null.

    The layers are read twice, one at a time: first every pair of a latent and a concept is
    measured, then what concerns the chosen ones.
    """

    corpus: _Corpus
    settings: Concepts
    name: str
    caches: tuple[Path, Path]
    points: list[str]
    done: Any

    def layers(self) -> Iterator[tuple[recovery.Ranked, recovery.Ranked]]:
        for point in self.points:
            yield self.layer(point)
            self.done()

    def layer(self, point: str) -> tuple[recovery.Ranked, recovery.Ranked]:
        from clearnets.latents.concepts import rank
        from clearnets.latents.store import load_layer

        fit, test = self.caches
        corpus = self.corpus
        return (
            rank(load_layer(fit, point), corpus.on_fit),
            rank(load_layer(test, point), corpus.on_test),
        )

    def fill(self, unit: Unit, tables: _Tables) -> None:
        """Append this source's rows to the tables."""
        from clearnets.latents import concepts as recovery

        pairs = recovery.pairs(self.layers(), self.corpus.on_fit, self.corpus.on_test)
        draws_RC = self._draws(unit, pairs["f1"])
        rows = self._concepts(pairs, draws_RC)
        tables.draws += self._draw_rows(pairs["f1"], draws_RC)
        latents = self._latents(pairs)
        tables.latents += latents
        explained = {
            p: unit.inputs[name] for p in self.points if (name := f"explain {p}") in unit.inputs
        }
        truths = self._truths() if self.name == OWN and explained else None
        size = pairs["f1"].fit_CN.shape[1] // len(self.points)
        for number, (point, (fitted, tested)) in enumerate(zip(self.points, self.layers())):
            for concept, row in enumerate(rows):
                if row["hookpoint"] == point:
                    best = pairs["f1"].thresholds(concept, number, size)
                    row |= self._split(fitted, tested, best, concept)
            if truths is not None:
                own = latents[number * size : (number + 1) * size]
                records = read_jsonl(explained[point] / EXPLANATIONS)
                codes = pairs["f1"].code_CN[:, number * size : (number + 1) * size]
                tables.rules += self._rules(records, own, codes, tested, truths)
        tables.concepts += rows

    def _draws(self, unit: Unit, pairs: recovery.Pairs) -> np.ndarray:
        import numpy as np

        from clearnets.latents.concepts import draws

        count, there = self.settings.candidates, pairs.fit_CN.shape[1]
        family, seed = unit.settings["family"], unit.settings["seed"]
        if count > there:
            raise UserError(
                f"{family} has only {there} latents; set concepts.candidates to at most {there}"
            )
        rng = np.random.default_rng(seed_for(self.settings.seed, "draws", family, self.name, seed))
        resamples = self.settings.resamples
        return draws(pairs.fit_CN, candidates=count, resamples=resamples, rng=rng)

    def _concepts(
        self, pairs: dict[str, recovery.Pairs], draws_RC: np.ndarray
    ) -> list[dict[str, Any]]:
        """A row for each concept, without what needs the entries of its layer."""
        import numpy as np

        corpus = self.corpus
        size = pairs["f1"].fit_CN.shape[1] // len(self.points)
        found_CN = pairs["f1"].test_CN >= self.settings.recovered
        fit_positives, test_positives = corpus.on_fit.positives, corpus.on_test.positives
        rows = []
        for concept, (name, kind) in enumerate(zip(corpus.names, corpus.kinds)):
            tokens = corpus.token_sets[concept]
            row: dict[str, Any] = dict.fromkeys(CONCEPT_COLUMNS) | {
                "source": self.name,
                "concept": name,
                "kind": kind,
                "positives_fit": int(fit_positives[concept]),
                "positives_test": int(test_positives[concept]),
            }
            rows.append(row)
            if kind == ABSENT:
                continue
            row |= {
                "token_set": len(tokens.ids),
                "token_set_f1_fit": tokens.fit,
                "token_set_f1": tokens.test,
            }
            for prefix, pair in (("", pairs["f1"]), ("mcc_", pairs["mcc"])):
                best = int(pair.fit_CN[concept].argmax())
                row |= {
                    f"{prefix}hookpoint": self.points[best // size],
                    f"{prefix}latent": best % size,
                    f"{prefix}threshold": _threshold(pair.code_CN[concept, best]),
                    **_scores("f1" if prefix == "" else "mcc", pair, concept, best),
                }
            drawn_R = pairs["f1"].test_CN[concept, draws_RC[:, concept]]
            by_layer = found_CN[concept].reshape(len(self.points), size).sum(axis=1)
            row |= {
                "drawn_f1": float(drawn_R.mean()),
                "drawn_recovered": float((drawn_R >= self.settings.recovered).mean()),
                "latents_recovering": int(by_layer.sum()),
                "layers_recovering": int(np.count_nonzero(by_layer)),
                "latents_recovering_in_layer": int(by_layer[self.points.index(row["hookpoint"])]),
            }
        return rows

    def _draw_rows(self, pairs: recovery.Pairs, draws_RC: np.ndarray) -> list[dict[str, Any]]:
        import numpy as np

        kinds = np.array(self.corpus.kinds)
        rows = []
        for number, draw_C in enumerate(draws_RC):
            test_C = pairs.test_CN[np.arange(len(draw_C)), draw_C]
            for kind in (LEXICAL, CONTEXTUAL):
                own = test_C[kinds == kind]
                rows.append(
                    {
                        "source": self.name,
                        "draw": number,
                        "kind": kind,
                        "concepts": len(own),
                        "recovered": int((own >= self.settings.recovered).sum()),
                        "mean_f1": float(own.mean()) if len(own) else None,
                    }
                )
        return rows

    def _latents(self, pairs: dict[str, recovery.Pairs]) -> list[dict[str, Any]]:
        """A row for each latent: the concept, chosen on `concept_fit`, that it recovers best."""
        size = pairs["f1"].fit_CN.shape[1] // len(self.points)
        best = {name: pair.fit_CN.argmax(axis=0) for name, pair in pairs.items()}
        rows = []
        for latent in range(pairs["f1"].fit_CN.shape[1]):
            row: dict[str, Any] = dict.fromkeys(LATENT_COLUMNS) | {
                "source": self.name,
                "hookpoint": self.points[latent // size],
                "latent": latent % size,
            }
            for name, prefix in (("f1", ""), ("mcc", "mcc_")):
                pair, concept = pairs[name], int(best[name][latent])
                # A latent that is never active on `concept_fit` chooses no concept.
                if pair.code_CN[concept, latent] >= 0:
                    row[f"{prefix}concept"] = self.corpus.names[concept]
                    row[f"{prefix}threshold"] = _threshold(pair.code_CN[concept, latent])
                    if not prefix:
                        row["kind"] = self.corpus.kinds[concept]
                row |= _scores(name, pair, concept, latent)
            rows.append(row)
        return rows

    def _split(
        self,
        fitted: recovery.Ranked,
        tested: recovery.Ranked,
        best: recovery.Thresholds,
        concept: int,
    ) -> dict[str, Any]:
        from clearnets.latents.concepts import split

        found = split(
            fitted,
            tested,
            best,
            concept,
            self.corpus.on_fit,
            self.corpus.on_test,
            gain=self.settings.split_gain,
            purity=self.settings.purity,
        )
        return {
            "main_latents": len(found.main),
            "main_f1": found.test,
            "absorbed": found.absorbed,
        }

    def _truths(self) -> tuple[Truth, Truth]:
        """Both splits as rules read them, whole rows at a time."""
        import numpy as np

        from clearnets.autointerp.rules.concept_naming import Truth
        from clearnets.autointerp.rules.matcher import pack, read

        store = self.corpus.store
        truths = []
        for split, labels in ((FIT, self.corpus.on_fit), (TEST, self.corpus.on_test)):
            text = read(store, split, size=store.ctx_len)
            bits = [pack(text.windows.cut(labels.where(c))) for c in range(labels.concepts)]
            truths.append(Truth.of(text, np.stack(bits)))
        return truths[0], truths[1]

    def _rules(
        self,
        records: Sequence[dict[str, Any]],
        latents: Sequence[dict[str, Any]],
        code_CL: np.ndarray,
        tested: recovery.Ranked,
        truths: tuple[Truth, Truth],
    ) -> list[dict[str, Any]]:
        """A row for each explained latent of a layer that chose a concept."""
        import numpy as np

        from clearnets.autointerp.rules.concept_naming import agreement_of_others
        from clearnets.autointerp.rules.language import parse
        from clearnets.autointerp.rules.matcher import pack

        names = self.corpus.names
        explained = [
            record
            for record in records
            if record["status"] == EXPLAINED and latents[record["latent"]]["concept"] is not None
        ]
        rules = [parse(record["explanation"]) for record in explained]
        on_fit, on_test = truths
        by_rule_R = on_fit.best(rules)
        rule_f1_RC = on_test.rules(rules)
        own_R = np.array([names.index(latents[r["latent"]]["concept"]) for r in explained], int)
        others_R = agreement_of_others(own_R, by_rule_R)
        shape = self.corpus.on_test.label_RS.shape
        rows = []
        for i, record in enumerate(explained):
            latent, concept = record["latent"], int(own_R[i])
            fired_RS = np.zeros(shape, dtype=bool)
            fired_RS.flat[tested.firing(latent, code_CL[concept, latent])] = True
            f1 = float(on_test.f1(pack(on_test.text.windows.cut(fired_RS)))[concept])
            rule_f1 = float(rule_f1_RC[i, concept])
            rows.append(
                {
                    "hookpoint": latents[latent]["hookpoint"],
                    "latent": latent,
                    "concept": names[concept],
                    "kind": self.corpus.kinds[concept],
                    "f1": f1,
                    "rule_f1": rule_f1,
                    "rule_concept": names[by_rule_R[i]] if by_rule_R[i] >= 0 else None,
                    "named": int(by_rule_R[i] == concept),
                    "as_well": int(rule_f1 >= f1 - self.settings.tolerance),
                    "named_by_others": None if len(explained) < 2 else float(others_R[i]),
                }
            )
        return rows


def _scores(name: str, pair: recovery.Pairs, concept: int, latent: int) -> dict[str, float]:
    return {
        f"{name}_fit": float(pair.fit_CN[concept, latent]),
        name: float(pair.test_CN[concept, latent]),
    }


def _threshold(code: Any) -> float | None:
    import numpy as np

    from clearnets.latents.concepts import threshold_of

    return None if code < 0 else float(threshold_of(np.array([code]))[0])


def _metrics(folder: Path) -> dict[str, Any]:
    """Concepts that there are and that one of equally many latents recovers, by kind."""
    metrics: dict[str, Any] = {}
    with (folder / DRAWS).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == OWN]
    for kind in (LEXICAL, CONTEXTUAL):
        own = [row for row in rows if row["kind"] == kind]
        if own:
            metrics[f"{kind}_concepts"] = int(own[0]["concepts"])
            metrics[f"{kind}_recovered"] = sum(int(row["recovered"]) for row in own) / len(own)
    return metrics
