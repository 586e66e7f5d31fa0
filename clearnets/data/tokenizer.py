"""Byte-level BPE, trained on the corpus and saved as a Hugging Face tokenizer.

pad, bos and eos are defined and differ, so that no library must be patched for one that is
missing. No space is put before a text: decode(encode(text)) is the text, whatever it is, at the
price of a token of its own for the word that begins a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clearnets.artifacts import write_json
from clearnets.data.packing import Documents, carry_labels

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, EOS = 0, 1, 2
SPECIALS = ("<pad>", "<bos>", "<eos>")


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn the merges from `texts`; a small corpus may give fewer than `vocab_size` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert [tokenizer.token_to_id(token) for token in SPECIALS] == [PAD, BOS, EOS]
    # A document that spells out "<eos>" must not end there.
    tokenizer.encode_special_tokens = True
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, ctx_len: int) -> None:
    """Write a folder that `transformers.AutoTokenizer.from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIALS))
    write_json(folder / "special_tokens_map.json", named)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **named,
            "model_max_length": ctx_len,
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
        },
    )


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    spans: Sequence[Sequence[tuple[int, int, int]]] | None = None,
    nll: Sequence[float] | None = None,
) -> Documents:
    """Token ids of documents, with labels where `spans` (as of `carry_labels`) are given."""
    if spans is None:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        labels_T = None
    else:
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        labels = [
            carry_labels(np.array(encoding.offsets), of, text)
            for encoding, of, text in zip(encodings, spans, texts, strict=True)
        ]
        labels_T = np.concatenate([np.zeros(0, np.uint64), *labels])
    ids = [np.array(encoding.ids, np.uint32) for encoding in encodings]
    assert all(map(len, ids)), "an empty document"
    return Documents(
        np.concatenate([np.zeros(0, np.uint32), *ids]),
        np.array([len(part) for part in ids], np.int64),
        labels_T,
        np.zeros(len(ids)) if nll is None else np.array(nll, np.float64),
    )
