import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import found_tokenizers
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_documents import row_windows
from tokenizers import Tokenizer

from clearnets import UserError
from clearnets import config as configs
from clearnets.config import SPLITS
from clearnets.data import corpora, splits, train_files
from clearnets.data.tokenizer import train_tokenizer
from clearnets.data.tokens import open_tokens
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import data as stage

ROOT = Path(__file__).parents[2]
TINYSTORIES = Path(os.environ.get("CLEARNETS_TEST_DATA", "absent")).resolve() / "tinystories"
BUDGETS = {
    "train": 12_000,
    "valid": 1_500,
    "explain": 1_500,
    "score": 1_500,
    "concept_fit": 800,
    "concept_test": 800,
}


def config(corpus, *, tokens=BUDGETS, tokenizer=None, vocab_size=400, ctx_len=64):
    tree = configs.read_yaml(ROOT / "params.yaml")
    tokenizer = tokenizer or {"kind": "trained", "vocab_size": vocab_size}
    data = {"corpus": corpus, "tokenizer": tokenizer, "ctx_len": ctx_len, "tokens": dict(tokens)}
    return configs.parse({**tree, "data": data}, "test")


def run(corpus, **options):
    made = config(corpus, **options)
    stage.run(made, runtime=Runtime(threads=1))
    return open_tokens(paths.data()), json.loads(paths.metrics("data").read_text())


def snapshot(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def check_guarded(store):
    """Check that no window of a guarded split is in a split that it is guarded against."""
    ids = {"pad": store.pad, "bos": store.bos, "eos": store.eos}
    known, guarded = (
        [row_windows(store.split(split), **ids) for split in group]
        for group in (splits.KNOWN, splits.GUARDED)
    )
    assert all(guarded)
    assert not set().union(*guarded) & set().union(*known)


def texts_of(rows, store):
    """The documents of rows that hold one document each."""
    tokenizer = Tokenizer.from_file(str(store.root / "tokenizer" / "tokenizer.json"))
    documents, body = [], []
    for row in rows.tolist():
        body += [token for token in row[1:] if token != store.pad]
        if store.eos in body:
            assert body.index(store.eos) == len(body) - 1
            documents.append(tokenizer.decode(body))
            body = []
    assert not body
    return documents


def held_out_texts(store, texts):
    """Return the documents of all splits but train; they are some of `texts`, and in one split."""
    seen: set[str] = set()
    for split in SPLITS[1:]:
        mine = set(texts_of(store.split(split), store))
        assert mine <= set(texts)
        assert not mine & seen
        seen |= mine
    return seen


# A storybook whose statistics are known


class Tale(NamedTuple):
    text: str
    spans: list
    nll: float
    plot: str


class Book:
    """Stories of 48 words: every third is "fox", the others one of eight, equally likely."""

    CONCEPTS = ("fox", "word", "end")
    WORDS = ("ant", "bee", "cow", "dog", "elk", "hen", "owl", "pig")

    @classmethod
    def story(cls, seed, split, index):
        rng = random.Random(f"{seed}/{split}/{index}")
        text, spans, nll = "", [], 0.0
        for place in range(48):
            word = "fox"
            if place % 3:
                word = rng.choice(cls.WORDS)
                nll += np.log(8)
            start = len(text) + (place > 0)
            text += (" " if place else "") + word
            spans.append((start, len(text), 1 if word == "fox" else 2))
        spans.append((len(text), len(text) + 1, 4))
        return Tale(text + ".", spans, nll, "only")


@pytest.fixture
def book(monkeypatch):
    from clearnets.data import storybook

    monkeypatch.setattr(storybook, "CONCEPTS", Book.CONCEPTS)
    monkeypatch.setattr(storybook, "story", Book.story)


def test_labels_follow_the_words_to_the_rows(book):
    store, stats = run({"kind": "storybook"})
    assert store.concepts == ("fox", "word", "end")
    strings = np.array(store.strings())
    for split in SPLITS:
        assert (store.labels(split) is not None) == (split in corpora.LABELLED)
    for split in corpora.LABELLED:
        rows, labels = store.split(split), store.labels(split)
        assert labels.dtype == np.uint64
        assert rows.shape == labels.shape
        assert not labels[~store.counted(rows)].any()
        words = strings[rows]
        assert np.array_equal(labels == 1, np.isin(words, [" fox", "fox"]))
        assert np.array_equal(labels == 4, words == ".")
        animals = [space + word for word in Book.WORDS for space in ("", " ")]
        assert np.array_equal(labels == 2, np.isin(words, animals))
    # 48 words, of which 32 are free; full stop and eos are predicted as well.
    assert stats["generator_bound"] == pytest.approx(32 * np.log(8) / 50)
    assert stats["unigram"] > stats["bigram"] > stats["trigram"] > stats["generator_bound"]


def test_rows_and_sizes(book):
    store, stats = run({"kind": "storybook"})
    for split in SPLITS:
        rows = store.split(split)
        assert rows.dtype == np.uint16
        assert (rows[:, 0] == store.bos).all()
        assert rows.max() < store.vocab_size
        sizes = stats["splits"][split]
        assert sizes["rows"] == len(rows)
        assert sizes["tokens"] == (rows != store.pad).sum()
        if split == "train":
            assert rows.shape == (BUDGETS[split] // 64, 64)
            assert store.pad not in rows
        else:
            assert BUDGETS[split] <= sizes["tokens"] < BUDGETS[split] + 51
            assert (rows[:, 1:] != store.bos).all()
            assert ((rows == store.eos).sum(axis=1) == 1).all()
            assert sizes["documents"] == len(rows)
            expected = [Book.story(0, split, index).text for index in range(len(rows))]
            assert texts_of(rows, store) == expected


def test_counted_leaves_out_specials_and_the_first_position(book):
    store, _ = run({"kind": "storybook"})
    tokens = np.array([[1, 5, 2, 1, 6, 0], [7, 8, 9, 2, 0, 0]])
    expected = [[0, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0]]
    assert store.counted(tokens).tolist() == np.array(expected, bool).tolist()


def test_same_bytes_again_and_nothing_to_do_when_fresh(book, tmp_path, monkeypatch):
    run({"kind": "storybook"})
    first = snapshot(paths.data())
    inode = paths.data().stat().st_ino
    run({"kind": "storybook"})
    assert paths.data().stat().st_ino == inode
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    run({"kind": "storybook"})
    assert snapshot(paths.data()) == first
    run({"kind": "storybook", "seed": 1})
    assert snapshot(paths.data()) != first


def test_leftovers_of_a_killed_run_do_not_get_into_the_unit(book, monkeypatch):
    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(splits, "write_json", killed)
        run({"kind": "storybook"})
    assert not paths.data().exists()
    (left,) = paths.WORK.glob("data/*/out")
    (left / "tokens" / ".torn.npy.part").write_text("torn")
    run({"kind": "storybook"})
    assert not list(paths.data().rglob("*.part"))


def test_leaks_and_repeats_are_dropped_and_made_up_for(book, monkeypatch):
    from clearnets.data import storybook

    def story(seed, split, index):
        if split == "score" and index in (1, 3):
            # Most of a training story, with another ending.
            text = Book.story(seed, "train", 10 * index).text[:-3] + "ant."
            return Book.story(seed, split, index)._replace(text=text)
        if (split, index) == ("valid", 2):
            return Book.story(seed, "train", 5)
        if (split, index) == ("train", 7):
            return Book.story(seed, "train", 6)
        return Book.story(seed, split, index)

    monkeypatch.setattr(storybook, "story", story)
    store, stats = run({"kind": "storybook"})
    leaks = {split: part["leaks_dropped"] for split, part in stats["splits"].items()}
    assert leaks == {**dict.fromkeys(SPLITS, 0), "score": 2}
    assert stats["splits"]["valid"]["repeats_dropped"] == 1
    assert stats["splits"]["train"]["repeats_dropped"] == 1
    assert stats["splits"]["score"]["tokens"] >= BUDGETS["score"]
    check_guarded(store)


def test_a_split_that_only_leaks_is_refused(book, monkeypatch):
    from clearnets.data import storybook

    monkeypatch.setattr(
        storybook, "story", lambda seed, split, index: Book.story(seed, "train", index % 300)
    )
    with pytest.raises(UserError, match="split 'concept_fit' cannot be filled"):
        run({"kind": "storybook"})
    assert not paths.data().exists()


def test_the_storybook_itself():
    store, stats = run({"kind": "storybook"}, vocab_size=600, ctx_len=128)
    assert stats["splits"]["valid"]["mean_length"] > 50
    assert stats["unigram"] > stats["bigram"] > stats["trigram"]
    assert 0 < stats["generator_bound"] < stats["trigram"]
    marks = np.bitwise_or.reduce(store.labels("explain").ravel())
    assert bin(int(marks)).count("1") > len(store.concepts) // 2
    check_guarded(store)


# Local text


def write_corpus(path, count=400):
    rng = random.Random(0)
    words = [a + b for a in "bdfgklmn" for b in ("a", "ee", "o", "ut", "in")]
    texts = [" ".join(rng.choices(words, k=rng.randint(20, 90))) for _ in range(count)]
    path.write_text("\n\n".join(texts))
    return texts


def test_local_text_is_split_by_document(tmp_path):
    texts = write_corpus(tmp_path / "corpus.txt")
    store, stats = run({"kind": "local", "path": "corpus.txt"})
    assert store.concepts == ()
    assert store.labels("score") is None
    assert "generator_bound" not in stats
    seen = held_out_texts(store, texts)
    # The rows of train, less the bos of those that go on, are the other documents.
    strings = store.strings()
    flat = "".join("".join(strings[t] for t in row if t > 1) for row in store.split("train"))
    whole = flat.split("<eos>")[:-1]
    assert len(whole) > 100
    assert set(whole) <= set(texts) - seen


def test_a_small_corpus_is_used_up_in_proportion_and_said_so(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.txt", count=120)
    wanted = {split: 100 * count for split, count in BUDGETS.items()}
    _, stats = run({"kind": "local", "path": "corpus.txt"}, tokens=wanted)
    parts = stats["splits"]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    for split, part in parts.items():
        assert f"{split} has {part['tokens']:,} of {wanted[split]:,} tokens" in said
    total = sum(part["tokens"] for part in parts.values())
    for split, part in parts.items():
        assert part["tokens_wanted"] == wanted[split] > part["tokens"]
        share = wanted[split] / sum(wanted.values())
        assert part["tokens"] / total == pytest.approx(share, abs=0.03)


def test_a_changed_corpus_is_stale(tmp_path):
    write_corpus(tmp_path / "corpus.txt")
    corpus = {"kind": "local", "path": "corpus.txt"}
    run(corpus)
    assert stage.units(config(corpus))[0].fresh()
    with (tmp_path / "corpus.txt").open("a") as file:
        file.write("\n\nbo bee")
    assert not stage.units(config(corpus))[0].fresh()


def test_too_little_text_is_refused_and_writes_nothing(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n".join("abcdefg"))
    with pytest.raises(UserError, match="split 'train' does not fill a row of 64 tokens"):
        run({"kind": "local", "path": "corpus.txt"})
    assert not paths.data().exists()
    with pytest.raises(UserError, match="is missing"):
        stage.units(config({"kind": "local", "path": "none.txt"}))


def test_a_split_of_no_tokens_is_empty(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.txt")
    tokens = {**BUDGETS, "concept_fit": 0, "concept_test": 0}
    store, stats = run({"kind": "local", "path": "corpus.txt"}, tokens=tokens)
    assert "note: " not in capsys.readouterr().err
    assert store.split("concept_test").shape == (0, 64)
    assert stats["splits"]["concept_fit"]["documents"] == 0


def test_a_stream_fills_the_splits_without_leaks(tmp_path):
    texts = write_corpus(tmp_path / "corpus.txt", count=1200)
    # Behind every third document comes another one that has it in it.
    for place in range(1, len(texts), 4):
        texts.insert(place, f"{texts[place - 1]} and so on")
    (tmp_path / "corpus.txt").write_text("\n\n".join(texts))
    corpus = {"kind": "local", "path": "corpus.txt", "streaming": True}
    store, stats = run(corpus)
    assert sum(part["leaks_dropped"] for part in stats["splits"].values()) > 0
    held_out_texts(store, texts)
    for split in SPLITS[1:]:
        assert stats["splits"][split]["tokens"] >= BUDGETS[split]
    assert store.split("train").shape == (BUDGETS["train"] // 64, 64)
    check_guarded(store)


def test_much_text_is_never_held_at_once(tmp_path, monkeypatch):
    """The train split is packed, reread and compared in parts, and n-grams count a part."""
    write_corpus(tmp_path / "corpus.txt", count=1000)
    corpus = {"kind": "local", "path": "corpus.txt"}
    monkeypatch.setattr(corpora, "BATCH", 7)
    _, whole = run(corpus)
    first = snapshot(paths.data())
    (tmp_path / "other").mkdir()
    (tmp_path / "corpus.txt").rename(tmp_path / "other" / "corpus.txt")
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setattr(train_files, "BLOCK", 500)
    monkeypatch.setattr(splits, "NGRAM_TOKENS", 5000)
    _, parts = run(corpus)
    second = snapshot(paths.data())
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"stats.json", "manifest.json"}
    assert parts["ngram_tokens"] == 5000
    assert parts["trigram"] > whole["trigram"]
    assert parts["splits"] == whole["splits"]


@pytest.mark.parametrize("kind", ["pretrained", "restricted"])
def test_tokenizers_that_exist(kind, tmp_path):
    folder = found_tokenizers.gpt2(tmp_path / "gpt2")
    texts = write_corpus(tmp_path / "words.txt", count=600)
    texts = [f'Max asked: "{text}"{found_tokenizers.END} 🦊' for text in texts]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    corpus = {"kind": "local", "path": "corpus.jsonl"}
    tokenizer = {"kind": kind, "name": "gpt2"}
    if kind == "restricted":
        tokenizer["vocab_size"] = 300
    store, stats = run(corpus, tokenizer=tokenizer)
    assert len({store.pad, store.bos, store.eos}) == 3
    if kind == "pretrained":
        assert (store.eos, store.bos) == (0, store.vocab_size - 1)
    else:
        assert store.vocab_size == 300
    held_out_texts(store, texts)
    for split in SPLITS[1:]:
        rows = store.split(split)
        assert (rows[:, 0] == store.bos).all()
        assert rows.max() < store.vocab_size
    assert stats["vocab_size"] == store.vocab_size

    made = config(corpus, tokenizer=tokenizer)
    assert stage.units(made)[0].fresh()
    text = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text(text + "\n")
    assert not stage.units(made)[0].fresh()
    recorded = made.data.tokenizer.model_copy(update={"fingerprint": "0" * 16})
    data = made.data.model_copy(update={"tokenizer": recorded})
    with pytest.raises(UserError, match="gpt2 has changed since it was recorded; run `clearnets"):
        stage.units(made.model_copy(update={"data": data}))


def test_a_mistake_leaves_nothing_behind(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"text": "one"}\nbroken\n')
    for streaming in (False, True):
        with pytest.raises(UserError, match="line 2, is not JSON"):
            run({"kind": "local", "path": "corpus.jsonl", "streaming": streaming})
    write_corpus(tmp_path / "corpus.txt")
    with pytest.raises(UserError, match="cannot be had"):
        tokenizer = {"kind": "pretrained", "name": "nowhere/at/all"}
        run({"kind": "local", "path": "corpus.txt"}, tokenizer=tokenizer)
    assert not [path for path in Path(".clearnets").rglob("*") if path.is_file()]


THREADS = """
import os, sys
from clearnets.pipeline.runtime import tokenizer_threads
from tokenizers import Tokenizer
count = int(sys.argv[1])
tokenizer = Tokenizer.from_file("tokenizer.json")
before = len(os.listdir("/proc/self/task"))
with tokenizer_threads(count):
    encodings = tokenizer.encode_batch_fast(["the fox ran " * 50] * 500)
assert "RAYON_NUM_THREADS" not in os.environ
print(len(os.listdir("/proc/self/task")) - before)
print(hash(tuple(i for e in encodings for i in e.ids)))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_the_tokenizer_takes_as_many_threads_as_it_is_given(tmp_path):
    train_tokenizer(["the fox ran"], vocab_size=270).save("tokenizer.json")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAYON", "TOKENIZ"))}
    found = {}
    for count in (1, 2, 3):
        command = [sys.executable, "-c", THREADS, str(count)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found[count], *result = done.stdout.split()
        assert result == [result[0]]
        found.setdefault("result", result)
        assert found["result"] == result
    assert (found[1], found[2], found[3]) == ("0", "2", "3")


REAL = {
    "folder": {"kind": "local"},
    "folder, a share": {"kind": "local", "split": "train[:80%]"},
    "folder, streaming": {"kind": "local", "split": "train[:80%]", "streaming": True},
    "dataset": {"kind": "hub", "split": "train[:80%]"},
    "dataset, streaming": {"kind": "hub", "split": "train[:1243]", "streaming": True},
    "jsonl": {"kind": "local", "path": "stories.jsonl"},
    "txt": {"kind": "local", "path": "stories.txt"},
}


@pytest.mark.skipif(not TINYSTORIES.is_dir(), reason="CLEARNETS_TEST_DATA names no such folder")
@pytest.mark.parametrize("name", REAL)
def test_tinystories(name, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    texts = pq.read_table(TINYSTORIES / "validation.parquet").column("text").to_pylist()
    lines = [json.dumps({"text": text}) for text in texts]
    Path("stories.jsonl").write_text("\n".join(lines), "utf-8")
    Path("stories.txt").write_text("\n<|endoftext|>\n".join(texts), "utf-8")
    place = "path" if REAL[name]["kind"] == "local" else "name"
    store, stats = run({place: str(TINYSTORIES), **REAL[name]}, ctx_len=128)
    if "split" in REAL[name]:
        texts = datasets.load_dataset(str(TINYSTORIES), split="train[:80%]")["text"]
    elif name == "folder":
        texts += datasets.load_dataset(str(TINYSTORIES), split="train")["text"]
    known = {text.strip() for text in texts}
    for split in SPLITS[1:]:
        assert {text.strip() for text in texts_of(store.split(split), store)} <= known
        assert stats["splits"][split]["tokens"] > BUDGETS[split] * 0.8
    assert stats["unigram"] > stats["bigram"] > stats["trigram"] > 2
    check_guarded(store)


def test_the_stage_loads_neither_torch_nor_transformers(tmp_path):
    write_corpus(tmp_path / "corpus.txt")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    code = """
import sys
from clearnets import config; from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import data
tree = config.read_yaml(config.PARAMS)
corpus = {"kind": "local", "path": "corpus.txt"}
tokens = dict.fromkeys(tree["data"]["tokens"], 2000)
made = config.parse({**tree, "data": {**tree["data"], "corpus": corpus, "tokens": tokens}}, "x")
data.run(made, runtime=Runtime())
assert not {"torch", "transformers", "datasets"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_and_damaged_files_name_the_cure(book):
    with pytest.raises(UserError, match="run `dvc repro data` first"):
        open_tokens(paths.data())
    store, _ = run({"kind": "storybook"})
    path = paths.data() / "tokens" / "score.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged; delete it and run `dvc repro data`"):
        store.split("score")
    path.unlink()
    with pytest.raises(UserError, match="run `dvc repro data` first"):
        store.split("score")
