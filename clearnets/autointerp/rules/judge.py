"""The judge of rules, which executes a rule on windows that the explainer never saw.

*rule-detection*: is the latent active in this window? The judge says yes where the rule fires at
one counted position or more.

*rule-fuzzing*: are the marked positions of this window those at which the latent is active? The
judge says yes where the rule fires at half of them or more. In a positive item (an active window)
the active positions are marked: all of them, or a random quarter of the window where there are
more. In a negative item other positions are marked, as many as in a positive item, so that the
number of marks says nothing. There are as many negatives as non-activating windows in the sample,
in equal shares
- from the non-activating windows that hold the latent's trigger word, marked on the trigger first;
- from other windows, half of them non-activating and half of them active (a rule must also say
  where in a window a latent is active), marked at random.

Every latent of a layer is also judged by every other one's explanation: see `judge_all`.

Shape suffixes: W windows, L positions, B machine words of a window's bits (see `matcher`), P
positive and Q negative items, R rules, T latents that are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearnets.autointerp.ranking import mean_of_others
from clearnets.autointerp.rules.language import Rule
from clearnets.autointerp.rules.matcher import Text, count, fires, pack
from clearnets.latents.examples import Examples, Windows


@dataclass(frozen=True)
class Counts:
    """Answers of the judge against the truth: an integer per rule each, (R,)."""

    tp: np.ndarray
    fp: np.ndarray
    tn: np.ndarray
    fn: np.ndarray

    @property
    def balanced_accuracy(self) -> np.ndarray:
        """Return the mean of the shares of positives and of negatives judged right, (R,)."""
        return (self.tp / (self.tp + self.fn) + self.tn / (self.tn + self.fp)) / 2

    def of(self, rule: int) -> dict[str, int]:
        """Return the four counts of one rule."""
        return {name: int(value[rule]) for name, value in vars(self).items()}


def _counts(yes_of_positives_RP: np.ndarray, yes_of_negatives_RQ: np.ndarray) -> Counts:
    tp_R, fp_R = yes_of_positives_RP.sum(axis=-1), yes_of_negatives_RQ.sum(axis=-1)
    positives, negatives = yes_of_positives_RP.shape[-1], yes_of_negatives_RQ.shape[-1]
    return Counts(tp_R, fp_R, negatives - fp_R, positives - tp_R)


@dataclass(frozen=True)
class Marks:
    """The items of rule-fuzzing.

    Attributes:
        positive_P, negative_Q: which window of the examples each item shows.
        marked_PL, marked_QL: the marked positions.
    """

    positive_P: np.ndarray
    marked_PL: np.ndarray
    negative_Q: np.ndarray
    marked_QL: np.ndarray


def mark(text: Text, examples: Examples, *, trigger: str, rng: np.random.Generator) -> Marks:
    """Mark positions for rule-fuzzing, as the docstring of the module says."""
    size = examples.active_WL.shape[1]
    word_WL = text.word_NL[examples.window_W]
    most = max(size // 4, 1)
    positive_P = np.arange(examples.num_active)
    key_PL = np.where(examples.active_WL[positive_P], rng.random((len(positive_P), size)), np.inf)
    marked_PL = _lowest(key_PL, np.minimum(examples.active_WL[positive_P].sum(axis=1), most))

    free_WL = (word_WL >= 0) & ~examples.active_WL
    other_W = np.arange(examples.num_active, len(examples.window_W))
    hard_Q = other_W[examples.hard_W[other_W]]
    easy_Q = other_W[~examples.hard_W[other_W]]
    # Half of the latter give way to active windows that have room for every mark.
    roomy = positive_P[free_WL[positive_P].sum(axis=1) >= most]
    swapped = rng.permutation(roomy)[: len(easy_Q) // 2]
    remaining = np.sort(rng.permutation(easy_Q)[: len(easy_Q) - len(swapped)])
    negative_Q = np.concatenate([hard_Q, remaining, np.sort(swapped)])

    # The same numbers of marks as the positives have, dealt out anew.
    marks_P = marked_PL.sum(axis=1)
    rounds = -(-len(negative_Q) // len(marks_P))
    dealt = np.concatenate([rng.permutation(marks_P) for _ in range(rounds)])
    marks_Q = rng.permutation(dealt[: len(negative_Q)])
    key_QL = np.where(free_WL[negative_Q], rng.random((len(negative_Q), size)), np.inf)
    on_trigger_QL = word_WL[negative_Q] == text.lexicon.id(trigger)
    key_QL[: len(hard_Q)] -= on_trigger_QL[: len(hard_Q)]
    return Marks(positive_P, marked_PL, negative_Q, _lowest(key_QL, marks_Q))


def _lowest(key_xL: np.ndarray, number_x: np.ndarray) -> np.ndarray:
    """Return which positions hold the `number_x` lowest finite keys of each row."""
    rank_xL = key_xL.argsort(axis=1).argsort(axis=1)
    return (rank_xL < number_x[:, None]) & np.isfinite(key_xL)


def detects(fired_RWB: np.ndarray, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of rule-detection for positives (R, P) and negatives (R, Q), given where
    each rule fires in the windows of the examples."""
    fires_RW = fires(fired_RWB)
    return fires_RW[:, : examples.num_active], fires_RW[:, examples.num_active :]


def detection(fired_RWB: np.ndarray, examples: Examples) -> Counts:
    """Return the counts of rule-detection."""
    return _counts(*detects(fired_RWB, examples))


def recognizes(fired_RWB: np.ndarray, marks: Marks) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of rule-fuzzing for positives (R, P) and negatives (R, Q), given where
    each rule fires in the windows of the examples."""

    def yes(item_x: np.ndarray, marked_xL: np.ndarray) -> np.ndarray:
        return 2 * count(fired_RWB[:, item_x] & pack(marked_xL)) >= marked_xL.sum(axis=1)

    return yes(marks.positive_P, marks.marked_PL), yes(marks.negative_Q, marks.marked_QL)


def fuzzing(fired_RWB: np.ndarray, marks: Marks) -> Counts:
    """Return the counts of rule-fuzzing."""
    return _counts(*recognizes(fired_RWB, marks))


@dataclass(frozen=True)
class Trial:
    """What one latent is judged on: windows of a text, and the marks of fuzzing."""

    text: Text
    examples: Examples
    marks: Marks


@dataclass(frozen=True)
class Verdict:
    """One latent, judged by one scorer.

    Attributes:
        own: counts tp, fp, tn, fn with its own explanation.
        shuffled: mean balanced accuracy with the explanation of each other latent; None where
            there is no other.
        elsewhere: mean balanced accuracy of its own explanation for each other latent.
    """

    own: dict[str, int]
    shuffled: float | None
    elsewhere: float | None


def _shown(trials: Sequence[Trial]) -> tuple[Text, list[np.ndarray]]:
    """Return the windows that any trial shows, each once, and their numbers by trial."""
    seen = [trial.text.windows.these(trial.examples.window_W) for trial in trials]
    rows, length = trials[0].text.rows, trials[0].text.rows.counted_RS.shape[1]
    place = [windows.row_N * length + windows.start_N for windows in seen]
    place_U, number = np.unique(np.concatenate(place), return_inverse=True)
    row_U, start_U = np.divmod(place_U, length)
    shown = Text(rows, Windows(seen[0].size, rows.counted_RS, row_U, start_U))
    return shown, np.split(number, np.cumsum([len(windows) for windows in seen])[:-1])


def judge_all(trials: Sequence[Trial], rules: Sequence[Rule]) -> list[dict[str, Verdict]]:
    """Judge every latent by every latent's rule; rule i is the explanation of trial i.

    All pairs rather than one draw of them: the control's mean then depends on no permutation. All
    trials are from one split.

    Returns:
        By scorer (`detection`, `fuzzing`), for each trial in order.
    """
    if not trials:
        return []
    # Each rule is executed once, on the windows that any trial shows.
    shown, number_TW = _shown(trials)
    fired_RUB = np.stack([shown.fires(rule) for rule in rules])
    counts: dict[str, list[Counts]] = {"detection": [], "fuzzing": []}
    for trial, number_W in zip(trials, number_TW):
        fired_RWB = fired_RUB[:, number_W]
        counts["detection"].append(detection(fired_RWB, trial.examples))
        counts["fuzzing"].append(fuzzing(fired_RWB, trial.marks))
    verdicts: list[dict[str, Verdict]] = [{} for _ in trials]
    for scorer, by_trial in counts.items():
        accuracy_TR = np.stack([found.balanced_accuracy for found in by_trial])
        shuffled_T, elsewhere_R = mean_of_others(accuracy_TR), mean_of_others(accuracy_TR.T)
        for i, found in enumerate(by_trial):
            others = (
                (float(shuffled_T[i]), float(elsewhere_R[i])) if len(rules) > 1 else (None,) * 2
            )
            verdicts[i][scorer] = Verdict(found.of(i), *others)
    return verdicts
