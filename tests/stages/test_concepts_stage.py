"""The stage concepts on a small language with labels and hand-made caches and explanations."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_text as synthetic
from safetensors.numpy import save_file
from sklearn.metrics import f1_score
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel

from clearnets import UserError
from clearnets.autointerp.rules.word_classes import CLASSES, NO_CLASSES
from clearnets.config import Config, load
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_json, to_line, write_json, write_text
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import concepts

PARAMS = Path(__file__).parents[2] / "params.yaml"
LATENTS, LAYERS, ROWS = 8, (0, 1), 120
NAMES = ("name", "speech", "repeated", "nowhere")
SPLITS = ("concept_fit", "concept_test")
RULES = {
    0: '"Tom", "Mia", "Max" or "Eve".',
    1: 'The word "said".',
    2: 'The word "fox".',
    3: 'The word "owl".',
}


def config(**corpus) -> Config:
    values = load(PARAMS).model_dump(mode="json")
    values["data"]["ctx_len"] = synthetic.CTX
    values["model"]["num_layers"] = len(LAYERS)
    values["concepts"] |= {"candidates": 8, "resamples": 10}
    values["data"]["corpus"] = corpus or values["data"]["corpus"]
    return Config.model_validate(values, strict=False)


def hookpoint(layer: int) -> str:
    return f"layers.{layer}.mlp"


def tokens_of(split: str) -> np.ndarray:
    return synthetic.rows(SPLITS.index(split), ROWS)


def truth_of(split: str) -> np.ndarray:
    """(concepts, rows, positions): two sets of words, and nouns that stand earlier in the row."""
    tokens_RS = tokens_of(split)
    words = [[f" {w}" for w in group] for group in (synthetic.NAMES, synthetic.SPEECH)]
    sets = [np.isin(tokens_RS, [synthetic.ID[w] for w in group]) for group in words]
    nouns_RS = np.isin(tokens_RS, [synthetic.ID[f" {w}"] for w in synthetic.NOUNS])
    seen_RS = np.zeros_like(nouns_RS)
    for row, tokens_S in enumerate(tokens_RS.tolist()):
        for position, token in enumerate(tokens_S):
            seen_RS[row, position] = token in tokens_S[:position]
    return np.stack([*sets, nouns_RS & seen_RS, np.zeros_like(seen_RS)])


def acts_of(split: str, layer: int) -> np.ndarray:
    """Latent 0: names; 1: three speech verbs of four; 2: repeated nouns, layer 1 only; then noise
    and, last, a dead one."""
    rng = np.random.default_rng([layer, SPLITS.index(split)])
    tokens_RS, truth = tokens_of(split), truth_of(split)
    acts = (rng.random((LATENTS, *tokens_RS.shape)) < 0.1) * rng.uniform(0.1, 1, tokens_RS.shape)
    acts[0] = np.where(truth[0], 2, acts[0])
    acts[1] = 2 * (truth[1] & (tokens_RS != synthetic.ID[" cried"]))
    if layer == 1:
        acts[2] = 3 * truth[2]
    acts[-1] = 0
    return acts * synthetic.counted(tokens_RS)


def make_unit(out: Path, fill) -> None:
    for _, work in build_all([Unit("made", out, {"out": str(out)}, {})]):
        fill(work.out)


def make_data(out: Path) -> None:
    (out / "tokenizer").mkdir()
    vocab = {string: token for token, string in enumerate(synthetic.STRINGS)}
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="<pad>"))
    tokenizer.decoder = Fuse()
    tokenizer.save(str(out / "tokenizer/tokenizer.json"))
    special = {"pad": synthetic.PAD, "bos": synthetic.BOS, "eos": synthetic.EOS}
    sizes = {"vocab_size": len(vocab), "ctx_len": synthetic.CTX}
    write_json(out / "meta.json", {**sizes, **special, "concepts": list(NAMES)})
    for folder in ("tokens", "labels"):
        (out / folder).mkdir()
    for split in SPLITS:
        np.save(out / "tokens" / f"{split}.npy", tokens_of(split))
        weights = (1 << np.arange(len(NAMES)))[:, None, None]
        labels = (truth_of(split) * weights).sum(axis=0).astype(np.uint64)
        np.save(out / "labels" / f"{split}.npy", labels)


def make_cache(out: Path, split: str) -> None:
    for layer in LAYERS:
        acts = acts_of(split, layer)
        latent, row, position = np.nonzero(acts)
        folder = out / hookpoint(layer)
        folder.mkdir()
        entries = {
            "locations": np.stack([row, position, latent], axis=1).astype(np.uint16),
            "activations": acts[latent, row, position].astype(np.float16),
        }
        save_file(entries, folder / f"0_{LATENTS - 1}.safetensors")
        write_json(folder / "config.json", {"num_latents": LATENTS})


def make_explanations(out: Path) -> None:
    records = [
        {"latent": i, "status": "explained" if i in RULES else "dead", "explanation": RULES.get(i)}
        for i in range(LATENTS)
    ]
    write_text(out / "explanations.jsonl", "".join(f"{to_line(r)}\n" for r in records))


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_unit(paths.data(), make_data)
    make_unit(paths.words(), lambda folder: NO_CLASSES.write(folder / CLASSES))
    for split in SPLITS:
        for out in (paths.cache("native", 0, split), paths.directions("native", 0, split)):
            make_unit(out, lambda folder, s=split: make_cache(folder, s))
    for layer in LAYERS:
        make_unit(paths.explain("native", 0, hookpoint(layer)), make_explanations)


def run(settings: Config) -> None:
    concepts.run(settings, runtime=Runtime("cpu", 1), family="native")


def table(name: str) -> list[dict[str, str]]:
    with (paths.concepts("native", 0) / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_concept_has_its_latent():
    run(config())
    rows = {row["concept"]: row for row in table("concepts") if row["source"] == "own"}
    assert list(rows) == list(NAMES)
    counted = synthetic.counted(tokens_of("concept_test"))
    truth = truth_of("concept_test")[:, counted]
    for number, (name, layer, latent) in enumerate(
        [("name", None, 0), ("speech", None, 1), ("repeated", 1, 2)]
    ):
        row = rows[name]
        point = row["hookpoint"]
        assert int(row["latent"]) == latent
        assert layer is None or point == hookpoint(layer)
        acts = acts_of("concept_test", int(point.split(".")[1]))[latent].astype(np.float16)
        yes = acts[counted] >= float(row["threshold"])
        assert float(row["f1"]) == pytest.approx(f1_score(truth[number], yes))
        assert int(row["positives_test"]) == truth[number].sum()
    assert [rows[name]["kind"] for name in NAMES] == ["lexical", "lexical", "contextual", "absent"]
    assert float(rows["name"]["f1"]) == float(rows["repeated"]["f1"]) == 1
    assert rows["nowhere"]["latent"] == ""
    assert {row["source"] for row in table("draws")} == {"own", "random-directions"}
    metrics = read_json(paths.metrics("concepts-native"))["seed-0"]
    assert metrics["lexical_concepts"] == 2
    assert 0 < metrics["lexical_recovered"] <= 2


def test_every_latent_has_a_row_and_a_dead_one_no_concept():
    run(config())
    rows = [row for row in table("latents") if row["source"] == "own"]
    assert len(rows) == LATENTS * len(LAYERS)
    by_place = {(row["hookpoint"], int(row["latent"])): row for row in rows}
    assert by_place[hookpoint(1), 2]["concept"] == "repeated"
    dead = by_place[hookpoint(0), LATENTS - 1]
    assert dead["concept"] == dead["threshold"] == ""
    assert float(dead["f1"]) == 0


def test_rules_are_asked_to_name_the_concept():
    run(config())
    rows = {(row["hookpoint"], int(row["latent"])): row for row in table("rules")}
    name = rows[hookpoint(1), 0]
    assert (name["rule_concept"], name["named"], name["as_well"]) == ("name", "1", "1")
    assert float(name["rule_f1"]) == float(name["f1"]) == 1
    # "said" is one of three verbs: it names the concept and predicts it less well.
    speech = rows[hookpoint(1), 1]
    assert (speech["named"], speech["as_well"]) == ("1", "0")
    repeated = rows[hookpoint(1), 2]
    assert repeated["concept"] == repeated["rule_concept"] == "repeated"
    assert float(repeated["rule_f1"]) < 0.4 < float(repeated["f1"])
    assert float(name["named_by_others"]) == 0
    # A rule that fires nowhere names nothing.
    nowhere = rows[hookpoint(1), 3]
    assert (nowhere["rule_concept"], nowhere["named"], nowhere["rule_f1"]) == ("", "0", "0")


def test_changed_labels_of_concept_test_change_no_choice():
    run(config())
    columns = ("hookpoint", "latent", "threshold", "f1_fit", "mcc_latent", "main_latents")
    before = [{key: row[key] for key in columns} for row in table("concepts")[:3]]
    scores = [row["f1"] for row in table("concepts")]
    path = paths.data() / "labels/concept_test.npy"
    labels = np.load(path)
    np.save(path, np.roll(labels, 1, axis=0))
    (paths.concepts("native", 0) / "manifest.json").unlink()
    run(config())
    assert [{key: row[key] for key in columns} for row in table("concepts")[:3]] == before
    assert [row["f1"] for row in table("concepts")] != scores


def test_a_corpus_without_labels_gives_empty_tables_and_reads_no_cache():
    bare = config(kind="local", path="own.txt")
    (unit,) = concepts.units(bare, family="native")
    assert list(unit.inputs) == ["data"]
    run(bare)
    for name in ("concepts", "draws", "latents", "rules"):
        assert table(name) == []
    assert read_json(paths.metrics("concepts-native")) == {"seed-0": {}}


def test_sentences_of_a_language_model_are_not_read_as_rules():
    """Nothing but rules can be executed; all else is as with them."""
    run(config())
    others = ("concepts", "draws", "latents")
    before = {name: table(name) for name in others}
    values = config().model_dump(mode="json")
    client = {"kind": "openai", "model": "m"}
    values["explain"]["explainer"] = {"kind": "delphi", "explainer": "default", "client": client}
    values["score"]["scorers"] = [{"kind": "delphi", "scorers": ["detection"], "client": client}]
    asked = Config.model_validate(values, strict=False)
    for layer in LAYERS:
        file = paths.explain("native", 0, hookpoint(layer)) / "explanations.jsonl"
        file.write_text(file.read_text().replace("said", "no rule at all"))
    run(asked)
    assert table("rules") == []
    assert {name: table(name) for name in others} == before


def test_too_many_candidates_name_the_key():
    values = config().model_dump(mode="json")
    values["concepts"]["candidates"] = LATENTS * len(LAYERS) + 1
    with pytest.raises(UserError, match=r"set concepts.candidates to at most 16"):
        run(Config.model_validate(values, strict=False))
    assert not paths.concepts("native", 0).exists()


def test_the_same_run_gives_the_same_bytes_without_torch():
    run(config())
    first = {p.name: p.read_bytes() for p in paths.concepts("native", 0).iterdir()}
    (paths.concepts("native", 0) / "manifest.json").unlink()
    code = (
        "import sys; import test_concepts_stage as t;"
        "t.run(t.config()); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    tests = Path(__file__).parents[1]
    path = f"{tests.parent}:{tests}:{tests / 'stages'}"
    env = {"PYTHONPATH": path, "PATH": ""}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert {p.name: p.read_bytes() for p in paths.concepts("native", 0).iterdir()} == first
