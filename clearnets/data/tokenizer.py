"""Tokenizers with distinct pad, bos and eos tokens, saved as Hugging Face folders.

A document that spells out a special token does not end there. A tokenizer trained here is a
byte-level BPE that adds no leading space to a text: decode(encode(text)) is always the text, at the
price of different tokens for a word at the beginning of a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clearnets.data.packing import Documents, carry_labels
from clearnets.pipeline.artifacts import write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Ids of the special tokens of a tokenizer trained here. For others, see `Vocabulary` and the data
# unit's meta.json.
PAD, BOS, EOS = 0, 1, 2


class Specials(NamedTuple):
    """The special tokens as strings."""

    pad: str = "<pad>"
    bos: str = "<bos>"
    eos: str = "<eos>"


SPECIALS = Specials()


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with its special tokens.

    Attributes:
        tokenizer: encodes spelled-out special tokens as text.
        specials: three different tokens of it.
        size: upper bound of token ids, exclusive.
        open_ended: documents end without eos.
    """

    tokenizer: Tokenizer
    specials: Specials
    size: int
    open_ended: bool = False

    @property
    def pad(self) -> int:
        """Id of the token that fills a row after its document."""
        return self._id(self.specials.pad)

    @property
    def bos(self) -> int:
        """Id of the token that begins a document and every row."""
        return self._id(self.specials.bos)

    @property
    def eos(self) -> int:
        """Id of the token that ends a document."""
        return self._id(self.specials.eos)

    @property
    def ids(self) -> dict[str, int]:
        """Ids of the special tokens by name."""
        return {"pad": self.pad, "bos": self.bos, "eos": self.eos}

    @property
    def packed_with(self) -> dict[str, int | None]:
        """Ids by name of the special tokens with which documents are packed."""
        return {**self.ids, "eos": None if self.open_ended else self.eos}

    def _id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        assert number is not None
        return number

    def encode(
        self,
        texts: Sequence[str],
        *,
        spans: Sequence[Sequence[tuple[int, int, int]]] | None = None,
        nll: Sequence[float] | None = None,
    ) -> Documents:
        """Encode documents, with labels if `spans` (see `carry_labels`) are given.

        Documents without any token are left out, as are those in which a special token occurs:
        some vocabularies cannot spell one out. The tokenizer's own threads work on a batch; see
        `clearnets.pipeline.runtime.tokenizer_threads`.
        """
        docs = _encode(self.tokenizer, texts, spans, nll)
        special_T = np.isin(docs.ids_T, list(self.ids.values()))
        if not special_T.any() and docs.lengths_D.all():
            return docs
        owner_T = np.repeat(np.arange(len(docs)), docs.lengths_D)
        keep_D = docs.lengths_D > 0
        keep_D[owner_T[special_T]] = False
        return docs.select(keep_D)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train a BPE on `texts`; a small corpus may give fewer than `vocab_size` tokens."""
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


def save_tokenizer(
    tokenizer: Tokenizer, folder: Path, *, ctx_len: int, specials: Specials = SPECIALS
) -> None:
    """Write a folder that `transformers.AutoTokenizer.from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {f"{name}_token": token for name, token in specials._asdict().items()}
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


def _encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int, int]]] | None,
    nll: Sequence[float] | None,
) -> Documents:
    if spans is None:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        labels_T = None
    else:
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        labels = [
            carry_labels(np.array(encoding.offsets).reshape(-1, 2), of, text)
            for encoding, of, text in zip(encodings, spans, texts, strict=True)
        ]
        labels_T = np.concatenate([np.zeros(0, np.uint64), *labels])
    ids = [np.array(encoding.ids, np.uint32) for encoding in encodings]
    return Documents(
        np.concatenate([np.zeros(0, np.uint32), *ids]),
        np.array([len(part) for part in ids], np.int64),
        labels_T,
        np.zeros(len(ids)) if nll is None else np.array(nll, np.float64),
    )
