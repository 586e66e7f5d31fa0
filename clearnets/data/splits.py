"""Fill the splits: tokenizer, packed rows, concept labels, statistics of a corpus."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearnets import UserError
from clearnets.config import Data, PretrainedTokenizer, RestrictedTokenizer, Split
from clearnets.data import ngrams
from clearnets.data.corpora import LABELLED, Chunk, Corpus
from clearnets.data.packing import (
    Documents,
    Hashes,
    concatenate,
    drop_leaks,
    drop_repeats,
    pack_single,
    stream,
    until,
)
from clearnets.data.pretrained_tokenizer import load_pretrained
from clearnets.data.restricted_tokenizer import load_restricted
from clearnets.data.tokenizer import SPECIALS, Vocabulary, save_tokenizer, train_tokenizer
from clearnets.data.train_files import DocumentFiles, RowFile, narrow
from clearnets.pipeline.artifacts import write_json
from clearnets.pipeline.progress import Progress

# Splits that share no window with those of KNOWN; they are filled last.
GUARDED: tuple[Split, ...] = ("score", "concept_test")
KNOWN: tuple[Split, ...] = ("train", "explain", "concept_fit")
ORDER: tuple[Split, ...] = (*KNOWN, "valid", *GUARDED)
# The n-gram models are fitted to the first so many tokens of the train split.
NGRAM_TOKENS = 10_000_000


@dataclass
class _Tally:
    """Counts of one split: documents without special tokens, and rows with them."""

    documents: int = 0
    tokens: int = 0
    longest: int = 0
    repeats: int = 0
    leaks: int = 0
    unusable: int = 0
    rows: int = 0
    filled: int = 0

    @property
    def size(self) -> int:
        """Tokens of the documents with their bos and eos."""
        return self.tokens + 2 * self.documents


class _Filler:
    """Encode documents of a corpus until each split is full, and count them."""

    def __init__(self, data: Data, vocabulary: Vocabulary, bar: Progress) -> None:
        self.data, self.vocabulary = data, vocabulary
        self._bar = bar
        self._wanted = data.tokens.model_dump()
        self._seen = Hashes()
        self._tallies: dict[Split, _Tally] = {split: _Tally() for split in ORDER}

    def fill(
        self,
        chunks: Iterator[Chunk],
        split: Split,
        known: Callable[[], Iterable[Documents]] | None = None,
    ) -> Iterator[Documents]:
        """Yield encoded documents without repeats until the split is full.

        Documents that share a window with `known` are left out, too. As `known` may be large, it is
        read once for all documents that the split needs, and again for those that replace leaks.
        """
        tally = self._tallies[split]
        if known is None:
            for docs in self._fresh(chunks, split):
                yield self._take(docs, split)
            return
        while fresh := list(self._fresh(chunks, split)):
            docs = concatenate(fresh)
            clean = drop_leaks(docs, known())
            tally.leaks += len(docs) - len(clean)
            yield self._take(clean, split)

    def _fresh(self, chunks: Iterator[Chunk], split: Split) -> Iterator[Documents]:
        """Yield encoded documents that are in no split yet, as many as this one still needs."""
        tally = self._tallies[split]
        missing, usable = self._wanted[split] - tally.size, tally.documents
        while missing > 0 and (chunk := next(chunks, None)) is not None:
            docs = self.vocabulary.encode(chunk.texts, spans=chunk.spans, nll=chunk.nll)
            fresh = drop_repeats(docs, self._seen)
            tally.unusable += len(chunk.texts) - len(docs)
            tally.repeats += len(docs) - len(fresh)
            missing -= len(fresh.ids_T) + 2 * len(fresh)
            usable += len(fresh)
            yield fresh
            if tally.repeats + tally.leaks > 1000 + 20 * usable:
                raise UserError(
                    f"split {split!r} cannot be filled: {tally.leaks} documents share a window of "
                    f"text with other splits and {tally.repeats} are repeats, {usable} are left; "
                    "lower data.tokens"
                )

    def _take(self, docs: Documents, split: Split) -> Documents:
        """Return the first of `docs`, as many as the split still needs, and count them."""
        tally = self._tallies[split]
        taken = until(docs, self._wanted[split] - tally.size)
        before = tally.size
        tally.documents += len(taken)
        tally.tokens += len(taken.ids_T)
        tally.longest = max(tally.longest, int(taken.lengths_D.max(initial=0)))
        self._bar.advance(tally.size - before, split)
        return taken

    def count_rows(self, split: Split, rows: int, filled: int) -> None:
        """Record that a split has become `rows` rows with `filled` tokens.

        Raises:
            UserError: the split needs tokens and has no row.
        """
        tally = self._tallies[split]
        tally.rows, tally.filled = rows, filled
        if self._wanted[split] and not rows:
            left_out = ""
            if tally.repeats or tally.leaks:
                left_out = (
                    f" ({tally.repeats} repeated documents and {tally.leaks} that share text with "
                    "other splits were left out)"
                )
            raise UserError(
                f"the corpus has too little text: split {split!r} does not fill a row of "
                f"{self.data.ctx_len} tokens{left_out}; give more text or a larger "
                f"data.tokens.{split}"
            )

    def stats(self) -> dict[Split, dict[str, Any]]:
        """Return the statistics of each split for `stats.json`."""
        found: dict[Split, dict[str, Any]] = {}
        for split, tally in self._tallies.items():
            found[split] = {
                "documents": tally.documents,
                "rows": tally.rows,
                "tokens": tally.filled,
                "tokens_wanted": self._wanted[split],
                "mean_length": tally.tokens / tally.documents if tally.documents else 0.0,
                "max_length": tally.longest,
                "repeats_dropped": tally.repeats,
                "leaks_dropped": tally.leaks,
            }
            if tally.unusable:
                found[split]["unusable_dropped"] = tally.unusable
        return found


def build(data: Data, corpus: Corpus, out: Path, state: Path, bar: Progress) -> None:
    """Tokenize and pack `corpus` into the folder `out`, with temporary files in `state`.

    The train split goes to the disk as it comes and may be of any size; the others are held in
    memory.

    Raises:
        UserError: there is too little text for a split that asks for some.
    """
    with closing(corpus.chunks("train")) as chunks:
        sample = deque(_sample(chunks, characters=_sample_size(data)))
        vocabulary = _vocabulary(data, [text for chunk in sample for text in chunk.texts])
        filler = _Filler(data, vocabulary, bar)
        train = DocumentFiles(state, vocab_size=vocabulary.size)
        packed = RowFile(
            out / "tokens" / "train.npy",
            vocabulary,
            ctx_len=data.ctx_len,
            max_rows=data.tokens.train // data.ctx_len,
        )
        with closing(packed):
            for docs in filler.fill(itertools.chain(_emptied(sample), chunks), "train"):
                train.append(docs)
                packed.append(docs)
    filler.count_rows("train", packed.rows, packed.rows * data.ctx_len)

    with closing(train):
        held = _fill_held_out(filler, corpus, train)
        rows = {split: _pack(docs, split, filler, out) for split, docs in held.items()}
        losses = _losses(train.head(NGRAM_TOKENS), rows["valid"], vocabulary)
        if train.tokens > NGRAM_TOKENS:
            losses["ngram_tokens"] = NGRAM_TOKENS

    save_tokenizer(
        vocabulary.tokenizer,
        out / "tokenizer",
        ctx_len=data.ctx_len,
        specials=vocabulary.specials,
    )
    meta: dict[str, Any] = {"vocab_size": vocabulary.size, "ctx_len": data.ctx_len}
    meta |= {**vocabulary.ids, **({"open_ended": True} if vocabulary.open_ended else {})}
    write_json(out / "meta.json", {**meta, "concepts": list(corpus.concepts)})
    if corpus.concepts:
        # An upper bound of the text's entropy: different choices may give the same text. Every
        # token but bos is predicted, eos too.
        valid, ends = held["valid"], not vocabulary.open_ended
        losses["generator_bound"] = float(valid.nll_D.sum() / (valid.lengths_D + ends).sum())
    stats = {"vocab_size": vocabulary.size, **losses, "repeats": corpus.repeats}
    write_json(out / "stats.json", {**stats, "splits": filler.stats()})


def _fill_held_out(filler: _Filler, corpus: Corpus, train: DocumentFiles) -> dict[Split, Documents]:
    """Return the documents of all splits but train."""
    held: dict[Split, Documents] = {}

    def known() -> Iterator[Documents]:
        yield from train.blocks()
        yield from (held[split] for split in KNOWN[1:])

    for split in ORDER[1:]:
        with closing(corpus.chunks(split)) as chunks:
            guarded = split in GUARDED
            parts = filler.fill(chunks, split, known if guarded else None)
            held[split] = concatenate(list(parts))
    return held


def _pack(docs: Documents, split: Split, filler: _Filler, out: Path) -> np.ndarray:
    """Write the rows of a held-out split and their labels; return the rows."""
    vocabulary = filler.vocabulary
    packed_with: Any = vocabulary.packed_with
    rows_RS, labels_RS = pack_single(docs, ctx_len=filler.data.ctx_len, **packed_with)
    filler.count_rows(split, len(rows_RS), int((rows_RS != vocabulary.pad).sum()))
    _save(out / "tokens" / f"{split}.npy", rows_RS.astype(narrow(vocabulary.size)))
    if labels_RS is not None and split in LABELLED:
        _save(out / "labels" / f"{split}.npy", labels_RS)
    return rows_RS


def _losses(train: Documents, valid_RS: np.ndarray, vocabulary: Vocabulary) -> dict[str, float]:
    """Return the losses of n-gram models on `valid_RS`, in nats per token."""
    bos, pad = vocabulary.bos, vocabulary.pad
    text = stream(train, bos=bos, eos=vocabulary.packed_with["eos"])
    return ngrams.losses(text, valid_RS.reshape(-1), vocab_size=vocabulary.size, bos=bos, pad=pad)


def _emptied(sample: deque[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks and free each one, so that the sample is not held while it is packed."""
    while sample:
        yield sample.popleft()


def _sample_size(data: Data) -> int:
    """Return how many characters of text a tokenizer is trained on or restricted by.

    Enough for useful merges, but hardly more than the train split holds: a token is about four
    characters.
    """
    if isinstance(data.tokenizer, PretrainedTokenizer):
        return 0
    return min(max(4_000_000, 2_000 * data.vocab_size), 4 * data.tokens.train)


def _sample(chunks: Iterator[Chunk], *, characters: int) -> Iterator[Chunk]:
    """Yield the first chunks with `characters` characters of text in all, or all there are."""
    count = 0
    while count < characters and (chunk := next(chunks, None)) is not None:
        count += sum(map(len, chunk.texts))
        yield chunk


def _vocabulary(data: Data, texts: Sequence[str]) -> Vocabulary:
    """Return the tokenizer that `data` names, trained on or restricted by `texts`."""
    settings = data.tokenizer
    if isinstance(settings, PretrainedTokenizer):
        return load_pretrained(settings)
    if isinstance(settings, RestrictedTokenizer):
        return load_restricted(settings, texts)
    tokenizer = train_tokenizer(texts, vocab_size=settings.vocab_size)
    return Vocabulary(tokenizer, SPECIALS, tokenizer.get_vocab_size())


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, array, allow_pickle=False)
