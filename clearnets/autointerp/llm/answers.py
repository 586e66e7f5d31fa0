"""Yes and no of a judge against the truth, as counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from clearnets.autointerp.ranking import area


class Answer(NamedTuple):
    """What was said of one item.

    Attributes:
        activating: the truth.
        prediction, probability: what was said; None where it is missing.
    """

    activating: bool
    prediction: bool | None
    probability: float | None


def tally(answers: Iterable[Answer]) -> dict[str, Any]:
    """Counts of right, wrong and missing answers, and the AUROC of their probabilities.

    The AUROC is None where an answer that there is has no probability, or a class has none.
    """
    answers = list(answers)

    def count(activating: bool, prediction: bool | None) -> int:
        return sum(a.activating is activating and a.prediction is prediction for a in answers)

    there = [answer for answer in answers if answer.prediction is not None]
    known = [answer.probability for answer in there if answer.probability is not None]
    auroc = None
    if len(known) == len(there):
        auroc = area(np.array(known, dtype=float), np.array([a.activating for a in there], bool))
    return {
        "tp": count(True, True),
        "fp": count(False, True),
        "tn": count(False, False),
        "fn": count(True, False),
        "missing_positives": count(True, None),
        "missing_negatives": count(False, None),
        "auroc": auroc,
    }
