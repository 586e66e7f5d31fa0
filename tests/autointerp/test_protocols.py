"""The three protocols on a synthetic text, against the sets of windows that they say."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic_text as synthetic

from clearnets.autointerp import protocols
from clearnets.autointerp.delphi import sampler
from clearnets.autointerp.protocols import Side, compare
from clearnets.autointerp.rules import explainer
from clearnets.autointerp.rules.matcher import Lexicon, read_rows
from clearnets.autointerp.sampling import Negatives
from clearnets.config import NonActivating, Overlap, load
from clearnets.latents.examples import activity

SIZE = 16
EXPLAINED = load().explain.model_copy(update={"window": SIZE})
SETTINGS = Overlap(
    latents=1,
    n_examples_train=40,
    n_examples_test=50,
    n_quantiles=10,
    n_non_activating=50,
    seed=0,
)


@cache
def text_of(seed: int):
    rows_RS = synthetic.rows(seed, 400)
    lexicon = Lexicon(synthetic.STRINGS)
    return rows_RS, read_rows(rows_RS, synthetic.counted, lexicon, size=SIZE)


def side(
    seed: int,
    share: float,
    word: str | None = None,
    latent: int = 0,
    kind: NonActivating = "trigger",
) -> Side:
    """A latent that is active on a word, or anywhere at random."""
    rows_RS, text = text_of(seed)
    rng = np.random.default_rng([seed, latent])
    live_RS = synthetic.counted(rows_RS) & (rng.random(rows_RS.shape) < share)
    if word:
        live_RS &= np.isin(rows_RS, [i for i, s in enumerate(synthetic.STRINGS) if s == word])
    acts = rng.random(rows_RS.shape) * live_RS
    cache = synthetic.entries(acts)
    return Side(text, cache, Negatives(kind))  # pyright: ignore[reportArgumentType]


def drawn_by_hand(seed: int, share: float) -> set[int]:
    """50 windows, five from each tenth by strength, from the activations alone."""
    rows_RS, _ = text_of(seed)
    one = side(seed, share).cache
    acts = dict(zip(zip(one.row.tolist(), one.position.tolist()), one.act.tolist()))
    counted = synthetic.counted(rows_RS)
    used = [
        (row, first)
        for row in range(len(rows_RS))
        for first in range(0, synthetic.CTX, SIZE)
        if 2 * counted[row, first : first + SIZE].sum() >= SIZE
    ]
    peak = {}
    for number, (row, first) in enumerate(used):
        strengths = [acts.get((row, first + place), 0.0) for place in range(SIZE)]
        if max(strengths) > 0:
            peak[number] = max(strengths)
    strongest = sorted(peak, key=lambda number: -peak[number])
    size, rng = len(strongest) // 10, random.Random(22)
    return {
        number
        for tenth in range(10)
        for number in rng.sample(strongest[tenth * size : (tenth + 1) * size], 5)
    }


def active(examples) -> set[int]:
    return set(examples.window_W[: examples.num_active].tolist())


def silent(examples) -> set[int]:
    return set(examples.window_W[examples.num_active :].tolist())


@pytest.fixture
def shown(monkeypatch):
    """What the explainer was given and what the judge was asked, in order."""
    seen: dict[str, list] = {"train": [], "test": [], "trigger": [], "rule": []}

    def explain(text, examples, *, trigger, **options):
        seen["train"].append(examples)
        seen["trigger"].append(trigger)
        rule = tokens_explain(text, examples, trigger=trigger, **options)
        seen["rule"].append(rule)
        return rule

    def detection(fired, examples):
        seen["test"].append(examples)
        return detect(fired, examples)

    tokens_explain, detect = explainer.explain, protocols.detection
    monkeypatch.setattr(explainer, "explain", explain)
    monkeypatch.setattr(protocols, "detection", detection)
    return seen


def test_windows_are_shared_as_each_protocol_says(shown):
    explain, score = side(0, 0.03), side(1, 0.03)
    records = compare(explain, score, 0, SETTINGS, EXPLAINED, seed=5)
    assert [record["protocol"] for record in records] == ["delphi", "disjoint", "held-out"]
    (train,), (delphi, disjoint, held_out) = shown["train"], shown["test"]
    found = activity(explain.cache, 0, explain.text.windows)
    assert active(delphi) == set(sampler.test(found.strongest_first, 50, quantiles=10))
    assert len(active(delphi) & active(train)) == records[0]["seen"] > 0
    assert not active(disjoint) & active(train)
    assert records[1]["seen"] == records[2]["seen"] == 0
    assert silent(delphi) == silent(disjoint)
    assert not silent(delphi) & silent(train)
    elsewhere = activity(score.cache, 0, score.text.windows)
    assert active(held_out) == drawn_by_hand(1, 0.03)
    assert active(held_out) <= set(elsewhere.active_A)
    assert all(record["positives"] == 50 for record in records)
    for one in (train, delphi, disjoint, held_out):
        assert len(silent(one)) == 50


def test_overlap_is_worth_nothing_to_a_rule_that_holds():
    records = compare(side(0, 1.0, " fox"), side(1, 1.0, " fox"), 0, SETTINGS, EXPLAINED, seed=5)
    for record in records:
        assert (record["detection_tp"], record["detection_tn"]) == (record["positives"], 50)


def test_overlap_pays_where_there_is_nothing_to_learn():
    gained = []
    for latent in range(40):
        explain, score = (side(seed, 0.006, latent=latent) for seed in (0, 1))
        by = {r["protocol"]: r for r in compare(explain, score, 0, SETTINGS, EXPLAINED, latent)}
        recall = {name: by[name]["detection_tp"] / by[name]["positives"] for name in by}
        gained.append(recall["delphi"] - recall["disjoint"])
    assert np.mean(gained) > 2 * np.std(gained) / np.sqrt(len(gained))


def test_a_latent_with_too_few_windows_says_why():
    busy, rare, never = side(0, 0.03), side(1, 0.0005), side(2, 0.0)
    assert [r["status"] for r in compare(never, busy, 0, SETTINGS, EXPLAINED, 0)] == ["dead"]
    assert [r["status"] for r in compare(rare, busy, 0, SETTINGS, EXPLAINED, 0)] == ["too_rare"]
    assert [r["status"] for r in compare(busy, rare, 0, SETTINGS, EXPLAINED, 0)] == ["unscorable"]


def test_a_latent_with_fewer_windows_than_quantiles_cannot_be_scored():
    """Delphi draws none of them; of as many as there are quantiles it draws each."""
    least = EXPLAINED.model_copy(update={"min_windows": 2})
    rare, busy = side(1, 0.0012), side(0, 0.03)
    there = len(activity(rare.cache, 0, rare.text.windows).active_A)
    assert there >= least.min_windows
    for quantiles, status in ((there + 1, "unscorable"), (there, "explained")):
        settings = SETTINGS.model_copy(update={"n_quantiles": quantiles})
        records = compare(busy, rare, 0, settings, least, 0)
        assert {record["status"] for record in records} == {status}
    assert records[-1]["positives"] == there


@pytest.mark.parametrize("kind", ["trigger", "random"])
def test_the_explainer_reads_its_own_windows_alone(kind, shown):
    """Whatever the latent does in the other windows of the text: the rule is the same."""
    explain, score = (side(seed, 0.05, kind=kind) for seed in (0, 1))
    compare(explain, score, 0, SETTINGS, EXPLAINED, seed=5)
    (train,) = shown["train"]
    cache, windows = explain.cache, explain.text.windows
    window_E = windows.number_RK[cache.row, cache.position // SIZE]
    # In the others it is now active on one word, by far most often, and on the same windows.
    others_E = ~np.isin(window_E, list(active(train)))
    word_RS = explain.text.rows.word_RS
    the = explain.text.lexicon.id("the")
    position_E = cache.position.copy()
    for entry in np.flatnonzero(others_E & (window_E >= 0)).tolist():
        first = position_E[entry] // SIZE * SIZE
        places = np.flatnonzero(word_RS[cache.row[entry], first : first + SIZE] == the)
        if len(places):
            position_E[entry] = first + places[0]
    changed = SimpleNamespace(**{**vars(cache), "position": position_E})
    before = explainer.trigger(explain.text, activity(cache, 0, windows))
    assert explainer.trigger(explain.text, activity(changed, 0, windows)) == "the" != before
    compare(replace(explain, cache=changed), score, 0, SETTINGS, EXPLAINED, seed=5)
    first, second = shown["train"]
    assert active(first) == active(second)
    assert silent(first) == silent(second)
    assert shown["trigger"][0] == shown["trigger"][1] != "the"
    assert shown["rule"][0] == shown["rule"][1]


@pytest.mark.parametrize("kind", ["trigger", "random"])
def test_silent_windows_are_of_the_kind_that_explain_names(kind, shown):
    explain, score = (side(seed, 0.5, " fox", kind=kind) for seed in (0, 1))
    compare(explain, score, 0, SETTINGS, EXPLAINED, seed=5)
    hard = [int(one.hard_W.sum()) for one in (*shown["train"], *shown["test"])]
    assert (max(hard) == 0) == (kind == "random")
    assert min(hard) > 0 or kind == "random"
