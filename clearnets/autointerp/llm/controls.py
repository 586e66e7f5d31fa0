"""Controls of a language model as judge: explanations of other latents, and repeated judgements.

*shuffled*: a latent is also judged by explanations of other latents of its layer; these scores must
be at chance. *reordered*, *redrawn*: some latents of a layer are judged twice more, on the same
windows in another order and with another seed, and on windows drawn anew. The differences between
the scores of one latent show how much of a difference between latents is noise: the judge's own,
and that of the draw of windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets.autointerp.records import PROBABILITY_BINS

if TYPE_CHECKING:
    from clearnets.autointerp.llm.scorers import Answers
    from clearnets.config import DelphiScorer

# Scorers that answer yes or no for each window.
CLASSIFIERS = ("detection", "fuzzing")
CONTROLS = ("shuffled", "reordered", "redrawn")


@dataclass(frozen=True)
class Plan:
    """Attributes:
    givers: by latent, the others by whose explanations it is judged.
    reasked: the latents that are judged again.
    """

    givers: Mapping[int, list[int]]
    reasked: frozenset[int]


def plan(latents: Iterable[int], judge: DelphiScorer, seed: int) -> Plan:
    """Draw a plan, without replacement, from the latents of a layer that can be scored."""
    there = np.array(sorted(latents), dtype=np.int64)
    rng = np.random.default_rng(seed)
    reasked = rng.permutation(there)[: judge.reasked]
    givers = {
        int(latent): rng.permutation(there[there != latent])[: judge.shuffled].tolist()
        for latent in there
    }
    return Plan(givers, frozenset(reasked.tolist()))


def nothing(judge: DelphiScorer) -> dict[str, Any]:
    """Return the columns of a latent that cannot be scored."""
    columns: dict[str, Any] = dict.fromkeys(judge.scorers)
    for control in CONTROLS:
        columns |= {f"{name}_{control}": None for name in controlled(judge, control).scorers}
    return columns


def controlled(judge: DelphiScorer, control: str) -> DelphiScorer:
    """Return the judge with only those of its scorers that have the control."""
    there = {
        # An intruder is found without an explanation.
        "shuffled": [name for name in judge.scorers if name != "intruder"],
        "reordered": [name for name in judge.scorers if name in CLASSIFIERS],
        "redrawn": judge.scorers,
    }
    return judge.model_copy(update={"scorers": tuple(there[control])})


def scores(
    judge: DelphiScorer,
    own: Mapping[str, Answers],
    shuffled: Mapping[int, Mapping[str, Answers]],
    reordered: Mapping[str, Answers] | None,
    redrawn: Mapping[str, Answers] | None,
) -> dict[str, Any]:
    """Return the columns of a latent, given the answers by scorer; those of `shuffled` also by the
    latent whose explanation it was."""
    from clearnets.autointerp.llm.scorers import count

    found = nothing(judge) | {name: count(name, given) for name, given in own.items()}
    for name in controlled(judge, "shuffled").scorers:
        found[f"{name}_shuffled"] = [
            {"explanation_of": giver, **(count(name, given[name]) or {})}
            for giver, given in shuffled.items()
        ]
    for name, given in (reordered or {}).items():
        counts = count(name, given) or {}
        found[f"{name}_reordered"] = counts | agreement(own[name], given)
    for name, given in (redrawn or {}).items():
        found[f"{name}_redrawn"] = count(name, given)
    return found


def agreement(first: Answers, second: Answers) -> dict[str, int]:
    """Count the items that were answered twice, and those of them that were answered alike."""
    pairs = [
        (one.prediction, other.prediction)
        for one, other in zip(first, second, strict=True)
        if one.prediction is not None and other.prediction is not None
    ]
    return {"both": len(pairs), "same": sum(one == other for one, other in pairs)}


class Histogram:
    """Histogram of the probabilities given to positives and to negatives, by scorer."""

    def __init__(self) -> None:
        self._given: dict[str, dict[bool, list[float]]] = {}

    def add(self, answers: Mapping[str, Answers]) -> None:
        """Add the answers about one latent."""
        for name in CLASSIFIERS:
            for answer in answers.get(name, ()):
                if answer.probability is not None:
                    given = self._given.setdefault(name, {True: [], False: []})
                    given[answer.activating].append(answer.probability)

    def counts(self) -> dict[str, dict[str, list[int]]]:
        """Return, by scorer, positives and negatives in each of PROBABILITY_BINS equal bins."""
        edges = np.linspace(0, 1, PROBABILITY_BINS + 1)
        return {
            name: {
                kind: np.histogram(given[activating], edges)[0].tolist()
                for kind, activating in (("positives", True), ("negatives", False))
            }
            for name, given in sorted(self._given.items())
        }
