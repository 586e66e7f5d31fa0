"""The reader of `artifacts/data`: token rows, concept labels, and the mask of counted positions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearnets import UserError
from clearnets.pipeline.artifacts import missing, read_json, remake

MOST_LOGITS = 2**26
"""That are held at once, a quarter of a gigabyte, and what is computed from them beside it."""


@dataclass(frozen=True)
class TokenStore:
    """The packed tokens of one corpus.

    Attributes:
        root: folder of the data unit.
        vocab_size: size of the vocabulary, special tokens included.
        ctx_len: tokens per row.
        pad, bos, eos: ids of the special tokens.
        concepts: bit i of a label is `concepts[i]`; empty where the corpus has no labels.
        open_ended: documents end without eos, and each held-out row begins one.
    """

    root: Path
    vocab_size: int
    ctx_len: int
    pad: int
    bos: int
    eos: int
    concepts: tuple[str, ...]
    open_ended: bool = False

    def split(self, name: str) -> np.ndarray:
        """Return the rows (rows, ctx_len) of a split, memory-mapped; each begins with bos.

        Raises:
            UserError: its file is missing or damaged.
        """
        path = self.root / "tokens" / f"{name}.npy"
        if not path.exists():
            raise UserError(missing(path))
        return _open(path)

    def labels(self, name: str) -> np.ndarray | None:
        """Return the concept bitmasks (rows, ctx_len) uint64 of a split, or None if it has none."""
        path = self.root / "labels" / f"{name}.npy"
        return _open(path) if path.exists() else None

    def counted(self, tokens: np.ndarray) -> np.ndarray:
        """Return the mask of the positions of `tokens` (rows, ctx_len) that every family counts.

        Not counted are bos, eos, pad and the first position of a row.
        """
        mask = (tokens != self.pad) & (tokens != self.bos) & (tokens != self.eos)
        mask[..., 0] = False
        return mask

    def rows_at_once(self, most: int) -> int:
        """Return how many rows a forward pass with logits takes: `most`, or what fits into memory
        with a large vocabulary."""
        return max(1, min(most, MOST_LOGITS // (self.ctx_len * self.vocab_size)))

    def strings(self) -> list[str]:
        """Return what each token id adds to a text, with its leading space if it has one.

        Parts of a character decode to U+FFFD, and unused ids to nothing. So do the bytes of a
        tokenizer that falls back on them (`<0x6C>`), where another token is the same text: it is
        the one that occurs.
        """
        from tokenizers import Tokenizer, decoders

        tokenizer = Tokenizer.from_file(str(self.root / "tokenizer" / "tokenizer.json"))

        def text(*ids: int) -> str:
            return tokenizer.decode(list(ids), skip_special_tokens=False)

        before: tuple[int, ...] = ()
        if not isinstance(tokenizer.decoder, decoders.ByteLevel):
            # Other decoders treat the first token of a text differently: they remove its leading
            # space, or add none.
            before = tuple(tokenizer.encode("a", add_special_tokens=False).ids)
        start = len(text(*before))
        strings = [text(*before, token)[start:] for token in range(self.vocab_size)]
        names = [tokenizer.id_to_token(token) or "" for token in range(self.vocab_size)]
        is_byte = [re.fullmatch(r"<0x[0-9A-F]{2}>", name) is not None for name in names]
        plain = {string for string, byte in zip(strings, is_byte) if not byte}
        return [
            "" if byte and string in plain else string for string, byte in zip(strings, is_byte)
        ]


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise UserError(f"{path} is damaged; {remake(path)}") from None


def open_tokens(root: Path) -> TokenStore:
    """Open the data unit at `root` (`paths.data()`).

    Raises:
        UserError: it is missing or unreadable.
    """
    meta = read_json(root / "meta.json")
    sizes = {key: meta[key] for key in ("vocab_size", "ctx_len", "pad", "bos", "eos")}
    concepts, open_ended = tuple(meta["concepts"]), meta.get("open_ended", False)
    return TokenStore(root, **sizes, concepts=concepts, open_ended=open_ended)
