"""Reading Parquet, JSONL and text, and the hub's layout of a folder, compared with datasets."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clearnets import UserError
from clearnets.data import files


def texts_at(path, text_column="text", split=None):
    return [text for text in files.read(path, text_column, split) if text.strip()]


def error(path, *options):
    with pytest.raises(UserError) as caught:
        texts_at(path, *options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Reading files


def test_reads_parquet_jsonl_and_text_alike(tmp_path):
    texts = ["One fox.\n\nTwo foxes.", "Café 🦊", "  kept as it is "]
    extra = [*texts, "", None, " \n"]
    pq.write_table(pa.table({"id": range(6), "story": extra}), tmp_path / "a.parquet")
    lines = [json.dumps({"story": text, "id": 1}) for text in extra]
    (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n\n")
    (tmp_path / "c.txt").write_text("\ufeff" + "\n<|endoftext|>\n".join(texts), "utf-8")
    assert texts_at(tmp_path / "a.parquet", "story") == texts
    assert texts_at(tmp_path / "b.jsonl", "story") == texts
    assert texts_at(tmp_path / "c.txt") == [text.strip() for text in texts]
    assert len(texts_at(tmp_path, "story")) == 9


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("a\nb\n\n \nc\n", ["a\nb", "c"]),
        ("a\n\nb\n<|endoftext|>\nc\n<|endoftext|>\n", ["a\n\nb", "c"]),
    ],
)
def test_text_is_divided_by_marks_or_else_by_blank_lines(text, documents, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    assert texts_at(tmp_path / "a.txt") == documents


def test_a_folder_is_read_in_the_order_of_names_without_hidden_and_other_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "sub" / "c.txt").write_text("third")
    (tmp_path / ".cache" / "d.txt").write_text("never")
    (tmp_path / "README.md").write_text("never")
    assert texts_at(tmp_path) == ["first", "second", "third"]


def test_every_fault_of_a_file_is_one_line_with_a_cure(tmp_path):
    assert "is missing" in error(tmp_path / "none.txt")
    assert "no files of a known type (.parquet, .jsonl, .txt)" in error(tmp_path)
    (tmp_path / "a.csv").write_text("text\n")
    assert "unknown type; known are .parquet, .jsonl, .txt" in error(tmp_path / "a.csv")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    assert "is not UTF-8 at byte 3" in error(tmp_path / "latin.txt")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    assert "is not UTF-8 at byte 28" in error(tmp_path / "latin.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    assert "broken.jsonl, line 2, is not JSON" in error(tmp_path / "broken.jsonl")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    assert "line 1, is not a JSON object" in error(tmp_path / "list.jsonl")
    (tmp_path / "number.jsonl").write_text('{"text": 3}\n')
    assert "line 1: 'text' is not text but int" in error(tmp_path / "number.jsonl")
    (tmp_path / "half.jsonl").write_text('{"text": "a\\ud800"}\n')
    assert "line 1: character 1 is half of a surrogate pair" in error(tmp_path / "half.jsonl")
    (tmp_path / "keys.jsonl").write_text('{"story": "a", "id": 1}\n')
    assert "no column 'text'; it has id, story" in error(tmp_path / "keys.jsonl")


def test_faults_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "story": ["a"]}), path)
    assert "no column 'text'; it has id, story" in error(path)
    assert "row 1: 'id' is not text but int" in error(path, "id")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is not readable Parquet" in error(path)
    bad = pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 2, 5], np.int32)), pa.py_buffer(b"okca\xe9")
    )
    pq.write_table(pa.table({"text": bad}), path)
    assert "row 2, is not UTF-8 at byte 2" in error(path)


def test_line_ends_and_byte_order_marks_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\xe2\x80\xa8four")
    assert texts_at(tmp_path / "a.txt") == ["one\ntwo", "three\u2028four"]
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n')
    assert texts_at(tmp_path / "b.jsonl") == ["one", "two"]


def test_files_are_read_only_as_far_as_asked(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\nbroken\n')
    texts = files.read(tmp_path, "text")
    assert [next(texts), next(texts)] == ["one", "two"]
    with pytest.raises(UserError, match="line 3, is not JSON"):
        next(texts)


# The hub's layout


LAYOUTS = [
    ["all.parquet"],
    ["data/train-00000-of-00001.parquet", "data/extra-00000-of-00001.parquet", "test.parquet"],
    ["a/my-eval/0.parquet", "a/training set/0.parquet", "train.parquet"],
    ["x_train_1.parquet", "x_train_2.parquet", "valid 1.parquet", "trainer.parquet"],
]


def write_stories(folder, names, count=30):
    """Files of numbered stories, and all stories in the order of names."""
    every = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"{name} {i}" for i in range(count)]
        pq.write_table(pa.table({"text": texts, "id": range(count)}), path)
        every += texts
    return every


def load_dataset(folder, cache, **options):
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset(str(folder), cache_dir=str(cache), **options)


@pytest.mark.parametrize("names", LAYOUTS, ids=" ".join)
def test_splits_of_a_folder_are_those_of_datasets(names, tmp_path):
    write_stories(tmp_path / "in", names)
    expected = load_dataset(tmp_path / "in", tmp_path / "cache")
    assert sorted(files.layout(tmp_path / "in")) == sorted(expected)
    for split in expected:
        found = texts_at(tmp_path / "in", "text", split)
        assert sorted(found) == sorted(expected[split]["text"])


SLICES = [
    "train",
    "train[:1%]",
    "train[-5:]",
    "train[50:1000]",
    "validation+train[:4]",
    "train[:2]+train[-2:]",
]


@pytest.mark.parametrize("split", SLICES)
def test_slices_are_those_of_datasets(split, tmp_path):
    names = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    write_stories(tmp_path / "in", [*names, "data/validation-00000-of-00001.parquet"], 43)
    found = texts_at(tmp_path / "in", "text", split)
    assert found == list(load_dataset(tmp_path / "in", tmp_path / "cache", split=split)["text"])
    assert texts_at(tmp_path / "in", "text", "train[7:3]") == []


def test_slices_count_documents_of_every_type(tmp_path):
    (tmp_path / "train.txt").write_text("\n\n".join(f"t{i}" for i in range(10)))
    lines = [json.dumps({"text": f"j{i}"}) for i in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "test.txt").write_text("never")
    assert texts_at(tmp_path, split="train[45%:55%]") == ["j9", "t0"]
    assert texts_at(tmp_path / "train.txt", split="train[:2]") == ["t0", "t1"]


def test_unknown_splits_and_slices_name_the_cure(tmp_path):
    write_stories(tmp_path, ["train.parquet", "validation.parquet"])
    assert "has no split 'test'; it has train, validation" in error(tmp_path, "text", "test[:2]")
    assert "data.corpus.split 'train[:200%]'" in error(tmp_path, "text", "train[:200%]")
    assert files.of_split(tmp_path, "validation[:2]+validation") == [
        tmp_path / "validation.parquet"
    ]
