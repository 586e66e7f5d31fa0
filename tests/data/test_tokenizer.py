import numpy as np
import pytest
from found_tokenizers import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st

from clearnets.data.tokenizer import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    Vocabulary,
    save_tokenizer,
    train_tokenizer,
)
from clearnets.data.tokens import TokenStore


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=350)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    save_tokenizer(tokenizer, folder / "tokenizer", ctx_len=64)
    return folder


@pytest.fixture(scope="module")
def auto(folder):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def test_transformers_reads_it_with_special_tokens_told_apart(auto, tokenizer):
    assert (auto.pad_token_id, auto.bos_token_id, auto.eos_token_id) == (PAD, BOS, EOS)
    assert (auto.pad_token, auto.bos_token, auto.eos_token) == ("<pad>", "<bos>", "<eos>")
    assert auto.model_max_length == 64
    assert len(auto) == tokenizer.get_vocab_size() == 350
    for text in TEXTS:
        assert auto(text)["input_ids"] == tokenizer.encode(text).ids
    batch = auto(["the fox", "the"], padding=True, return_tensors="np")
    assert batch["input_ids"][1, -1] == PAD
    assert batch["attention_mask"][1, -1] == 0


@settings(max_examples=200, deadline=None)
@given(text=st.text() | st.text(alphabet="<bospade> .,'\nT"))
def test_any_text_comes_back(auto, tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    # Spelled-out special tokens are text like any other.
    assert not {PAD, BOS, EOS} & set(ids)
    assert auto.decode(auto.encode(text)) == text


def test_training_is_deterministic(tokenizer, tmp_path):
    again = train_tokenizer(iter(TEXTS), vocab_size=350)
    assert again.to_str() == tokenizer.to_str()
    for name in ("a", "b"):
        save_tokenizer(again, tmp_path / name, ctx_len=64)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_encode_with_and_without_labels(tokenizer):
    text = "The fox said 🦊."
    spans = [(0, 3, 1), (4, 7, 2), (8, 12, 4), (13, 14, 8), (14, 15, 16)]
    vocabulary = Vocabulary(tokenizer, SPECIALS, 350)
    docs = vocabulary.encode([text, "fox"], spans=[spans, [(0, 3, 2)]], nll=[1.5, 0.5])
    plain = vocabulary.encode([text, "fox"])
    assert np.array_equal(docs.ids_T, plain.ids_T)
    assert plain.labels_T is None
    assert docs.nll_D.tolist() == [1.5, 0.5]
    assert plain.nll_D.tolist() == [0, 0]
    assert tokenizer.decode(docs.ids_T[: docs.lengths_D[0]].tolist()) == text
    # Every byte piece of the fox carries its label.
    marks = docs.labels_T.tolist()
    pieces = [tokenizer.decode([i]) for i in docs.ids_T.tolist()]
    for piece, mark in zip(pieces, marks):
        word = piece.strip()
        expected = [m for s, e, m in spans if word and word in text[s:e]]
        assert mark in expected or ("�" in word and mark == 8)
    assert {1, 2, 4, 8, 16} == set(marks)


def test_strings_decode_each_token_alone(tokenizer, folder):
    store = TokenStore(folder, tokenizer.get_vocab_size(), 64, PAD, BOS, EOS, ())
    strings = store.strings()
    assert strings[:3] == ["<pad>", "<bos>", "<eos>"]
    assert len(strings) == 350
    ids = tokenizer.encode(" fox the river").ids
    assert "".join(strings[i] for i in ids) == " fox the river"
    assert " fox" in strings
