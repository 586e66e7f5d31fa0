"""A latent's windows as a language model is shown them, and the items that scorers make of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearnets.autointerp.llm import delphi_adapter  # noqa: F401  # Before anything of delphi.
from clearnets.autointerp.rules.judge import Trial

from delphi.scorers.classifier.intruder import IntruderSentence  # isort: skip
from delphi.scorers.classifier.sample import ClassifierOutput, Sample, _highlight  # isort: skip


@dataclass(frozen=True)
class Shown:
    """The windows of one latent's trial.

    Attributes:
        trial: active windows first, and the marks of fuzzing.
        strings_W: the texts of each window's tokens.
        act_WL: the latent's activations.
    """

    trial: Trial
    strings_W: list[list[str]]
    act_WL: np.ndarray

    def detection(self) -> list[Sample]:
        """Return the items of detection: windows without marks."""
        active = self.trial.examples.num_active
        return [
            item("".join(strings), strings, active=place < active)
            for place, strings in enumerate(self.strings_W)
        ]

    def fuzzing(self) -> list[Sample]:
        """Return the items of fuzzing: as many tokens are marked in negatives as in positives."""
        marks = self.trial.marks
        return [
            item(self._marked(window, marked_L), self.strings_W[window], active=active)
            for windows, marked_xL, active in (
                (marks.positive_P, marks.marked_PL, True),
                (marks.negative_Q, marks.marked_QL, False),
            )
            for window, marked_L in zip(windows.tolist(), marked_xL)
        ]

    def intruders(self, shown: int, rng: random.Random) -> list[IntruderSentence]:
        """Return a prompt for each non-activating window of the fuzzing items, among `shown` - 1
        active ones of similar strength.

        The active windows are cut, by strength, into groups that can fill a prompt.
        """
        marks, others = self.trial.marks, shown - 1
        peak_P = self.act_WL[marks.positive_P].max(axis=1)
        order = np.argsort(-peak_P, kind="stable")
        if len(order) < others:
            return []
        groups = np.array_split(order, min(10, len(order) // others))
        negatives = np.flatnonzero(marks.negative_Q >= self.trial.examples.num_active)
        sentences = []
        for turn, item in enumerate(negatives.tolist()):
            group = turn % len(groups)
            chosen = rng.sample(groups[group].tolist(), others)
            place = rng.randint(0, others)
            texts = [self._marked(int(marks.positive_P[p]), marks.marked_PL[p]) for p in chosen]
            texts.insert(place, self._marked(int(marks.negative_Q[item]), marks.marked_QL[item]))
            sentences.append(IntruderSentence(texts, place, group, [], [], 0.0))
        return sentences

    def _marked(self, window: int, marked_L: np.ndarray) -> str:
        return marked(self.strings_W[window], marked_L)


def marked(strings: Sequence[str], marked_L: np.ndarray) -> str:
    """Return the text of a window with its marked tokens between `<<` and `>>`."""
    return _highlight(list(strings), lambda i: bool(marked_L[i]))


def item(text: str, strings: Sequence[str], *, active: bool) -> Sample:
    """Return a window as delphi's classifiers take it."""
    return Sample(text, ClassifierOutput(list(strings), [], 0, active, None, None, None))
