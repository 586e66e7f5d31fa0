"""Existing tokenizers: what is kept, what is added, what is refused."""

import os
import subprocess
import sys

import found_tokenizers as found
import numpy as np
import pytest

from clearnets import UserError
from clearnets.autointerp.rules.matcher import Lexicon
from clearnets.config import PretrainedTokenizer
from clearnets.data.pretrained_tokenizer import load_pretrained, tokenizer_fingerprints
from clearnets.data.tokenizer import save_tokenizer
from clearnets.data.tokens import TokenStore

transformers = pytest.importorskip("transformers")
KINDS = {kind.__name__: kind for kind in (found.gpt2, found.llama, found.bert, found.unigram)}


def load(folder, **options):
    return load_pretrained(PretrainedTokenizer(kind="pretrained", name=str(folder), **options))


def saved(vocabulary, root):
    save_tokenizer(
        vocabulary.tokenizer, root / "tokenizer", ctx_len=64, specials=vocabulary.specials
    )
    return TokenStore(root, vocabulary.size, 64, **vocabulary.ids, concepts=())


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """The folder of a tokenizer, and what is made of it."""
    folder = KINDS[request.param](tmp_path_factory.mktemp(request.param) / "original")
    return folder, load(folder)


def test_specials_differ_and_new_ones_lie_behind_the_vocabulary(pair):
    folder, vocabulary = pair
    original = transformers.AutoTokenizer.from_pretrained(folder)
    ids = vocabulary.ids
    assert len(set(ids.values())) == 3
    if original.eos_token_id is not None:
        assert ids["eos"] == original.eos_token_id
    for kind in ("pad", "bos", "eos"):
        own = getattr(original, f"{kind}_token_id")
        shared = kind == "bos" and own == original.eos_token_id
        if own is None or shared:
            assert ids[kind] >= len(original)
        else:
            assert ids[kind] == own
    assert vocabulary.size == max(*ids.values(), len(original) - 1) + 1
    before, after = original.get_vocab(), vocabulary.tokenizer.get_vocab()
    assert {token: after[token] for token in before} == before


def test_text_is_encoded_as_the_original_does(pair):
    folder, vocabulary = pair
    original = transformers.AutoTokenizer.from_pretrained(folder)
    docs = vocabulary.encode(found.TEXTS)
    ends = np.cumsum(docs.lengths_D)
    for text, ids in zip(found.TEXTS, np.split(docs.ids_T, ends[:-1]), strict=True):
        assert ids.tolist() == original(text, add_special_tokens=False)["input_ids"]


def test_transformers_reads_what_is_saved(pair, tmp_path):
    _, vocabulary = pair
    saved(vocabulary, tmp_path)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    assert (auto.pad_token_id, auto.bos_token_id, auto.eos_token_id) == tuple(
        vocabulary.ids[kind] for kind in ("pad", "bos", "eos")
    )
    assert len(auto) == vocabulary.size
    assert auto.model_max_length == 64
    for text in found.TEXTS:
        ids = auto(text, add_special_tokens=False)["input_ids"]
        assert ids == vocabulary.encode([text]).ids_T.tolist()


def test_no_document_ends_early(pair):
    _, vocabulary = pair
    spelled = "".join(vocabulary.specials)
    texts = [f"the fox{spelled}ran", *vocabulary.specials, "the fox"]
    docs = vocabulary.encode(texts, nll=range(len(texts)))
    assert not set(vocabulary.ids.values()) & set(docs.ids_T.tolist())
    # Where the vocabulary leaves no other way, such documents are left out.
    assert docs.nll_D[-1] == len(texts) - 1
    if vocabulary.specials.eos == found.END:
        assert len(docs) == len(texts)


def test_strings_are_what_tokens_add_to_a_text(pair, tmp_path):
    folder, vocabulary = pair
    strings = saved(vocabulary, tmp_path).strings()
    assert len(strings) == vocabulary.size
    text = "the fox asked the river"
    ids = vocabulary.encode([text]).ids_T.tolist()
    assert "".join(strings[i] for i in ids).strip() == text
    # Rules read one word wherever it stands, with a space before it or none.
    lexicon = Lexicon(strings)
    if folder.parent.name.startswith(("gpt2", "bert")):
        fox = strings.index(" fox")
        assert fox in ids
        assert lexicon.word_T2[fox].tolist() == [lexicon.id("fox")] * 2
        assert not any(word.startswith(" fox") for word in lexicon.words)


def test_no_word_is_named_after_a_byte_that_never_occurs(tmp_path):
    vocabulary = load(found.llama(tmp_path / "llama"))
    strings = saved(vocabulary, tmp_path).strings()
    byte, letter = (vocabulary.tokenizer.token_to_id(name) for name in ("<0x65>", "e"))
    assert byte < letter
    assert (strings[byte], strings[letter]) == ("", "e")
    # What is a token only as a byte keeps its text, or what stands for a part of a character.
    assert strings[vocabulary.tokenizer.token_to_id("<0x51>")] == "Q"
    assert strings[vocabulary.tokenizer.token_to_id("<0xF0>")] == "\ufffd"
    lexicon = Lexicon(strings)
    ids = vocabulary.encode([*found.TEXTS, "xexexe"]).ids_T
    assert letter in ids
    words = {lexicon.words[word] for word in lexicon.word_T2[ids].flatten()}
    numbered = {word for word in words if word.endswith(">") and "\ufffd" not in word}
    assert not numbered


def test_a_document_without_tokens_is_left_out(tmp_path):
    vocabulary = load(found.bert(tmp_path / "bert"))
    docs = vocabulary.encode(["the fox", "\x00\x01", "ran"], nll=[0, 1, 2])
    assert docs.nll_D.tolist() == [0, 2]
    assert docs.lengths_D.min() > 0


def test_a_pad_that_stands_for_unknown_text_is_no_pad(tmp_path):
    folder = found.llama(tmp_path / "llama")
    original = transformers.AutoTokenizer.from_pretrained(folder)
    original.pad_token = original.unk_token
    original.save_pretrained(folder)
    assert load(folder).pad == len(original)


def test_a_name_that_is_taken_is_avoided(tmp_path):
    folder = found.gpt2(tmp_path / "gpt2")
    original = transformers.AutoTokenizer.from_pretrained(folder)
    original.add_tokens(["<pad>", "<pad_>"])
    original.save_pretrained(folder)
    vocabulary = load(folder)
    assert vocabulary.specials.pad == "<pad__>"
    assert vocabulary.pad == len(original)


def test_the_size_may_be_rounded_up_and_not_down(tmp_path):
    folder = found.gpt2(tmp_path / "gpt2")
    size = load(folder).size
    vocabulary = load(folder, vocab_size=size + 5)
    assert vocabulary.size == size + 5
    strings = saved(vocabulary, tmp_path).strings()
    assert strings[size:] == [""] * 5
    assert len(Lexicon(strings).words) > 300
    with pytest.raises(
        UserError, match=f"has {size} tokens .*pad and bos added.* is 300; set it to {size} or more"
    ):
        load(folder, vocab_size=300)


def test_fingerprints_follow_the_folder(tmp_path):
    folder = found.gpt2(tmp_path / "gpt2")
    settings = PretrainedTokenizer(kind="pretrained", name=str(folder))
    before = tokenizer_fingerprints(settings)
    (folder / "model.safetensors").write_text("weights")
    assert tokenizer_fingerprints(settings) == before
    (folder / "tokenizer.json").write_text("{}")
    assert tokenizer_fingerprints(settings) != before
    on_the_hub = PretrainedTokenizer(kind="pretrained", name="EleutherAI/gpt-neo-125m")
    assert tokenizer_fingerprints(on_the_hub) == {}


OFFLINE = """
import pathlib
from clearnets import UserError
from clearnets.config import PretrainedTokenizer
from clearnets.data.pretrained_tokenizer import load_pretrained
pathlib.Path("empty").mkdir()
for name in ("EleutherAI/gpt-neo-125m", "nowhere/at/all", "empty"):
    try:
        load_pretrained(PretrainedTokenizer(kind="pretrained", name=name))
    except UserError as error:
        print(error)
"""


def test_what_cannot_be_had_is_one_line(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("EleutherAI/gpt-neo-125m", "nowhere/at/all", "empty")):
        assert line.startswith(f"tokenizer {name!r} cannot be had (")
        assert "give data.tokenizer.name a folder with tokenizer.json" in line


@pytest.mark.parametrize("content", ["{}", "[]", "null", "7", '{"model": {}}', "<html>", ""])
def test_a_file_that_holds_no_tokenizer_is_one_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"give data\.tokenizer\.name a folder"):
        load(tmp_path)
