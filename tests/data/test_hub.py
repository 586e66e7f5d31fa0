"""Datasets by id. A folder stands for the hub: datasets loads both by the same code."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clearnets import UserError
from clearnets.config import HubText
from clearnets.data import hub

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("datasets_cache")

README = """---
configs:
- config_name: small
  data_files: small/*.parquet
- config_name: large
  data_files: large/*.parquet
---
"""
# As many as the hub's own description of a dataset would say.
COUNTED = """---
dataset_info:
  splits:
  - name: train
    num_bytes: 1000
    num_examples: 60
  - name: validation
    num_bytes: 500
    num_examples: 30
---
"""


@pytest.fixture
def folder(tmp_path):
    """30 stories in each of two training files and a validation file."""
    folder = tmp_path / "stories"
    folder.mkdir()
    for name in ("train_a", "train_b", "validation"):
        texts = [f"{name} {i}" for i in range(29)]
        table = pa.table({"id": range(30), "story": pa.array([*texts, None], pa.string())})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def corpus(folder, **options):
    return HubText(kind="hub", name=str(folder), **{"text_column": "story", **options})


def error(call, *args):
    with pytest.raises(UserError) as caught:
        list(call(*args))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dataset_at_once_and_as_a_stream(folder):
    wanted = [f"train_a {i}" for i in range(29)] + [""]
    wanted += [f"train_b {i}" for i in range(29)] + [""]
    texts = hub.download(corpus(folder))
    assert [text or "" for text in texts] == list(hub.stream(corpus(folder))) == wanted
    assert texts[[31, 0, 59]] == ["train_b 1", "train_a 0", None]


@pytest.mark.parametrize("split", ["train[3:7]", "train[40:]", "validation[:2]+train[:3]"])
def test_slices_at_once_and_as_a_stream(folder, split):
    expected = datasets.load_dataset(str(folder), split=split)["story"]
    assert list(hub.download(corpus(folder, split=split))) == list(expected)
    assert list(hub.stream(corpus(folder, split=split))) == [text or "" for text in expected]


@pytest.mark.parametrize("split", ["train[:5%]", "train[-3:]"])
def test_a_share_needs_the_number_of_documents(folder, split):
    # Asked before anything is in the cache, which knows the number.
    assert "does not tell how many documents split 'train' has" in error(
        hub.stream, corpus(folder, split=split)
    )
    (folder / "README.md").write_text(COUNTED)
    found = list(hub.stream(corpus(folder, split=split)))
    assert len(found) == 3
    assert found == [text or "" for text in hub.download(corpus(folder, split=split))]


def test_configurations(tmp_path):
    for name in ("small", "large"):
        path = tmp_path / "in" / name / "0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"story": [f"{name} story"]}), path)
    (tmp_path / "in" / "README.md").write_text(README)
    for name in ("small", "large"):
        for read in (hub.download, hub.stream):
            assert list(read(corpus(tmp_path / "in", config=name))) == [f"{name} story"]
    for read in (hub.download, hub.stream):
        message = error(read, corpus(tmp_path / "in", config="medium"))
        assert "small" in message
        assert "correct data.corpus.config" in message


def test_mistakes_list_what_there_is(folder):
    for read in (hub.download, hub.stream):
        message = error(read, corpus(folder, text_column="text"))
        assert "no column 'text'; it has id, story: set data.corpus.text_column" in message
        assert "not text but int" in error(read, corpus(folder, text_column="id"))
        message = error(read, corpus(folder, split="test"))
        assert "train" in message
        assert "correct data.corpus" in message


def test_what_is_asked_of_the_hub(monkeypatch, folder):
    asked = []
    loaded = datasets.load_dataset(str(folder), split="train")

    def load_dataset(*args, **options):
        asked.append((args, options))
        return loaded.to_iterable_dataset() if options["streaming"] else loaded

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    chosen = HubText(
        kind="hub",
        name="HuggingFaceFW/fineweb",
        config="sample-10BT",
        split="train[:20]",
        revision="abc",
        text_column="story",
    )
    assert len(hub.download(chosen)) == 60
    assert len(list(hub.stream(chosen))) == 20
    named = ("HuggingFaceFW/fineweb", "sample-10BT")
    assert asked == [
        (named, {"split": "train[:20]", "revision": "abc", "streaming": False}),
        (named, {"split": "train", "revision": "abc", "streaming": True}),
    ]


def test_a_stream_is_fetched_only_as_far_as_asked(monkeypatch):
    def endless():
        for number in range(10**9):
            yield {"story": str(number)}
            assert number < 10

    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **options: datasets.IterableDataset.from_generator(endless),
    )
    texts = hub.stream(corpus("some/where"))
    assert [next(texts) for _ in range(5)] == list("01234")


OFFLINE = """
from clearnets import UserError
from clearnets.config import HubText
from clearnets.data import hub
for read in (hub.download, hub.stream):
    try:
        list(read(HubText(kind="hub", name="roneneldan/TinyStories")))
    except UserError as error:
        print(error)
"""


def test_offline_an_id_is_one_line_that_names_the_local_ways(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, check=True, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("hub dataset roneneldan/TinyStories cannot be had (")
        assert "kind: local` with a folder in the hub's layout, Parquet, JSONL or text" in line
