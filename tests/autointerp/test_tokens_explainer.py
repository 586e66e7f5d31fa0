"""The `tokens` explainer on latents whose rule is known, and on latents without one."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_text import STRINGS, counted, entries, rows

from clearnets.autointerp.rules import explainer, judge
from clearnets.autointerp.rules.language import Clause, Context, Rule, parse, render
from clearnets.autointerp.rules.matcher import Lexicon, Text, read_rows
from clearnets.latents.examples import activity, choose, sample

LEXICON = Lexicon(STRINGS)
SIZE, MAX_WORDS = 16, 8
ROWS = {"explain": rows(1, 500), "score": rows(2, 500)}
TEXT = {
    split: read_rows(tokens_RS, counted, LEXICON, size=SIZE) for split, tokens_RS in ROWS.items()
}


def acts_of(rule: Rule, text: Text) -> np.ndarray:
    """Activations (rows, positions) of a latent that follows a rule."""
    windows = text.windows
    bits = text.fires(rule, np.arange(len(windows)))
    fired_NL = np.unpackbits(bits.view(np.uint8), axis=-1, count=SIZE)
    acts = np.zeros(windows.counted_RS.shape, dtype=np.float32)
    shape = (len(acts), -1, SIZE)
    acts.reshape(shape)[windows.row_N, windows.slot_N] = fired_NL
    return acts


def examples_of(split: str, acts: np.ndarray, trigger: str | None, seed: int):
    text = TEXT[split]
    found = activity(entries(acts), 0, text.windows)
    trigger = trigger or explainer.trigger(text, found)
    rng = np.random.default_rng(seed)
    examples = sample(
        found,
        text.windows,
        active_W=choose(found, 50, rng=rng),
        silent=50,
        holds=text.holding(LEXICON.id(trigger)),
        rng=rng,
    )
    return trigger, examples


def share_of(acts: np.ndarray, text: Text) -> float:
    """The share of the windows in which a latent is active."""
    return float((text.windows.cut(acts) > 0).any(axis=1).mean())


def learned(trigger: str, seen, acts: np.ndarray, max_words: int) -> Rule:
    text = TEXT["explain"]
    share = share_of(acts, text)
    return explainer.explain(text, seen, trigger=trigger, share=share, max_words=max_words)


def explained(acts: dict[str, np.ndarray], seed: int = 0):
    """Rule, detection and fuzzing on held-out text, and what is needed to judge other rules."""
    trigger, seen = examples_of("explain", acts["explain"], None, seed)
    rule = learned(trigger, seen, acts["explain"], MAX_WORDS)
    _, held_out = examples_of("score", acts["score"], trigger, seed + 1)
    rng = np.random.default_rng(seed)
    marks = judge.mark(TEXT["score"], held_out, trigger=trigger, rng=rng)
    return rule, held_out, marks


def accuracies(rule: Rule, held_out, marks) -> tuple[float, float]:
    rule = parse(render(rule))
    fired = TEXT["score"].fires(rule, held_out.window_W)[None]
    return (
        judge.detection(fired, held_out).balanced_accuracy.item(),
        judge.fuzzing(fired, marks).balanced_accuracy.item(),
    )


def planted(rule: Rule, seed: int = 0):
    acts = {split: acts_of(rule, text) for split, text in TEXT.items()}
    return explained(acts, seed)


PLANTED = {
    "one word": Rule((Clause(("fox",)),)),
    "a word part": Rule((Clause(("-ish",)),)),
    "speech verbs": Rule((Clause(("said", "asked"), Context("closed-quotation")),)),
    "second occurrence": Rule((Clause(("dog",), Context("seen")),)),
    "first occurrence": Rule((Clause(("dog",), Context("seen", negated=True)),)),
    "inside a quotation": Rule((Clause((), Context("inside-quotation")),)),
    "outside a quotation": Rule((Clause(("fox",), Context("inside-quotation", negated=True)),)),
    "after a word": Rule((Clause((), Context("right-after", ("the",))),)),
    "a word after a word": Rule((Clause(("fox",), Context("right-after", ("the", "a"))),)),
    "a word not after a word": Rule((Clause(("fox",), Context("right-after", ("was",), True)),)),
    "shortly after a word": Rule((Clause(("Tom", "Mia"), Context("shortly-after", ("Where",))),)),
    "two clauses": Rule((Clause(("cake", "hat")), Clause((), Context("closed-quotation")))),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_rules_are_recovered(name):
    scores = accuracies(*planted(PLANTED[name]))
    assert min(scores) > 0.95, (name, scores)


def test_simple_rules_are_found_word_for_word():
    for name in ("one word", "a word part", "speech verbs", "second occurrence", "after a word"):
        rule, *_ = planted(PLANTED[name])
        assert (len(rule.clauses), rule.clauses[0].context) == (
            1,
            PLANTED[name].clauses[0].context,
        ), render(rule)
        assert set(rule.clauses[0].words) == set(PLANTED[name].clauses[0].words)


def test_explanations_of_other_latents_are_at_chance():
    """Of latents with one trigger word each, whose rules cannot help each other."""
    latents = [
        planted(Rule((Clause((word,)),)), seed) for seed, word in enumerate(LEXICON.words[3:27])
    ]
    others = [*latents[1:], latents[0]]
    scores = [accuracies(other[0], *own[1:]) for own, other in zip(latents, others)]
    own = np.mean([accuracies(*latent) for latent in latents])
    assert own > 0.99
    mean = np.mean(scores, axis=0)
    np.testing.assert_allclose(mean, 0.5, atol=0.03)


def test_latents_without_a_rule_score_at_chance():
    """The explainer picks the best of thousands of rules, yet held-out text is not fooled."""
    scores = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        acts = {
            split: (rng.random(tokens_RS.shape) < 0.02) * counted(tokens_RS)
            for split, tokens_RS in ROWS.items()
        }
        scores.append(accuracies(*explained(acts, seed)))
    np.testing.assert_allclose(np.mean(scores, axis=0), 0.5, atol=0.03)


def test_the_cap_on_words_holds_for_the_whole_sentence():
    words = ("fox", "ball", "Mia", "-y", "gladly", "cried")
    rule = Rule((Clause(words), Clause(("was",), Context("right-after", ("It",)))))
    acts = acts_of(rule, TEXT["explain"])
    trigger, seen = examples_of("explain", acts, None, 0)
    for cap in (1, 2, 5, 8):
        rule = learned(trigger, seen, acts, cap)
        assert rule.num_words <= cap
        assert rule == learned(trigger, seen, acts, cap)


def test_the_objective_equals_its_definition():
    acts = acts_of(PLANTED["speech verbs"], TEXT["explain"])
    acts *= np.random.default_rng(0).random(acts.shape) < 0.7
    trigger, seen = examples_of("explain", acts, None, 0)
    text, share = TEXT["explain"], 0.2
    search = explainer._Search(text, seen, trigger, share)
    a, word_WL = seen.num_active, text.word_NL[seen.window_W]
    holds = (word_WL == LEXICON.id(trigger)).any(axis=1)
    active, drawn = np.arange(len(holds)) < a, ~seen.hard_W
    drawn[:a] = False
    # Windows stand for as many of the text as there are of their kind.
    holding = (holds[drawn].sum() + 1) / (drawn.sum() + 2)
    parts = {
        share: active,
        (1 - share) * holding: ~active & holds,
        (1 - share) * (1 - holding): ~active & ~holds,
    }
    weight = sum(part * kind / kind.sum() for part, kind in parts.items())
    position_weight = np.repeat(weight, SIZE)[(word_WL >= 0).ravel()]
    for name in ("speech verbs", "after a word", "two clauses"):
        bits_WB = text.fires(PLANTED[name], seen.window_W)
        fired = np.unpackbits(bits_WB.view(np.uint8), axis=-1, count=SIZE).astype(bool)
        hit, false = np.mean([f.any() for f in fired[:a]]), np.mean([f.any() for f in fired[a:]])
        pair = np.stack([fired[word_WL >= 0], seen.active_WL[word_WL >= 0]])
        covariance = np.cov(pair, aweights=position_weight)
        phi = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        expected = 0.65 * (hit - false) + 0.35 * phi
        np.testing.assert_allclose(search.quality(bits_WB), expected, rtol=1e-9)


def test_the_trigger_is_the_word_with_most_activations():
    text = TEXT["explain"]
    acts = acts_of(PLANTED["speech verbs"], text)
    found = activity(entries(acts), 0, text.windows)
    words = text.word_NL[text.windows.cut(acts) > 0]
    names, counts = np.unique([LEXICON.words[w] for w in words], return_counts=True)
    assert explainer.trigger(text, found) == names[counts.argmax()]


@pytest.mark.parametrize("size", [16, 64, 128])
def test_every_clause_tried_fires_as_the_text_says(size):
    """Also where a window's bits take several machine words."""
    text = read_rows(ROWS["explain"].reshape(-1, 128), counted, LEXICON, size=size)
    acts = (ROWS["explain"].reshape(-1, 128) % 7 == 4) * counted(ROWS["explain"].reshape(-1, 128))
    acts = acts * (np.random.default_rng(0).random(acts.shape) < 0.03)
    found = activity(entries(acts), 0, text.windows)
    trigger = explainer.trigger(text, found)
    holds = text.holding(LEXICON.id(trigger))
    rng = np.random.default_rng(0)
    seen = sample(
        found, text.windows, active_W=choose(found, 40, rng=rng), silent=40, holds=holds, rng=rng
    )
    share = share_of(acts, text)
    search = explainer._Search(text, seen, trigger, share)
    options = search.options(np.zeros_like(search.counted_WB), MAX_WORDS)
    clauses = [option.clause(LEXICON) for option in options]
    kinds = {clause.context.kind for clause in clauses if clause.context}
    assert {"right-after", "shortly-after", "seen"} <= kinds
    for option, clause in zip(options, clauses):
        rule = Rule((clause,))
        expected_WB = text.fires(rule, seen.window_W)
        np.testing.assert_array_equal(option.fired_WB, expected_WB)
        cost = explainer.WORD_COST * rule.num_words + explainer.CONTEXT_COST * bool(clause.context)
        assert option.worth == pytest.approx(search.quality(expected_WB) - cost, abs=1e-12)
