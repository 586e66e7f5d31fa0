"""The stages explain and score on a tiny corpus and hand-made caches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_text as synthetic
from tiny_caches import (
    DEAD,
    FREQUENT,
    GONE,
    LATENTS,
    LAYERS,
    RARE,
    RULES,
    RUNTIME,
    SIZE,
    acts_of,
    centred_by_hand,
    config,
    records,
    run_both,
)

from clearnets import UserError
from clearnets.autointerp import sampling
from clearnets.autointerp.delphi import sampler
from clearnets.autointerp.records import SPLITS
from clearnets.autointerp.rules.language import parse
from clearnets.autointerp.rules.matcher import Lexicon, read_rows
from clearnets.autointerp.scored_layer import ScoredLayer, rule_scores
from clearnets.autointerp.texts import open_texts
from clearnets.config import Config
from clearnets.latents.examples import activity
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json
from clearnets.stages import explain, score

TESTS = Path(__file__).parents[1]
POINT = "layers.0.mlp"

pytestmark = pytest.mark.usefixtures("tiny_caches")


def balanced(counts: dict[str, int]) -> float:
    right = counts["tp"] / (counts["tp"] + counts["fn"])
    return (right + counts["tn"] / (counts["tn"] + counts["fp"])) / 2


def test_every_latent_has_a_record_and_a_reason():
    run_both(config(latents=LATENTS))
    for layer in LAYERS:
        point = f"layers.{layer}.mlp"
        explained = records(paths.explain("native", 0, point))
        scored = records(paths.score("native", 0, point))
        assert list(explained) == list(scored) == list(range(LATENTS))
        status = {latent: record["status"] for latent, record in scored.items()}
        reasons = {DEAD: "dead", RARE: "too_rare", FREQUENT: "too_frequent", GONE: "unscorable"}
        assert status == {i: reasons.get(i, "explained") for i in range(LATENTS)}
        tokens_RS = synthetic.rows(0, 300)
        for latent, record in explained.items():
            live = acts_of(latent, "explain", layer, tokens_RS).astype(np.float16) > 0
            assert record["rate"] == pytest.approx(live.sum() / synthetic.counted(tokens_RS).sum())
            assert {key: scored[latent][key] for key in ("rate", "windows")} == {
                key: record[key] for key in ("rate", "windows")
            }
            sentence = record["explanation"]
            assert (sentence is None) == (latent in (DEAD, RARE, FREQUENT))
            assert sentence is None or parse(sentence).num_words <= 8
        for latent, record in scored.items():
            for key in ("detection", "fuzzing"):
                for name in (key, f"{key}_shuffled", f"{key}_elsewhere"):
                    assert (record[name] is None) == (latent in reasons)
                if one := record[key]:
                    assert one["tp"] + one["fn"] == one["tn"] + one["fp"] == 50
        for latent in range(len(RULES)):
            assert min(balanced(scored[latent][key]) for key in ("detection", "fuzzing")) > 0.95


def test_metrics_are_means_over_all_layers_that_are_there():
    settings = config(latents=LATENTS)
    run_both(settings)
    numbers = read_json(paths.metrics("score-native"))["seed-0"]
    scored = [
        r for x in LAYERS for r in records(paths.score("native", 0, f"layers.{x}.mlp")).values()
    ]
    assert (numbers["explained"], numbers["dead"], numbers["unscorable"]) == (16, 2, 2)
    for key in ("detection", "fuzzing"):
        values = [balanced(record[key]) for record in scored if record[key]]
        assert numbers[f"rule_{key}"] == pytest.approx(np.mean(values), abs=1e-6)
        values = [r[f"{key}_shuffled"] for r in scored if r[f"{key}_shuffled"] is not None]
        assert numbers[f"rule_{key}_shuffled"] == pytest.approx(np.mean(values), abs=1e-6)


def test_layers_complete_each_other_and_nothing_is_done_twice():
    settings = config()
    run_both(settings, layers=(1,))
    assert not paths.score("native", 0, POINT).exists()
    first = (paths.score("native", 0, "layers.1.mlp") / "manifest.json").stat().st_mtime_ns
    numbers = read_json(paths.metrics("score-native"))["seed-0"]
    assert sum(numbers[key] for key in ("explained", "dead", "too_rare", "too_frequent")) <= 10
    run_both(settings)
    assert (paths.score("native", 0, "layers.1.mlp") / "manifest.json").stat().st_mtime_ns == first
    whole = {path: path.read_bytes() for path in Path("artifacts").rglob("*.json*")}
    run_both(settings, layers=(0,))
    run_both(settings)
    assert whole == {path: path.read_bytes() for path in Path("artifacts").rglob("*.json*")}


def test_latents_are_drawn_from_all_with_a_name():
    first, again = sampling.draw(1000, 50, 1), sampling.draw(1000, 50, 1)
    assert first == again != sampling.draw(1000, 50, 2)
    assert first == sorted(set(first))
    assert max(first) > 900
    assert sampling.draw(8, 100, 0) == list(range(8))
    settings = config(latents=6)
    run_both(settings)
    drawn = [set(records(paths.explain("native", 0, f"layers.{x}.mlp"))) for x in LAYERS]
    assert [len(latents) for latents in drawn] == [6, 6]
    assert drawn[0] != drawn[1]


def test_shuffled_scores_are_those_of_all_other_latents_sentences():
    settings = config(latents=LATENTS)
    run_both(settings, layers=(0,))
    explained = records(paths.explain("native", 0, POINT))
    scored = records(paths.score("native", 0, POINT))
    (unit,) = score.units(settings, family="native", layers=(0,))
    texts = open_texts("score")
    trials = ScoredLayer.of(settings.score, ("native", POINT, 0), unit.inputs, texts).trials
    there = [latent for latent in explained if scored[latent]["detection"]]
    assert there == list(trials)
    accuracy = {}
    for judged in there:
        for giver in there:
            # A latent with another's sentence in its record, scored by itself.
            record = explained[judged] | {"explanation": explained[giver]["explanation"]}
            (alone,) = rule_scores([record], {judged: trials[judged]})
            for key in ("detection", "fuzzing"):
                accuracy[key, judged, giver] = balanced(alone[key])
    for key in ("detection", "fuzzing"):
        for latent in there:
            others = [other for other in there if other != latent]
            assert balanced(scored[latent][key]) == accuracy[key, latent, latent]
            for name, pairs in (
                ("shuffled", [(key, latent, other) for other in others]),
                ("elsewhere", [(key, other, latent) for other in others]),
            ):
                expected = np.mean([accuracy[pair] for pair in pairs])
                assert scored[latent][f"{key}_{name}"] == pytest.approx(expected, abs=1e-6)


def test_a_family_without_layers_has_one_place():
    run_both(config(), family="token-unigram")
    assert len(records(paths.score("token-unigram", 0, "tokens"))) == 10
    units = score.units(config(), family="token-unigram", layers=(0, 1))
    assert [unit.out for unit in units] == [paths.score("token-unigram", 0, "tokens")]


def test_missing_inputs_name_the_stage_that_makes_them():
    with pytest.raises(UserError, match="dvc repro cache@sae"):
        explain.run(config(), runtime=RUNTIME, family="sae", layers=(0,))
    with pytest.raises(UserError, match="dvc repro explain@native"):
        score.run(config(), runtime=RUNTIME, family="native", layers=(0,))


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import tiny_caches
from clearnets.pipeline.artifacts import JsonlWriter
from clearnets.stages import score

kill_at, layer_at = map(int, sys.argv[1:])
append, written, write_jsonl, layers = JsonlWriter.append, 0, score.write_jsonl, 0

def killed(self, record):
    global written
    written += 1
    if written == kill_at:
        self._file.write(b'{{"latent": 3, "sta')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, record)

def killed_before(path, records):
    global layers
    layers += 1
    if layers == layer_at:
        os.kill(os.getpid(), signal.SIGKILL)
    write_jsonl(path, records)

JsonlWriter.append, score.write_jsonl = killed, killed_before
tiny_caches.run_both(tiny_caches.config())
print(*sys.modules)
"""


def run_killed(kill_at: int = 0, layer_at: int = 0) -> subprocess.CompletedProcess:
    script = SCRIPT.format(tests=str(TESTS))
    return subprocess.run(
        [sys.executable, "-c", script, str(kill_at), str(layer_at)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        check=False,
    )


def test_a_killed_run_goes_on_and_writes_the_same_bytes():
    """Killed in the middle of an explanation, and while the second layer is scored."""
    done = run_killed()
    assert done.returncode == 0, done.stderr
    modules = {name.split(".")[0] for name in done.stdout.split()}
    assert not modules & {"torch", "transformers", "sparsify", "delphi"}
    straight = {path: path.read_bytes() for path in Path("artifacts").rglob("*.json*")}
    for stage in ("explain", "score"):
        for path in Path("artifacts", stage).rglob("*.json*"):
            path.unlink()
    paths.metrics("score-native").unlink()
    assert run_killed(kill_at=5).returncode == -signal.SIGKILL
    unfinished = Path(".clearnets/work/explain").glob("*/out/explanations.jsonl")
    assert [len(path.read_bytes().splitlines()) for path in unfinished] == [5]
    assert run_killed(layer_at=2).returncode == -signal.SIGKILL
    finished = Path(".clearnets/work/score").glob("*/out/scores.jsonl")
    assert [len(path.read_bytes().splitlines()) for path in finished] == [10]
    assert run_killed().returncode == 0
    assert straight == {path: path.read_bytes() for path in Path("artifacts").rglob("*.json*")}
    assert not list(Path(".clearnets/work").glob("*/*"))


def test_under_delphis_protocol_windows_are_drawn_from_one_text_as_it_does(used):
    settings = config(latents=4, protocol="delphi", n_examples_train=40)
    run_both(settings, layers=(0,))
    cache = load_layer(paths.cache("native", 0, "explain"), POINT)
    latents = [i for i, r in records(paths.score("native", 0, POINT)).items() if r["detection"]]
    assert len(latents) == len(used["explain"]) == len(used["score"]) > 0
    for latent, (text, train), (_, test) in zip(latents, used["explain"], used["score"]):
        pool = activity(cache, latent, text.windows).strongest_first
        active = test.window_W[: test.num_active]
        assert set(active) == set(sampler.test(pool, 50, quantiles=10))
        assert len(np.intersect1d(active, train.window_W[: train.num_active])) >= 10
        assert not np.intersect1d(test.window_W[test.num_active :], train.window_W).size


@pytest.mark.parametrize("kind", ["random", "co-occurrence"])
def test_non_activating_windows_of_each_kind_are_judged(kind):
    settings = config(latents=LATENTS, non_activating=kind)
    values = settings.model_dump(mode="json")
    values["score"]["non_activating"] = kind
    settings = Config.model_validate(values, strict=False)
    run_both(settings, layers=(0,))
    for record in records(paths.score("native", 0, POINT)).values():
        if one := record["detection"]:
            assert one["tp"] + one["fn"] == one["tn"] + one["fp"] == 50


def test_neighbours_by_weights_need_a_coder():
    with pytest.raises(UserError, match="native does not have; choose co-occurrence"):
        run_both(config(non_activating="decoder-similarity"))


def test_explanations_of_another_protocol_are_not_scored():
    explain.run(config(), runtime=RUNTIME, family="native", layers=(0,))
    with pytest.raises(UserError, match="made under protocol held-out; run `dvc repro"):
        score.run(config(protocol="delphi"), runtime=RUNTIME, family="native", layers=(0,))


@pytest.mark.parametrize("protocol", ["held-out", "delphi"])
def test_centred_windows_have_the_strongest_activation_in_their_middle(used, protocol):
    settings = config(latents=LATENTS, center_examples=True, protocol=protocol)
    run_both(settings, layers=(0,))
    scored = records(paths.score("native", 0, POINT))
    latents = [latent for latent, record in scored.items() if record["detection"]]
    assert len(latents) == len(used["score"]) > 5
    # A latent that cannot be scored has been explained all the same.
    there = [i for i in scored if scored[i]["status"] in ("explained", "unscorable")]
    where = {"explain": there, "score": latents}
    middle = edge = 0
    for stage, split in (("explain", "explain"), ("score", SPLITS[protocol])):
        tokens_RS = synthetic.rows(int(split == "score"), 300)
        counted = synthetic.counted(tokens_RS)
        for latent, (text, examples) in zip(where[stage], used[stage], strict=True):
            acts = acts_of(latent, split, 0, tokens_RS).astype(np.float16)
            starts = centred_by_hand(acts, counted)
            allowed = {(row, start): top for (row, top), start in starts.items()}
            windows = text.windows.these(examples.window_W)
            places = list(zip(windows.row_N.tolist(), windows.start_N.tolist()))
            for number, (row, start) in enumerate(places):
                piece = slice(start, start + SIZE)
                live = (acts[row, piece] > 0) & counted[row, piece]
                np.testing.assert_array_equal(examples.active_WL[number], live)
                if number >= examples.num_active:
                    assert start % SIZE == 0
                    assert not live.any()
                    continue
                top = allowed[row, start]
                assert acts[row, top] > 0
                middle += top - start == SIZE // 2
                edge += top - start != SIZE // 2
    # Documents have 30 to 62 tokens and windows 16.
    assert middle > 2 * edge > 0


def test_fewer_windows_than_quantiles_are_no_fault_under_delphis_protocol():
    """delphi draws none of them: to explain they are too few, and to score as well."""
    tokens_RS = synthetic.rows(0, 300)
    text = read_rows(tokens_RS, synthetic.counted, Lexicon(synthetic.STRINGS), size=SIZE)
    acts = acts_of(RARE, "explain", 0, tokens_RS)
    there = len({*zip(*np.nonzero(text.windows.cut(acts))[:1])})
    assert 2 < there < 20
    for quantiles, train, test in ((there, there, there + 1), (there + 1, there + 1, 10)):
        settings = config(latents=LATENTS, protocol="delphi", min_windows=2, n_quantiles=train)
        values = settings.model_dump(mode="json")
        values["score"] |= {"n_quantiles": test, "n_examples_test": 50}
        run_both(Config.model_validate(values, strict=False), layers=(0,))
        explained = records(paths.explain("native", 0, POINT))[RARE]
        scored = records(paths.score("native", 0, POINT))[RARE]
        status = {there: ("explained", "unscorable"), there + 1: ("too_rare", "too_rare")}
        assert (explained["status"], scored["status"]) == status[quantiles]
        assert (explained["explanation"] is None) == (explained["status"] == "too_rare")
        assert scored["detection"] is None
