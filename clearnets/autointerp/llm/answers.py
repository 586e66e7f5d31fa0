"""Counts of a judge's answers, yes or no, against the truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from clearnets.autointerp.ranking import area


class Answer(NamedTuple):
    """An answer about one item.

    Attributes:
        activating: the truth.
        prediction, probability: what the judge answered; None where it is missing.
    """

    activating: bool
    prediction: bool | None
    probability: float | None


def tally(answers: Iterable[Answer]) -> dict[str, Any]:
    """Return counts of right, wrong and missing answers, and the AUROC of their probabilities.

    The AUROC is None where an answer has no probability, or a class has no answer.
    """
    answers = list(answers)

    def count(activating: bool, prediction: bool | None) -> int:
        return sum(a.activating is activating and a.prediction is prediction for a in answers)

    given = [answer for answer in answers if answer.prediction is not None]
    known = [answer.probability for answer in given if answer.probability is not None]
    auroc = None
    if len(known) == len(given):
        auroc = area(np.array(known, dtype=float), np.array([a.activating for a in given], bool))
    return {
        "tp": count(True, True),
        "fp": count(False, True),
        "tn": count(False, False),
        "fn": count(True, False),
        "missing_positives": count(True, None),
        "missing_negatives": count(False, None),
        "auroc": auroc,
    }
