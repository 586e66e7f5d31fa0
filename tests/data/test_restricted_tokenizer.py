"""A cut tokenizer still spells everything, in the tokens that are used most."""

import json

import found_tokenizers as found
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clearnets import UserError
from clearnets.config import RestrictedTokenizer
from clearnets.data.pretrained_tokenizer import backend, load_fast
from clearnets.data.restricted_tokenizer import (
    count_tokens,
    faithful,
    lineage,
    load_restricted,
    restrict,
)
from clearnets.data.tokenizer import BOS, EOS, PAD, save_tokenizer

transformers = pytest.importorskip("transformers")
SIZE = 320
words = st.text() | st.text(alphabet="<bosepad>|n tx.,'\n") | st.sampled_from(found.TEXTS)


def wanted(folder, size=SIZE):
    return RestrictedTokenizer(kind="restricted", name=str(folder), vocab_size=size)


@pytest.fixture(scope="module", params=[False, True], ids=["gpt2", "llama3"])
def folder(request, tmp_path_factory):
    return found.gpt2(tmp_path_factory.mktemp("found") / "original", split=request.param)


@pytest.fixture(scope="module")
def original(folder):
    return faithful(backend(load_fast(wanted(folder))))


@pytest.fixture(scope="module")
def cut(folder):
    return load_restricted(wanted(folder), found.TEXTS)


@settings(max_examples=300, deadline=None)
@given(text=st.lists(words, max_size=4).map("".join))
def test_any_text_comes_back(cut, text):
    ids = cut.tokenizer.encode(text, add_special_tokens=False).ids
    assert cut.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not {PAD, BOS, EOS} & set(ids)
    assert max(ids, default=0) < cut.size


def test_it_has_the_size_and_the_ids_that_were_asked_for(cut, original):
    assert cut.size == SIZE == cut.tokenizer.get_vocab_size()
    assert cut.ids == {"pad": PAD, "bos": BOS, "eos": EOS}
    vocab = cut.tokenizer.get_vocab()
    assert sorted(vocab.values()) == list(range(SIZE))
    # The others keep their order.
    kept = sorted(set(vocab) - set(cut.specials), key=vocab.__getitem__)
    assert kept == sorted(kept, key=original.token_to_id)
    assert found.END not in vocab


def test_every_token_that_stays_is_reached_and_has_its_parents(cut):
    whole = json.loads(cut.tokenizer.to_str())
    vocab = set(whole["model"]["vocab"]) - set(cut.specials)
    made = {"".join(pair) for pair in whole["model"]["merges"]}
    assert all(len(token) == 1 or token in made for token in vocab)
    bare = Tokenizer.from_str(json.dumps(whole))
    bare.pre_tokenizer = None
    for token in vocab:
        assert bare.encode(token, add_special_tokens=False).tokens == [token]


def test_what_is_used_most_stays(cut, original):
    """The token left out that is used most, with its parents, would not fit in the rest."""
    counts = count_tokens(original, found.TEXTS)
    model = json.loads(original.to_str())["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    kept = set(cut.tokenizer.get_vocab())
    chosen, room = set(), SIZE - 3 - 256
    by_use = sorted(set(model["vocab"]) - {found.END}, key=lambda t: model["vocab"][t])
    by_use.sort(key=lambda token: -counts[model["vocab"][token]])
    for token in by_use:
        new = {t for t in lineage(token, ranks) if len(t) > 1} - chosen
        if len(new) <= room:
            chosen |= new
            room -= len(new)
    assert {token for token in kept if len(token) > 1} - set(cut.specials) == chosen
    assert room == 0


def test_counts_are_those_of_a_loop(original):
    counts = count_tokens(original, found.TEXTS)
    ids = [i for text in found.TEXTS for i in original.encode(text, add_special_tokens=False).ids]
    assert counts.tolist() == [ids.count(i) for i in range(len(counts))]


def test_text_of_tokens_that_stay_is_encoded_as_before(original):
    counts = count_tokens(original, found.TEXTS)
    size = original.get_vocab_size()
    cut = restrict(original, counts, vocab_size=size + 2)
    for text in found.TEXTS:
        before = original.encode(text, add_special_tokens=False).tokens
        assert cut.encode(text, add_special_tokens=False).tokens == before


def test_without_its_merges_it_would_spell_in_bytes(cut):
    """What the original code did: the vocabulary was cut, and every merge was lost."""
    whole = json.loads(cut.tokenizer.to_str())
    whole["model"]["merges"] = []
    dropped = Tokenizer.from_str(json.dumps(whole))
    text = found.TEXTS[1]
    assert len(dropped.encode(text, add_special_tokens=False).ids) == len(text)
    assert len(cut.tokenizer.encode(text, add_special_tokens=False).ids) < 0.6 * len(text)


def test_a_lineage_is_the_way_bpe_goes():
    # "abc" can be made of ab + c and of a + bc: the earlier merge decides.
    ranks = {("b", "c"): 0, ("a", "b"): 1, ("ab", "c"): 2, ("a", "bc"): 3}
    assert lineage("abc", ranks) == {"a", "b", "c", "bc", "abc"}
    assert lineage("abcd", ranks) is None
    assert lineage("a", ranks) == {"a"}


def test_transformers_reads_what_is_saved(cut, tmp_path):
    save_tokenizer(cut.tokenizer, tmp_path / "t", ctx_len=64, specials=cut.specials)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    assert (auto.pad_token_id, auto.bos_token_id, auto.eos_token_id) == (PAD, BOS, EOS)
    for text in found.TEXTS:
        ids = cut.encode([text]).ids_T.tolist()
        assert auto(text)["input_ids"] == ids
        assert auto.decode(ids) == text


def test_more_than_there_is_keeps_all(folder, original):
    cut = load_restricted(wanted(folder, 5000), found.TEXTS)
    assert cut.size == original.get_vocab_size() + 2
    assert np.isin(cut.encode(found.TEXTS).ids_T, [PAD, BOS, EOS]).sum() == 0


@pytest.mark.parametrize("kind", [found.llama, found.bert, found.unigram])
def test_others_than_byte_level_bpe_are_refused(kind, tmp_path):
    folder = kind(tmp_path / "other")
    with pytest.raises(UserError, match="cannot be restricted: it") as caught:
        load_restricted(wanted(folder), found.TEXTS)
    assert "\n" not in str(caught.value)
    assert "only a byte-level BPE such as GPT-2's can be" in str(caught.value)
