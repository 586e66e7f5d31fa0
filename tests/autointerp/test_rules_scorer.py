"""The judge of rules, and how rule-fuzzing marks its windows."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_text import ID, STRINGS, counted, entries, rows

from clearnets.autointerp.rules.judge import (
    Counts,
    Trial,
    Verdict,
    detection,
    fuzzing,
    judge_all,
    mark,
)
from clearnets.autointerp.rules.language import Clause, Context, Rule
from clearnets.autointerp.rules.matcher import Lexicon, read_rows
from clearnets.latents.examples import activity, choose, sample

LEXICON = Lexicon(STRINGS)
SIZE = 16
ROWS = rows(3, 300)
TEXT = read_rows(ROWS, counted, LEXICON, size=SIZE)
TRIGGER = "fox"


def latent(share: float, extra: float, seed: int = 0):
    """Active at a share of the foxes and at random positions elsewhere."""
    rng = np.random.default_rng(seed)
    fox = (ID[" fox"] == ROWS) & (rng.random(ROWS.shape) < share)
    acts = (fox | (rng.random(ROWS.shape) < extra)) & counted(ROWS)
    found = activity(entries(acts), 0, TEXT.windows)
    holds = TEXT.holding(LEXICON.id(TRIGGER))
    rng = np.random.default_rng(seed)
    examples = sample(
        found, TEXT.windows, active_W=choose(found, 30, rng=rng), silent=40, holds=holds, rng=rng
    )
    return examples, mark(TEXT, examples, trigger=TRIGGER, rng=rng)


CASES = [(0.5, 0.0), (0.5, 0.05), (0.5, 0.12), (0.0, 0.02), (1.0, 0.1)]


@pytest.mark.parametrize(("share", "extra"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_marks_tell_nothing_but_their_place(share, extra, seed):
    examples, marks = latent(share, extra, seed)
    active, word_WL = examples.active_WL, TEXT.word_NL[examples.window_W]
    assert not (marks.marked_PL & ~active[marks.positive_P]).any()
    np.testing.assert_array_equal(
        marks.marked_PL.sum(axis=1), np.minimum(active[marks.positive_P].sum(axis=1), SIZE // 4)
    )
    assert not (marks.marked_QL & active[marks.negative_Q]).any()
    assert not (marks.marked_QL & (word_WL[marks.negative_Q] < 0)).any()
    assert len(set(marks.negative_Q)) == len(marks.negative_Q) == 40
    # Each number of marks is as frequent among negatives as among positives.
    most = SIZE // 4 + 1
    dealt = np.bincount(marks.marked_QL.sum(axis=1), minlength=most)
    given = np.bincount(marks.marked_PL.sum(axis=1), minlength=most)
    rounds, rest = divmod(40, 30)
    assert dealt.sum() == given.sum() * rounds + rest
    assert ((dealt >= given * rounds) & (dealt <= given * (rounds + 1))).all()


def test_half_of_the_negatives_are_marked_on_the_trigger():
    examples, marks = latent(0.5, 0.0)
    hard = examples.hard_W[marks.negative_Q]
    assert hard.sum() == 20
    word_WL = TEXT.word_NL[examples.window_W]
    on_trigger = (word_WL[marks.negative_Q] == LEXICON.id(TRIGGER)) & marks.marked_QL
    assert on_trigger[hard].any(axis=1).all()
    # Of the others half are windows in which the latent is active, at other positions.
    assert (marks.negative_Q[~hard] < examples.num_active).sum() == 10


def test_counts_equal_a_loop():
    rule = Rule((Clause((TRIGGER,)), Clause((), Context("closed-quotation"))))
    examples, marks = latent(0.5, 0.05)
    bits = TEXT.fires(rule, examples.window_W)
    fired = np.unpackbits(bits.view(np.uint8), axis=-1, count=SIZE).astype(bool)
    truth = [w < examples.num_active for w in range(len(examples.window_W))]
    guess = [any(row) for row in fired.tolist()]
    assert detect(examples, rule).of(0) == tally(truth, guess)
    items = list(zip(marks.positive_P, marks.marked_PL)) + list(
        zip(marks.negative_Q, marks.marked_QL)
    )
    truth = [i < len(marks.positive_P) for i in range(len(items))]
    guess = [sum(fired[w][m].tolist()) >= sum(m.tolist()) / 2 for w, m in items]
    assert fuzz(examples, marks, rule).of(0) == tally(truth, guess)


def detect(examples, rule: Rule) -> Counts:
    return detection(TEXT.fires(rule, examples.window_W)[None], examples)


def fuzz(examples, marks, rule: Rule) -> Counts:
    return fuzzing(TEXT.fires(rule, examples.window_W)[None], marks)


def tally(truth: list[bool], guess: list[bool]) -> dict[str, int]:
    pairs = list(zip(truth, guess))
    cells = {"tp": (True, True), "fp": (False, True), "tn": (False, False), "fn": (True, False)}
    return {name: pairs.count(cell) for name, cell in cells.items()}


def test_rules_that_always_or_never_fire_are_at_chance():
    examples, marks = latent(0.5, 0.05)
    for rule in (Rule((Clause(),)), Rule((Clause(("unknown",)),))):
        assert detect(examples, rule).balanced_accuracy == 0.5
        assert fuzz(examples, marks, rule).balanced_accuracy == 0.5


def test_a_rule_must_say_where_in_the_window():
    """In the right windows but at the wrong words: detection is content, fuzzing is not."""
    examples, marks = latent(1.0, 0.0)
    exact, loose = Rule((Clause((TRIGGER,)),)), Rule((Clause(("The", "A", "the", "a", "was")),))
    assert detect(examples, exact).balanced_accuracy == 1
    assert fuzz(examples, marks, exact).balanced_accuracy == 1
    assert fuzz(examples, marks, loose).balanced_accuracy < 0.5
    assert detect(examples, loose).tp == examples.num_active


def test_balanced_accuracy_by_hand():
    counts = Counts(*(np.array([cell]) for cell in (3, 1, 1, 1)))
    assert counts.balanced_accuracy == pytest.approx([(0.75 + 0.5) / 2])


def test_everyone_is_judged_by_everyone_one_pair_at_a_time():
    rules = [
        Rule((Clause((TRIGGER,)),)),
        Rule((Clause(("The", "a")), Clause((), Context("closed-quotation")))),
        Rule((Clause((), Context("inside-quotation")),)),
    ]
    trials = [Trial(TEXT, *latent(share, extra)) for share, extra in CASES[:3]]
    verdicts = judge_all(trials, rules)
    for scorer in ("detection", "fuzzing"):
        pairs = [
            [
                detect(trial.examples, rule)
                if scorer == "detection"
                else fuzz(trial.examples, trial.marks, rule)
                for rule in rules
            ]
            for trial in trials
        ]
        accuracy = [[float(found.balanced_accuracy[0]) for found in row] for row in pairs]
        for i, verdict in enumerate(verdicts):
            others = [j for j in range(3) if j != i]
            assert verdict[scorer].own == pairs[i][i].of(0)
            shuffled = np.mean([accuracy[i][j] for j in others])
            elsewhere = np.mean([accuracy[j][i] for j in others])
            assert verdict[scorer].shuffled == pytest.approx(shuffled)
            assert verdict[scorer].elsewhere == pytest.approx(elsewhere)
            assert shuffled != elsewhere


def test_one_alone_has_no_other():
    trial, rule = Trial(TEXT, *latent(0.5, 0.0)), Rule((Clause((TRIGGER,)),))
    (verdict,) = judge_all([trial], [rule])
    own = detect(trial.examples, rule).of(0)
    assert verdict["detection"] == Verdict(own, None, None)
    assert judge_all([], []) == []
