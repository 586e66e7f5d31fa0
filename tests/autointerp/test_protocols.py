"""The three protocols on a synthetic text, against the sets of windows that they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import synthetic_text as synthetic

from clearnets.autointerp import protocols
from clearnets.autointerp.explainers import tokens
from clearnets.autointerp.protocols import Side, compare
from clearnets.autointerp.reading import Lexicon, read_rows
from clearnets.config import Overlap, load
from clearnets.latents import published
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


def side(seed: int, share: float, word: str | None = None, latent: int = 0) -> Side:
    """A latent that is active on a word, or anywhere at random."""
    rows_RS, text = text_of(seed)
    rng = np.random.default_rng([seed, latent])
    live_RS = synthetic.counted(rows_RS) & (rng.random(rows_RS.shape) < share)
    if word:
        live_RS &= np.isin(rows_RS, [i for i, s in enumerate(synthetic.STRINGS) if s == word])
    acts = rng.random(rows_RS.shape) * live_RS
    return Side(text, synthetic.entries(acts))  # pyright: ignore[reportArgumentType]


def active(examples) -> set[int]:
    return set(examples.window_W[: examples.num_active].tolist())


def silent(examples) -> set[int]:
    return set(examples.window_W[examples.num_active :].tolist())


@pytest.fixture
def shown(monkeypatch):
    """What the explainer was given and what the judge was asked, in order."""
    seen: dict[str, list] = {"train": [], "test": []}

    def explain(text, examples, **options):
        seen["train"].append(examples)
        return tokens_explain(text, examples, **options)

    def detection(fired, examples):
        seen["test"].append(examples)
        return detect(fired, examples)

    tokens_explain, detect = tokens.explain, protocols.detection
    monkeypatch.setattr(tokens, "explain", explain)
    monkeypatch.setattr(protocols, "detection", detection)
    return seen


def test_windows_are_shared_as_each_protocol_says(shown):
    explain, score = side(0, 0.03), side(1, 0.03)
    records = compare(explain, score, 0, SETTINGS, EXPLAINED, seed=5)
    assert [record["protocol"] for record in records] == list(protocols.PROTOCOLS)
    (train,), (delphi, disjoint, held_out) = shown["train"], shown["test"]
    found = activity(explain.cache, 0, explain.text.windows)
    assert active(delphi) == set(published.test(found.strongest_first, 50, quantiles=10))
    assert len(active(delphi) & active(train)) == records[0]["seen"] > 0
    assert not active(disjoint) & active(train)
    assert records[1]["seen"] == records[2]["seen"] == 0
    assert silent(delphi) == silent(disjoint)
    assert not silent(delphi) & silent(train)
    elsewhere = activity(score.cache, 0, score.text.windows)
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
