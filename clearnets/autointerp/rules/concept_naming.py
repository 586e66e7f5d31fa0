"""Whether an explanation names the concept that its latent recovers.

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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearnets.autointerp.rules.language import Rule
from clearnets.autointerp.rules.matcher import Text, count
from clearnets.latents.concepts import f1


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

    def f1(self, fired_NB: np.ndarray) -> np.ndarray:
        """Return F1 of firings for each concept, (C,)."""
        tp_C = count(self.concept_CNB & fired_NB).sum(axis=-1, dtype=np.int64)
        return f1(tp_C, count(fired_NB).sum(dtype=np.int64), self.positives_C, 0)

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
