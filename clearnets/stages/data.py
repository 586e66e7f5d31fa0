"""The `data` stage: corpus, tokenizer, packed tokens and concept labels per split."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets import paths
from clearnets.artifacts import Unit, UserError, build_all, fingerprint, publish, write_json
from clearnets.config import Config, Data, Split
from clearnets.data import ngrams
from clearnets.data.corpora import LABELLED, Chunk, Corpus, fingerprints, open_corpus
from clearnets.data.packing import (
    Documents,
    concatenate,
    drop_leaks,
    drop_repeats,
    known_windows,
    pack_dense,
    pack_single,
    stream,
    until,
)
from clearnets.data.tokenizer import (
    BOS,
    EOS,
    PAD,
    encode,
    save_tokenizer,
    train_tokenizer,
)
from clearnets.progress import Progress, progress
from clearnets.runtime import Runtime

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Splits that share no window with those of KNOWN; they are filled last.
GUARDED: tuple[Split, ...] = ("score", "concept_test")
KNOWN: tuple[Split, ...] = ("train", "explain", "concept_fit")
ORDER: tuple[Split, ...] = (*KNOWN, "valid", *GUARDED)


def units(config: Config) -> list[Unit]:
    """The one unit of this stage. A local corpus is known by the content of its files."""
    settings: dict[str, Any] = config.dump("data")
    hashes = fingerprints(config.data.corpus)
    if hashes:
        recorded = getattr(config.data.corpus, "fingerprint", None)
        if recorded not in (None, fingerprint(hashes)):
            path = getattr(config.data.corpus, "path", "the corpus")
            command = f"clearnets exp {config.experiment}"
            raise UserError(f"{path} has changed since it was recorded; run `{command}`")
        settings["files"] = hashes
    return [Unit(stage="data", out=paths.data(), settings=settings, inputs={})]


def run(config: Config, *, runtime: Runtime) -> None:
    """Write `artifacts/data` and its metrics."""
    workers = runtime.num_threads
    for _, work in build_all(units(config)):
        # Nothing is resumed: files that a killed run left are in the way.
        shutil.rmtree(work.out)
        work.out.mkdir()
        tokens = config.data.tokens
        with (
            open_corpus(config.data.corpus, tokens, workers=workers) as corpus,
            progress("data", sum(tokens.model_dump().values()), "tokens") as bar,
        ):
            build(config.data, corpus, work.out, bar)
    publish(paths.data() / "stats.json", paths.metrics("data"))


@dataclass(frozen=True)
class _Filled:
    """The documents of a split, and how many were left out: repeats, leaks."""

    docs: Documents
    repeats: int
    leaks: int


def build(data: Data, corpus: Corpus, out: Path, bar: Progress) -> None:
    """Tokenize and pack `corpus` into the folder `out`.

    Raises:
        UserError: there is too little text for a split that asks for some.
    """
    train_chunks = corpus.chunks("train")
    # Enough text for merges that are worth having, but hardly more than the train split holds:
    # a token is about four characters.
    enough = min(max(4_000_000, 2_000 * data.vocab_size), 4 * data.tokens.train)
    sample = _sample(train_chunks, characters=enough)
    texts = (text for chunk in sample for text in chunk.texts)
    tokenizer = train_tokenizer(texts, vocab_size=data.vocab_size)
    save_tokenizer(tokenizer, out / "tokenizer", ctx_len=data.ctx_len)
    vocab_size = tokenizer.get_vocab_size()

    seen: set[int] = set()
    filled: dict[Split, _Filled] = {}
    known = np.zeros(0, np.uint64)
    for split in ORDER:
        if split == GUARDED[0]:
            known = known_windows(filled[name].docs for name in KNOWN)
        chunks = itertools.chain(sample, train_chunks) if split == "train" else corpus.chunks(split)
        filled[split] = _fill(
            chunks,
            tokenizer,
            split=split,
            tokens=getattr(data.tokens, split),
            known=known if split in GUARDED else None,
            seen=seen,
            bar=bar,
        )
        if split == "train":
            sample.clear()

    rows: dict[Split, np.ndarray] = {}
    specials = {"bos": BOS, "eos": EOS}
    for split, part in filled.items():
        if split == "train":
            rows[split] = pack_dense(part.docs, ctx_len=data.ctx_len, **specials)
            rows[split] = rows[split][: data.tokens.train // data.ctx_len]
            labels = None
        else:
            rows[split], labels = pack_single(part.docs, ctx_len=data.ctx_len, pad=PAD, **specials)
        if getattr(data.tokens, split) and not len(rows[split]):
            left_out = ""
            if part.repeats or part.leaks:
                left_out = (
                    f" ({part.repeats} repeated documents and {part.leaks} that share text with "
                    "other splits were left out)"
                )
            raise UserError(
                f"the corpus has too little text: split {split!r} does not fill a row of "
                f"{data.ctx_len} tokens{left_out}; give more text or a larger data.tokens.{split}"
            )
        _save(out / "tokens" / f"{split}.npy", _narrow(rows[split], vocab_size))
        if labels is not None and split in LABELLED:
            _save(out / "labels" / f"{split}.npy", labels)

    meta = {"vocab_size": vocab_size, "ctx_len": data.ctx_len, "pad": PAD, "bos": BOS, "eos": EOS}
    write_json(out / "meta.json", {**meta, "concepts": list(corpus.concepts)})
    stats = _stats(data, corpus, filled, rows, vocab_size)
    write_json(out / "stats.json", stats)


def _sample(chunks: Iterator[Chunk], *, characters: int) -> list[Chunk]:
    """The first chunks with `characters` characters of text in all, or as many as there are."""
    taken: list[Chunk] = []
    count = 0
    for chunk in chunks:
        taken.append(chunk)
        count += sum(map(len, chunk.texts))
        if count >= characters:
            break
    return taken


def _fill(
    chunks: Iterator[Chunk],
    tokenizer: Tokenizer,
    *,
    split: Split,
    tokens: int,
    known: np.ndarray | None,
    seen: set[int],
    bar: Progress,
) -> _Filled:
    """Encode documents until there are `tokens` tokens, leaving out repeats and leaks."""
    parts: list[Documents] = []
    count = repeats = leaks = 0
    while count < tokens and (chunk := next(chunks, None)) is not None:
        docs = encode(tokenizer, chunk.texts, spans=chunk.spans, nll=chunk.nll)
        fresh = drop_repeats(docs, seen)
        clean = fresh if known is None else drop_leaks(fresh, known)
        taken = until(clean, tokens - count)
        repeats += len(docs) - len(fresh)
        leaks += len(fresh) - len(clean)
        size = len(taken.ids_T) + 2 * len(taken)
        count += size
        parts.append(taken)
        bar.advance(size, split)
        kept = sum(map(len, parts))
        if repeats + leaks > 1000 + 20 * kept:
            raise UserError(
                f"split {split!r} cannot be filled: {leaks} documents share a window of text with "
                f"other splits and {repeats} are repeats, {kept} are left; lower data.tokens"
            )
    return _Filled(concatenate(parts), repeats, leaks)


def _narrow(rows_RS: np.ndarray, vocab_size: int) -> np.ndarray:
    return rows_RS.astype(np.uint16 if vocab_size < 65536 else np.uint32)


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, array, allow_pickle=False)


def _stats(
    data: Data,
    corpus: Corpus,
    filled: dict[Split, _Filled],
    rows: dict[Split, np.ndarray],
    vocab_size: int,
) -> dict[str, Any]:
    """Sizes, what was left out, and the losses that a model is compared with, in nats."""
    valid = filled["valid"].docs
    stats: dict[str, Any] = {
        "vocab_size": vocab_size,
        **ngrams.losses(
            stream(filled["train"].docs, bos=BOS, eos=EOS),
            rows["valid"].reshape(-1),
            vocab_size=vocab_size,
            bos=BOS,
            pad=PAD,
        ),
    }
    if corpus.concepts:
        # An upper bound of the text's entropy: different choices may give the same text. Every
        # token but bos is predicted, eos too.
        stats["generator_bound"] = float(valid.nll_D.sum() / (valid.lengths_D + 1).sum())
    wanted = data.tokens.model_dump()
    stats["repeats"] = corpus.repeats
    stats["splits"] = {
        split: {
            "documents": len(part.docs),
            "rows": len(rows[split]),
            "tokens": int((rows[split] != PAD).sum()),
            "tokens_wanted": wanted[split],
            "mean_length": float(part.docs.lengths_D.mean()) if len(part.docs) else 0.0,
            "max_length": int(part.docs.lengths_D.max(initial=0)),
            "repeats_dropped": part.repeats,
            "leaks_dropped": part.leaks,
        }
        for split, part in filled.items()
    }
    return stats
