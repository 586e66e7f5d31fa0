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
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from clearnets import UserError
from clearnets.autointerp import sampling
from clearnets.autointerp.delphi import sampler
from clearnets.autointerp.rules import explainer
from clearnets.autointerp.rules import judge as rules
from clearnets.autointerp.rules.language import Clause, Context, Rule, parse
from clearnets.autointerp.rules.matcher import Lexicon, read, read_rows
from clearnets.config import Config, load
from clearnets.data.tokens import open_tokens
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_json, read_jsonl, write_json
from clearnets.pipeline.runtime import Runtime, seed_for
from clearnets.stages import explain, score

TESTS = Path(__file__).parents[1]
SIZE, LATENTS, LAYERS = 16, 12, (0, 1)
RULES = [
    Rule((Clause(("said", "asked"), Context("closed-quotation")),)),
    Rule((Clause((), Context("inside-quotation")),)),
    Rule((Clause(("fox",)),)),
    Rule((Clause(("dog",), Context("seen")),)),
]
DEAD, RARE, FREQUENT, GONE = 4, 5, 6, 7
RUNTIME = Runtime(device="cpu", threads=1)


def config(**changes) -> Config:
    values = load(TESTS.parent / "params.yaml").model_dump(mode="json")
    values["data"]["ctx_len"] = synthetic.CTX
    values["model"]["num_layers"] = len(LAYERS)
    values["explain"] |= {"window": SIZE, "latents": 10} | changes
    return Config.model_validate(values, strict=False)


def make_data() -> None:
    for _, work in build_all([Unit("data", paths.data(), {}, {})]):
        (work.out / "tokenizer").mkdir()
        vocab = {string: token for token, string in enumerate(synthetic.STRINGS)}
        tokenizer = Tokenizer(WordLevel(vocab, unk_token="<pad>"))
        tokenizer.save(str(work.out / "tokenizer" / "tokenizer.json"))
        special = {"pad": synthetic.PAD, "bos": synthetic.BOS, "eos": synthetic.EOS}
        sizes = {"vocab_size": len(vocab), "ctx_len": synthetic.CTX}
        write_json(work.out / "meta.json", {**sizes, **special, "concepts": []})
        (work.out / "tokens").mkdir()
        for seed, split in enumerate(("explain", "score")):
            np.save(work.out / "tokens" / f"{split}.npy", synthetic.rows(seed, 300))


def acts_of(latent: int, split: str, layer: int, tokens_RS: np.ndarray) -> np.ndarray:
    """Latents with a rule, and one for each way to have no score; the rest are random."""
    counted_RS = synthetic.counted(tokens_RS)
    rng = np.random.default_rng([latent, layer, split == "score"])
    random_RS = rng.random(tokens_RS.shape) * counted_RS
    if latent < len(RULES):
        text = read_rows(tokens_RS, synthetic.counted, Lexicon(synthetic.STRINGS), size=SIZE)
        bits = text.fires(RULES[latent], np.arange(len(text.windows)))
        acts = np.zeros(tokens_RS.shape)
        by_window = acts.reshape(len(acts), -1, SIZE)
        fired = np.unpackbits(bits.view(np.uint8), axis=-1, count=SIZE)
        by_window[text.windows.row_N, text.windows.slot_N] = fired
        return acts * (0.5 + random_RS)
    if latent == DEAD or (latent == GONE and split == "score"):
        return np.zeros(tokens_RS.shape)
    if latent == RARE:
        return random_RS * (np.arange(len(tokens_RS)) < 3)[:, None]
    return random_RS if latent == FREQUENT else random_RS * (random_RS > 0.98)


def make_cache(family: str, points: dict[str, int], num_latents: int = LATENTS) -> None:
    for seed, split in enumerate(("explain", "score")):
        tokens_RS = synthetic.rows(seed, 300)
        for _, work in build_all([Unit("cache", paths.cache(family, 0, split), {}, {})]):
            for point, layer in points.items():
                acts = [acts_of(i, split, layer, tokens_RS) for i in range(num_latents)]
                latent, row, position = np.nonzero(np.stack(acts))
                locations = np.stack([row, position, latent], axis=1).astype(np.uint16)
                act_E = np.stack(acts)[latent, row, position].astype(np.float16)
                folder = work.out / point
                folder.mkdir()
                entries = {"locations": locations, "activations": act_E}
                save_file(entries, folder / f"0_{num_latents - 1}.safetensors")
                write_json(folder / "config.json", {"num_latents": num_latents})


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data()
    make_cache("native", {f"layers.{layer}.mlp": layer for layer in LAYERS})


def run_both(settings: Config, family="native", layers=LAYERS) -> None:
    explain.run(settings, runtime=RUNTIME, family=family, layers=layers)
    score.run(settings, runtime=RUNTIME, family=family, layers=layers)


def records(folder: Path) -> dict[int, dict]:
    found = read_jsonl(next(folder.glob("*.jsonl")))
    assert [r["latent"] for r in found] == sorted({r["latent"] for r in found})
    return {record["latent"]: record for record in found}


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
    assert not paths.score("native", 0, "layers.0.mlp").exists()
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
    run_both(settings)
    point = "layers.0.mlp"
    explained = records(paths.explain("native", 0, point))
    scored = records(paths.score("native", 0, point))
    text = read(open_tokens(paths.data()), "score", size=SIZE)
    cache = load_layer(paths.cache("native", 0, "score"), point)
    draws = score.Draws(("native", point, 0), settings.explain, None, sampling.Negatives("trigger"))
    trials = {}
    for latent, record in explained.items():
        seed = seed_for(settings.score.seed, "score", "native", point, 0, latent)
        trials[latent] = score.prepare(text, cache, record, settings.score, draws, seed)
    there = [latent for latent in explained if scored[latent]["detection"]]
    assert there == [latent for latent, trial in trials.items() if trial]
    accuracy = {}
    for judged in there:
        for giver in there:
            # A latent with another's sentence in its record, scored by itself.
            record = explained[judged] | {"explanation": explained[giver]["explanation"]}
            (alone,) = score.score_latents([record], {judged: trials[judged]})
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
    make_cache("token-unigram", {"tokens": 0})
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
sys.path[:0] = [{tests!r}, {stages!r}]
import test_explain_score as test
from clearnets.pipeline.artifacts import JsonlWriter
from clearnets.stages import score

kill_at, layer_at = map(int, sys.argv[1:])
append, written, write_text, layers = JsonlWriter.append, 0, score.write_text, 0

def killed(self, record):
    global written
    written += 1
    if written == kill_at:
        self._file.write(b'{{"latent": 3, "sta')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, record)

def killed_before(path, text):
    global layers
    layers += 1
    if layers == layer_at:
        os.kill(os.getpid(), signal.SIGKILL)
    write_text(path, text)

JsonlWriter.append, score.write_text = killed, killed_before
test.run_both(test.config())
print(*sys.modules)
"""


def run_killed(kill_at: int = 0, layer_at: int = 0) -> subprocess.CompletedProcess:
    script = SCRIPT.format(tests=str(TESTS), stages=str(TESTS / "stages"))
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


def test_under_delphis_protocol_windows_are_drawn_from_one_text_as_it_does(monkeypatch):
    shown: dict[str, list] = {"explain": [], "score": []}
    to_explain, to_score = sampling.to_explain, sampling.to_score

    def explained(*here, **how):
        shown["explain"].append(found := to_explain(*here, **how))
        return found

    def scored(*here, **how):
        shown["score"].append((here[3], found := to_score(*here, **how)))
        return found

    monkeypatch.setattr(sampling, "to_explain", explained)
    monkeypatch.setattr(sampling, "to_score", scored)
    settings = config(latents=4, protocol="delphi", n_examples_train=40)
    explain.run(settings, runtime=RUNTIME, family="native", layers=(0,))
    first = list(shown["explain"])
    shown["explain"].clear()
    score.run(settings, runtime=RUNTIME, family="native", layers=(0,))
    assert len(first) == len(shown["score"]) > 0
    for train, again, (found, test) in zip(first, shown["explain"], shown["score"]):
        np.testing.assert_array_equal(train.window_W, again.window_W)
        pool = found.strongest_first
        expected = sampler.test(pool, 50, quantiles=10)
        active = test.window_W[: test.num_active]
        assert set(active) == set(expected)
        seen = np.intersect1d(active, train.window_W[: train.num_active])
        assert len(seen) >= 10
        silent = test.window_W[test.num_active :]
        assert not np.intersect1d(silent, train.window_W).size


@pytest.mark.parametrize("kind", ["random", "co-occurrence"])
def test_silent_windows_of_each_kind_are_silent(kind):
    settings = config(latents=LATENTS, non_activating=kind)
    values = settings.model_dump(mode="json")
    values["score"]["non_activating"] = kind
    settings = Config.model_validate(values, strict=False)
    run_both(settings, layers=(0,))
    for record in records(paths.score("native", 0, "layers.0.mlp")).values():
        if one := record["detection"]:
            assert one["tp"] + one["fn"] == one["tn"] + one["fp"] == 50


def test_neighbours_by_weights_need_a_coder():
    with pytest.raises(UserError, match="native does not have; choose co-occurrence"):
        run_both(config(non_activating="decoder-similarity"))


def test_explanations_of_another_protocol_are_not_scored():
    explain.run(config(), runtime=RUNTIME, family="native", layers=(0,))
    with pytest.raises(UserError, match="made under protocol held-out; run `dvc repro"):
        score.run(config(protocol="delphi"), runtime=RUNTIME, family="native", layers=(0,))


def centred_by_hand(acts: np.ndarray, counted: np.ndarray) -> dict[tuple[int, int], int]:
    """By row and place of the maximum: where a window begins that is centred on it."""
    starts = {}
    for row, first in np.ndindex(len(acts), synthetic.CTX // SIZE):
        grid = range(first * SIZE, (first + 1) * SIZE)
        live = [acts[row, p] if counted[row, p] else 0 for p in grid]
        if 2 * sum(counted[row, p] for p in grid) < SIZE or not max(live):
            continue
        top = begin = grid[int(np.argmax(live))]
        end = top + 1
        while begin > 0 and counted[row, begin - 1]:
            begin -= 1
        while end < synthetic.CTX and counted[row, end]:
            end += 1
        start = min(max(top - SIZE // 2, begin), end - SIZE)
        starts[row, top] = start if start >= begin else grid[0]
    return starts


@pytest.mark.parametrize("protocol", ["held-out", "delphi"])
def test_centred_windows_have_the_strongest_activation_in_their_middle(monkeypatch, protocol):
    shown: dict[str, list] = {"explain": [], "score": []}
    learn, judge = explainer.explain, rules.judge_all

    def explained(text, examples, **options):
        shown["explain"].append((text, examples))
        return learn(text, examples, **options)

    def judged(trials, sentences):
        shown["score"] += [(trial.text, trial.examples) for trial in trials]
        return judge(trials, sentences)

    monkeypatch.setattr(explainer, "explain", explained)
    monkeypatch.setattr(rules, "judge_all", judged)
    settings = config(latents=LATENTS, center_examples=True, protocol=protocol)
    run_both(settings, layers=(0,))
    scored = records(paths.score("native", 0, "layers.0.mlp"))
    latents = [latent for latent, record in scored.items() if record["detection"]]
    assert len(latents) == len(shown["score"]) > 5
    # A latent that cannot be scored has been explained all the same.
    told = [latent for latent in scored if scored[latent]["status"] in ("explained", "unscorable")]
    where = {"explain": told, "score": latents}
    middle = edge = 0
    for stage, split in (("explain", "explain"), ("score", score.SPLITS[protocol])):
        tokens_RS = synthetic.rows(int(split == "score"), 300)
        counted = synthetic.counted(tokens_RS)
        for latent, (text, examples) in zip(where[stage], shown[stage], strict=True):
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
        explained = records(paths.explain("native", 0, "layers.0.mlp"))[RARE]
        scored = records(paths.score("native", 0, "layers.0.mlp"))[RARE]
        status = {there: ("explained", "unscorable"), there + 1: ("too_rare", "too_rare")}
        assert (explained["status"], scored["status"]) == status[quantiles]
        assert (explained["explanation"] is None) == (explained["status"] == "too_rare")
        assert scored["detection"] is None
