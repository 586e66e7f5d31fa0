"""Explanations to read: of each third of the scores one, with windows as they are in the cache."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import small_world as world

from clearnets.autointerp.records import EXPLANATIONS, SCORED
from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.texts import open_texts
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.stages import sample

FAMILIES = ("topk-native", "transcoder")  # Of the one primary contrast here.


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def tables(place):
    """Both tables, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        sample.run(world.config(), runtime=world.RUNTIME)
    files = {
        name: place / paths.sampled() / f"{name}.csv" for name in ("sampled", "sampled_tokens")
    }
    return {name: list(csv.DictReader(file.open(newline=""))) for name, file in files.items()}


def accuracies(family: str) -> dict[tuple[str, int], float]:
    """The balanced accuracy of each scored latent, from its counts."""
    found = {}
    for point in world.config().hookpoints(family):
        for record in read_jsonl(paths.score(family, 0, point) / SCORED):
            if n := record["detection"]:
                hit, right = n["tp"] / (n["tp"] + n["fn"]), n["tn"] / (n["tn"] + n["fp"])
                found[point, record["latent"]] = (hit + right) / 2
    return found


def point_of(row) -> str:
    return f"layers.{row['layer']}.mlp"


def test_one_of_each_third_of_each_family_the_good_first(tables):
    rows = tables["sampled"]
    parts = [part for part in ("good", "middling", "poor") for _ in FAMILIES]
    assert [row["part"] for row in rows] == parts
    assert [row["family"] for row in rows] == [*FAMILIES] * 3
    for family in FAMILIES:
        scores = accuracies(family)
        ranked = sorted(scores.values(), reverse=True)
        ends = [third[[0, -1]] for third in np.array_split(np.array(ranked), 3)]
        for row, (best, worst) in zip([r for r in rows if r["family"] == family], ends):
            score = scores[point_of(row), int(row["latent"])]
            assert float(row["score"]) == pytest.approx(score)
            assert best >= score >= worst
            told = read_jsonl(paths.explain(family, 0, point_of(row)) / EXPLANATIONS)
            own = next(record for record in told if record["latent"] == int(row["latent"]))
            assert row["explanation"] == own["explanation"]


def test_windows_hold_the_tokens_activations_and_firings_of_held_out_text(tables):
    texts = open_texts("score")
    text = texts.of(world.config().explain.window)
    for row in tables["sampled"]:
        cache = load_layer(paths.cache(row["family"], 0, "score"), point_of(row))
        act_RS = np.zeros(texts.tokens_RS.shape, np.float32)
        here = cache.entries(int(row["latent"]))
        act_RS[cache.row[here], cache.position[here]] = cache.act[here]
        act_NL = text.windows.cut(np.where(text.windows.counted_RS, act_RS, 0))
        bits_NB = text.fires(parse(row["explanation"]))
        fires_NL = np.unpackbits(bits_NB.view(np.uint8), axis=-1, count=text.windows.size)
        strings_NL = [[texts.strings[t] for t in w] for w in text.windows.cut(texts.tokens_RS)]
        shown = [
            t
            for t in tables["sampled_tokens"]
            if (t["family"], t["part"]) == (row["family"], row["part"])
        ]
        peaks = []
        for number in ("1", "2"):
            window = [token for token in shown if token["window"] == number]
            at = [int(token["place"]) for token in window]
            (n,) = (
                n
                for n, strings in enumerate(strings_NL)
                if [strings[p] for p in at] == [token["text"] for token in window]
                and act_NL[n].any()
                and np.allclose(
                    act_NL[n, at] / act_NL.max(), [float(t["share"]) for t in window], atol=1e-2
                )
            )
            assert [int(token["fires"]) for token in window] == fires_NL[n, at].tolist()
            peaks.append(act_NL[n].max())
        assert peaks[0] == act_NL.max() >= peaks[1] > 0
