"""Test whether an explanation names the concept that its latent recovers.

A rule, parsed back from the explanation, is executed on `concept_fit` and `concept_test` like a
latent that is active where the rule fires. For an explained latent and the concept that it
recovers:

- *named*: of all concepts, the rule, too, predicts it best (F1 on `concept_fit`);
- *as well*: the rule's F1 for it on `concept_test` is lower than the latent's by at most a
  tolerance.

Rules are executed on rows that are at least half full, and so are the latents here.

Shape suffixes: N rows as windows, B machine words of a row's bits, C concepts, R rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearnets.autointerp.records import EXPLAINED
from clearnets.autointerp.rules.language import Rule, parse
from clearnets.autointerp.rules.matcher import Text, count, pack
from clearnets.latents.concepts import Labels, Ranked, f1

RULE_COLUMNS = (
    *("hookpoint", "latent", "concept", "kind", "f1", "rule_f1", "rule_concept"),
    *("named", "as_well", "named_by_others"),
)


@dataclass(frozen=True)
class Truth:
    """A split as rules read it, a row a window, with its concepts.

    Attributes:
        text: the split.
        concept_CNB: the tokens of each concept, as bits.
        positives_C: how many there are.
    """

    text: Text
    concept_CNB: np.ndarray
    positives_C: np.ndarray

    @classmethod
    def of(cls, text: Text, concept_CNB: np.ndarray) -> Truth:
        return cls(text, concept_CNB, count(concept_CNB).sum(axis=-1, dtype=np.int64))

    @classmethod
    def load(cls, text: Text, labels: Labels) -> Truth:
        """Return a split in windows of whole rows, whose labels are given."""
        bits = [pack(text.windows.cut(labels.where(c))) for c in range(labels.concepts)]
        return cls.of(text, np.stack(bits))

    def f1(self, fired_NB: np.ndarray) -> np.ndarray:
        """Return F1 of firings for each concept, (C,)."""
        # Over both axes at a time: a sum over the few words of a row is slow.
        hits_CX = np.bitwise_count(self.concept_CNB & fired_NB).reshape(len(self.positives_C), -1)
        fired = np.bitwise_count(fired_NB).sum(dtype=np.int64)
        return f1(hits_CX.sum(axis=1, dtype=np.int64), fired, self.positives_C, 0)

    def rules(self, rules: Sequence[Rule]) -> np.ndarray:
        """Return F1 of each rule for each concept, (R, C)."""
        every_N = np.arange(len(self.text.windows))
        scores = [self.f1(self.text.fires(rule, every_N)) for rule in rules]
        return np.array(scores).reshape(len(rules), len(self.concept_CNB))

    def best(self, rules: Sequence[Rule]) -> np.ndarray:
        """Return the concept that each rule predicts best, (R,); -1 where it predicts none at
        all."""
        score_RC = self.rules(rules)
        return np.where(score_RC.max(axis=1) > 0, score_RC.argmax(axis=1), -1)


def agreement_of_others(concept_R: np.ndarray, by_rule_R: np.ndarray) -> np.ndarray:
    """Return the share of the *other* rules that predict a latent's concept best, (R,): the value
    of `named` with shuffled explanations. nan where there is no other."""
    same_RR = concept_R[:, None] == by_rule_R[None, :]
    others = len(concept_R) - 1
    return (same_RR.sum(axis=1) - same_RR.diagonal()) / (others or np.nan)


@dataclass(frozen=True)
class Layer:
    """The latents of one layer and the concepts that they recover.

    Attributes:
        latents: a row for each latent, with the `concept` that it recovers.
        code_CL: their thresholds for each concept.
        tested: their entries on `concept_test`.
    """

    latents: Sequence[Mapping[str, Any]]
    code_CL: np.ndarray
    tested: Ranked


def rule_rows(
    records: Sequence[Mapping[str, Any]],
    layer: Layer,
    names: Sequence[str],
    on_fit: Truth,
    on_test: Truth,
    *,
    tolerance: float,
) -> list[dict[str, Any]]:
    """Return a row for each explained latent of a layer that recovers a concept.

    Args:
        records: of the layer's explanations.
        layer: its latents.
        names: of the concepts.
        on_fit, on_test: both splits.
        tolerance: by how much the F1 of a rule may be lower than the latent's.
    """
    explained = [
        record
        for record in records
        if record["status"] == EXPLAINED and layer.latents[record["latent"]]["concept"] is not None
    ]
    rules = [parse(record["explanation"]) for record in explained]
    by_rule_R, rule_f1_RC = on_fit.best(rules), on_test.rules(rules)
    own = [layer.latents[record["latent"]] for record in explained]
    own_R = np.array([names.index(latent["concept"]) for latent in own], int)
    others_R = agreement_of_others(own_R, by_rule_R)
    rows = []
    for i, latent in enumerate(own):
        concept = int(own_R[i])
        fired_RS = np.zeros(on_test.text.windows.counted_RS.shape, dtype=bool)
        number = latent["latent"]
        fired_RS.flat[layer.tested.firing(number, layer.code_CL[concept, number])] = True
        score = float(on_test.f1(pack(on_test.text.windows.cut(fired_RS)))[concept])
        rule_f1 = float(rule_f1_RC[i, concept])
        rows.append(
            {
                **{key: latent[key] for key in ("hookpoint", "latent", "concept", "kind")},
                "f1": score,
                "rule_f1": rule_f1,
                "rule_concept": names[by_rule_R[i]] if by_rule_R[i] >= 0 else None,
                "named": int(by_rule_R[i] == concept),
                "as_well": int(rule_f1 >= score - tolerance),
                "named_by_others": None if len(explained) < 2 else float(others_R[i]),
            }
        )
    return rows
