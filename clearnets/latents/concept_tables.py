"""Tables of concept recovery: a row for each concept, for each draw of latents, for each latent.

What they hold is computed in `clearnets.latents.concepts`.

Shape suffixes as there: N latents of a family, C concepts, R draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearnets import UserError
from clearnets.config import Concepts
from clearnets.families import FAMILIES
from clearnets.latents import concepts as recovery
from clearnets.pipeline.runtime import seed_for

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

Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """The concepts of a corpus, without any latent.

    Attributes:
        names: of the concepts.
        on_fit, on_test: their labels on both splits.
        token_sets: the best set of token ids for each.
        kinds: whether such a set predicts it well (`lexical`), or not (`contextual`), or one of
            the splits does not hold it (`absent`).
    """

    names: tuple[str, ...]
    on_fit: recovery.Labels
    on_test: recovery.Labels
    token_sets: list[recovery.TokenSet]
    kinds: tuple[str, ...]

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        on_fit: recovery.Labels,
        fit_RS: np.ndarray,
        on_test: recovery.Labels,
        test_RS: np.ndarray,
        *,
        lexical: float,
    ) -> Corpus:
        """Find the sets of tokens; from a test F1 of `lexical` on they make a concept lexical."""
        sets = recovery.token_sets(on_fit, fit_RS, on_test, test_RS)
        kinds = [
            ABSENT if not p or not q else LEXICAL if one.test >= lexical else CONTEXTUAL
            for one, p, q in zip(sets, on_fit.positives, on_test.positives)
        ]
        return cls(names, on_fit, on_test, sets, tuple(kinds))


@dataclass(frozen=True)
class Recovery:
    """How the latents of all layers recover the concepts, for the tables' rows.

    Attributes:
        corpus: the concepts.
        settings: the section `concepts` of the parameters.
        source: name of the set of latents.
        points: hookpoint of each layer.
        pairs: by criterion, every latent against every concept.
        draws_RC: for each draw of candidates and each concept the best of them.
    """

    corpus: Corpus
    settings: Concepts
    source: str
    points: Sequence[str]
    pairs: dict[str, recovery.Pairs]
    draws_RC: np.ndarray

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        settings: Concepts,
        source: str,
        points: Sequence[str],
        pairs: dict[str, recovery.Pairs],
        *,
        family: str,
        seed: int,
    ) -> Recovery:
        """Draw the candidates, with a seed that the family and the training seed name.

        Raises:
            UserError: there are fewer latents than candidates.
        """
        fit_CN = pairs["f1"].fit_CN
        count, there = settings.candidates, fit_CN.shape[1]
        if family in FAMILIES and FAMILIES[family].planted:
            count = min(count, there)  # No other family is compared with them.
        elif count > there:
            raise UserError(
                f"{family} has only {there} latents; set concepts.candidates to at most {there}"
            )
        rng = np.random.default_rng(seed_for(settings.seed, "draws", family, source, seed))
        draws_RC = recovery.draws(fit_CN, candidates=count, resamples=settings.resamples, rng=rng)
        return cls(corpus, settings, source, points, pairs, draws_RC)

    @property
    def size(self) -> int:
        """Latents of a layer."""
        return self.pairs["f1"].fit_CN.shape[1] // len(self.points)

    def codes(self, layer: int) -> np.ndarray:
        """Return the thresholds of one layer's latents for each concept, (C, L)."""
        return self.pairs["f1"].code_CN[:, layer * self.size : (layer + 1) * self.size]

    def concept_rows(self) -> list[Row]:
        """Return a row for each concept, without what needs the entries of its layer."""
        return [self._concept_row(concept) for concept in range(len(self.corpus.names))]

    def _concept_row(self, concept: int) -> Row:
        corpus, tokens = self.corpus, self.corpus.token_sets[concept]
        row: Row = dict.fromkeys(CONCEPT_COLUMNS) | {
            "source": self.source,
            "concept": corpus.names[concept],
            "kind": corpus.kinds[concept],
            "positives_fit": int(corpus.on_fit.positives[concept]),
            "positives_test": int(corpus.on_test.positives[concept]),
        }
        if corpus.kinds[concept] == ABSENT:
            return row
        row |= {
            "token_set": len(tokens.ids),
            "token_set_f1_fit": tokens.fit,
            "token_set_f1": tokens.test,
        }
        for prefix, name in (("", "f1"), ("mcc_", "mcc")):
            pair = self.pairs[name]
            best = int(pair.fit_CN[concept].argmax())
            row |= {
                f"{prefix}hookpoint": self.points[best // self.size],
                f"{prefix}latent": best % self.size,
                f"{prefix}threshold": _threshold(pair.code_CN[concept, best]),
                **_scores(name, pair, concept, best),
            }
        test_N = self.pairs["f1"].test_CN[concept]
        drawn_R = test_N[self.draws_RC[:, concept]]
        found_N = test_N >= self.settings.recovered
        by_layer = found_N.reshape(len(self.points), self.size).sum(axis=1)
        return row | {
            "drawn_f1": float(drawn_R.mean()),
            "drawn_recovered": float((drawn_R >= self.settings.recovered).mean()),
            "latents_recovering": int(by_layer.sum()),
            "layers_recovering": int(np.count_nonzero(by_layer)),
            "latents_recovering_in_layer": int(by_layer[self.points.index(row["hookpoint"])]),
        }

    def draw_rows(self) -> list[Row]:
        """Return a row for each draw and kind of concept."""
        kinds, test_CN = np.array(self.corpus.kinds), self.pairs["f1"].test_CN
        rows = []
        for number, draw_C in enumerate(self.draws_RC):
            test_C = test_CN[np.arange(len(draw_C)), draw_C]
            for kind in (LEXICAL, CONTEXTUAL):
                own = test_C[kinds == kind]
                rows.append(
                    {
                        "source": self.source,
                        "draw": number,
                        "kind": kind,
                        "concepts": len(own),
                        "recovered": int((own >= self.settings.recovered).sum()),
                        "mean_f1": float(own.mean()) if len(own) else None,
                    }
                )
        return rows

    def latent_rows(self) -> list[Row]:
        """Return a row for each latent: the concept, chosen on `concept_fit`, that it recovers
        best."""
        empty = dict.fromkeys(LATENT_COLUMNS) | {"source": self.source}
        places = itertools.product(self.points, range(self.size))
        rows: list[Row] = [empty | {"hookpoint": p, "latent": latent} for p, latent in places]
        for name, prefix in (("f1", ""), ("mcc", "mcc_")):
            pair = self.pairs[name]
            best_N = pair.fit_CN.argmax(axis=0)
            at = best_N, np.arange(len(rows))
            code_N, fit_N, test_N = pair.code_CN[at], pair.fit_CN[at], pair.test_CN[at]
            threshold_N = recovery.threshold_of(code_N)
            columns = (best_N, code_N, threshold_N, fit_N, test_N)
            each = zip(rows, *(values_N.tolist() for values_N in columns))
            for row, concept, code, threshold, fit, test in each:
                row |= {f"{name}_fit": fit, name: test}
                # A latent that is never active on `concept_fit` chooses no concept.
                if code >= 0:
                    row[f"{prefix}concept"] = self.corpus.names[concept]
                    row[f"{prefix}threshold"] = threshold
                    if not prefix:
                        row["kind"] = self.corpus.kinds[concept]
        return rows

    def split_values(
        self, layer: int, fitted: recovery.Ranked, tested: recovery.Ranked, concept: int
    ) -> Row:
        """Return how the latents of a layer share a concept; its entries are given."""
        found = recovery.split(
            fitted,
            tested,
            self.pairs["f1"].thresholds(concept, layer, self.size),
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


def _scores(name: str, pair: recovery.Pairs, concept: int, latent: int) -> dict[str, float]:
    return {
        f"{name}_fit": float(pair.fit_CN[concept, latent]),
        name: float(pair.test_CN[concept, latent]),
    }


def _threshold(code: Any) -> float | None:
    return None if code < 0 else float(recovery.threshold_of(np.array([code]))[0])
