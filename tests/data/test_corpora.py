import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearnets import UserError
from clearnets.config import SPLITS, HubText, LocalText, SplitTokens, Storybook
from clearnets.data import corpora
from clearnets.data.corpora import BATCH, CHUNK, LABELLED, draw, fingerprints, open_corpus, shares

SMALL = SplitTokens(train=600, valid=100, explain=100, score=100, concept_fit=50, concept_test=50)


def local(path, **options):
    return LocalText(kind="local", path=str(path), **options)


def documents(corpus, tokens=SMALL, waiting=Path()):
    with open_corpus(corpus, tokens, workers=1, waiting=waiting) as opened:
        found = {split: [t for c in opened.chunks(split) for t in c.texts] for split in SPLITS}
        return found, opened.repeats


def test_fingerprints_follow_the_content(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "notes.md").write_text("one")
    first = fingerprints(local(tmp_path))
    assert list(first) == ["a.txt"]
    assert fingerprints(local(tmp_path / "a.txt")) == first
    (tmp_path / "a.txt").write_text("two")
    assert fingerprints(local(tmp_path)) != first
    (tmp_path / "train.txt").write_text("three")
    assert sorted(fingerprints(local(tmp_path))) == ["a.txt", "train.txt"]
    assert list(fingerprints(local(tmp_path, split="train[:1]"))) == ["train.txt"]
    assert fingerprints(Storybook(kind="storybook")) == {}


# Assignment to splits


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=6, max_size=60),
    wanted=st.lists(st.integers(1, 20), min_size=1, max_size=6),
)
def test_shares_are_in_proportion_and_never_empty(sizes, wanted):
    bounds = shares(np.array(sizes), wanted)
    assert bounds[0] == 0
    assert bounds[-1] == len(sizes)
    assert all(low < high for low, high in itertools.pairwise(bounds))
    if len(sizes) > 40 and min(wanted) * len(sizes) > 4 * sum(wanted):
        for (low, high), share in zip(itertools.pairwise(bounds), wanted):
            exact = share / sum(wanted) * sum(sizes)
            assert abs(sum(sizes[low:high]) - exact) <= 2 * max(sizes)


def test_splits_are_disjoint_complete_and_without_repeats(tmp_path):
    texts = [f"story number {i} " + "word " * (i % 7) for i in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts * 2))
    found, repeats = documents(local(tmp_path))
    assert repeats == 200
    assert sorted(t for part in found.values() for t in part) == sorted(texts)
    assert 100 < len(found["train"]) < 140
    assert all(len(found[split]) >= 8 for split in SPLITS)


def test_the_assignment_depends_on_text_and_seed_only(tmp_path):
    texts = [f"story number {i}" for i in range(300)]
    for name, order in (("a", texts), ("b", texts[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(order))
    first, _ = documents(local(tmp_path / "a.txt"))
    assert documents(local(tmp_path / "b.txt"))[0] == first
    assert documents(local(tmp_path / "b.txt", seed=1))[0] != first


def test_a_split_that_asks_for_nothing_gets_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join("abcdefgh"))
    tokens = SMALL.model_copy(update={"concept_fit": 0, "concept_test": 0})
    found, _ = documents(local(tmp_path), tokens)
    assert found["concept_fit"] == []
    assert len([t for part in found.values() for t in part]) == 8


def test_no_text(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n')
    for name in ("empty.txt", "blank.jsonl"):
        with pytest.raises(UserError, match="has no text; give one"):
            documents(local(tmp_path / name))


def test_too_few_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\ntwo")
    with pytest.raises(UserError, match="has 2 different documents and the 6 splits need"):
        documents(local(tmp_path))


# Streaming


def write_stories(path, texts):
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return local(path, streaming=True)


def test_a_stream_gives_all_documents_to_splits_that_share_none(tmp_path):
    texts = [f"story number {i} " + "word " * (i % 7) for i in range(3000)]
    found, _ = documents(write_stories(tmp_path / "a.jsonl", [*texts, " "]))
    assert sorted(t for part in found.values() for t in part) == sorted(texts)
    total = sum(SMALL.model_dump().values())
    for split in SPLITS:
        share = getattr(SMALL, split) / total
        deviation = (share * (1 - share) * len(texts)) ** 0.5
        assert abs(len(found[split]) - share * len(texts)) < 4 * deviation
        # In the order of the source.
        assert found[split] == [text for text in texts if text in set(found[split])]


def test_a_document_of_a_stream_has_its_split_whatever_else_there_is(tmp_path):
    texts = [f"story number {i}" for i in range(500)]
    first, _ = documents(write_stories(tmp_path / "a.jsonl", texts))
    second, _ = documents(write_stories(tmp_path / "b.jsonl", [*texts[::-2], *texts[:9], "more"]))
    owner = {text: split for split, part in first.items() for text in part}
    assert {owner.get(t, split) == split for split, part in second.items() for t in part} == {True}
    other, _ = documents(local(tmp_path / "a.jsonl", streaming=True, seed=1))
    assert other != first


def test_draws_are_in_proportion():
    counts = np.bincount([draw(str(i), 0, [1, 0, 3]) for i in range(4000)], minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_a_stream_is_read_once_and_as_far_as_is_needed(tmp_path, monkeypatch):
    read = []

    def endless(*_):
        for number in itertools.count():
            read.append(number)
            yield f"story number {number}"

    monkeypatch.setattr(corpora.files, "read", endless)
    with open_corpus(local(tmp_path, streaming=True), SMALL, workers=1, waiting=tmp_path) as corpus:
        train = corpus.chunks("train")
        first = next(train)
        assert len(read) == BATCH
        train.close()
        waiting = sum(len(f.read_text().splitlines()) for f in tmp_path.glob("*.jsonl"))
        valid = corpus.chunks("valid")
        mine = next(valid)
        assert len(read) == BATCH
        more = next(valid)
        assert len(read) == 2 * BATCH
    assert read == list(range(2 * BATCH))
    texts = [*first.texts, *mine.texts, *more.texts]
    assert len(set(texts)) == len(texts)
    # What is no longer asked for is not put aside.
    assert waiting <= BATCH - len(first.texts)
    assert not (tmp_path / "train.jsonl").read_text()


# The hub


@pytest.mark.usefixtures("datasets_cache")
def test_a_dataset_is_divided_as_a_file_of_its_documents(tmp_path):
    texts = [f"story number {i}" for i in range(300)]
    (tmp_path / "in").mkdir()
    table = pa.table({"story": [*texts, "  ", *texts[:10]]})
    pq.write_table(table, tmp_path / "in" / "train.parquet")
    named = {"text_column": "story", "seed": 3}
    for streaming in (False, True):
        options = {**named, "streaming": streaming}
        found = HubText(kind="hub", name=str(tmp_path / "in"), **options)
        assert documents(found) == documents(local(tmp_path / "in", **options))
    assert documents(found.model_copy(update={"streaming": False}))[1] == 10
    assert fingerprints(found) == {}


# The storybook


def first_chunks(split, count, workers, tokens):
    with open_corpus(
        Storybook(kind="storybook"), tokens, workers=workers, waiting=Path()
    ) as corpus:
        chunks = corpus.chunks(split)
        return [next(chunks) for _ in range(count)]


@pytest.mark.parametrize("split", ["train", "score"])
def test_stories_do_not_depend_on_the_number_of_workers(split):
    storybook = pytest.importorskip("clearnets.data.storybook")
    many = SMALL.model_copy(update={"train": 1_000_000})
    alone = first_chunks(split, 3, 1, many)
    assert first_chunks(split, 3, 2, many) == alone
    direct = [storybook.story(0, split, i) for i in range(3 * CHUNK)]
    assert [text for chunk in alone for text in chunk.texts] == [s.text for s in direct]
    assert [nll for chunk in alone for nll in chunk.nll] == [s.nll for s in direct]
    if split in LABELLED:
        assert [spans for chunk in alone for spans in chunk.spans] == [s.spans for s in direct]
    else:
        assert all(chunk.spans is None for chunk in alone)


KILLED = """
from clearnets.config import Storybook, SplitTokens
from clearnets.data import corpora
import multiprocessing, time
from pathlib import Path
if __name__ == "__main__":
    tokens = SplitTokens(train=10**6, valid=1, explain=1, score=1, concept_fit=0, concept_test=0)
    opened = corpora.open_corpus(
        Storybook(kind="storybook"), tokens, workers=2, waiting=Path()
    )
    with opened as corpus:
        chunks = corpus.chunks("train")
        next(chunks)
        print(*(p.pid for p in multiprocessing.active_children()), flush=True)
        time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "killed.py")], stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))
