"""Text corpora by split: the embedded storybook, local files, or a dataset of the hub.

A corpus gives, for each split, its documents in a fixed order. No document is in two splits. Text
from files or the hub is divided in one of two ways:

- all at once: the distinct documents, ordered by a hash of their text, are cut into parts, exactly
  in proportion to the tokens that the splits need;
- streaming: the same hash assigns each document to a split, whatever else the source holds. The
  source is read once, in its order and only as far as is needed; documents that come before their
  split is filled are stored on disk.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import multiprocessing
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clearnets import UserError
from clearnets.config import HubText, LocalText, Split, SplitTokens, Storybook
from clearnets.data import files, hub
from clearnets.pipeline.processes import end_with_parent

if TYPE_CHECKING:
    from datasets.arrow_dataset import Column

# Splits whose tokens carry concept labels, where the corpus has them.
LABELLED: tuple[Split, ...] = ("explain", "score", "concept_fit", "concept_test")
# Documents in a chunk: of generated text, and of text that is read.
CHUNK = 128
BATCH = 1024
# Below this many tokens in all, starting processes costs more than it saves.
_WORTH_A_POOL = 300_000


@dataclass(frozen=True)
class Chunk:
    """Some documents of a split.

    Attributes:
        texts: the documents, none blank.
        spans: per document (start, end, concept bitmask) of its words, or None.
        nll: per document the nats of the generator's choices, or None.
    """

    texts: Sequence[str]
    spans: Sequence[Sequence[tuple[int, int, int]]] | None = None
    nll: Sequence[float] | None = None


class Corpus:
    """Documents by split.

    Attributes:
        concepts: names of the bits of labels; none where documents have no labels.
        repeats: number of repeated documents that were left out, as far as it is known.
    """

    concepts: tuple[str, ...] = ()
    repeats = 0

    def chunks(self, split: Split) -> Generator[Chunk]:
        """Yield the split's documents in order; without end where they are generated.

        Call it once per split, and close it when no more documents are needed.
        """
        raise NotImplementedError


@contextmanager
def open_corpus(
    corpus: Storybook | LocalText | HubText, tokens: SplitTokens, *, workers: int, waiting: Path
) -> Iterator[Corpus]:
    """Open the corpus of a config. Its documents do not depend on the number of `workers`.

    Args:
        corpus: the corpus's settings.
        tokens: how many tokens each split needs.
        workers: processes that generate stories.
        waiting: a folder for documents that a stream gives before their split is filled.

    Raises:
        UserError: the corpus is missing, empty, unreadable or too small.
    """
    if isinstance(corpus, Storybook):
        with _storybook(corpus, tokens, workers=workers) as generated:
            yield generated
        return
    if corpus.streaming:
        texts = _read(corpus) if isinstance(corpus, LocalText) else hub.stream(corpus)
        with closing(_Streamed(texts, corpus.seed, tokens, waiting)) as streamed:
            yield streamed
    elif isinstance(corpus, LocalText):
        texts = np.array(list(_read(corpus)), dtype=object)
        yield _Divided(texts, corpus.seed, tokens, corpus.path)
    else:
        yield _Divided(hub.download(corpus), corpus.seed, tokens, corpus.name)


def _read(corpus: LocalText) -> Iterator[str]:
    return files.read(Path(corpus.path), corpus.text_column, corpus.split)


def fingerprints(corpus: Storybook | LocalText | HubText) -> dict[str, str]:
    """Return the SHA-256 of each file of a local corpus, by its path below the corpus's path."""
    if not isinstance(corpus, LocalText):
        return {}
    root = Path(corpus.path)
    return files.hashes(root, files.of_split(root, corpus.split))


# The storybook


@contextmanager
def _storybook(corpus: Storybook, tokens: SplitTokens, *, workers: int) -> Iterator[_Generated]:
    total = sum(tokens.model_dump().values())
    if workers < 2 or total < _WORTH_A_POOL:
        yield _Generated(corpus.seed, None, 1)
        return
    # Not forked: the parent has threads of the tokenizer.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        yield _Generated(corpus.seed, pool, workers)


def _generate(seed: int, split: Split, start: int) -> Chunk:
    from clearnets.data import storybook

    stories = [storybook.story(seed, split, index) for index in range(start, start + CHUNK)]
    return Chunk(
        [story.text for story in stories],
        [story.spans for story in stories] if split in LABELLED else None,
        [story.nll for story in stories],
    )


class _Generated(Corpus):
    """Stories without end, generated ahead of their use by a pool of processes."""

    def __init__(self, seed: int, pool: ProcessPoolExecutor | None, workers: int) -> None:
        from clearnets.data import storybook

        self._seed, self._pool, self._workers = seed, pool, workers
        self.concepts = storybook.CONCEPTS

    def chunks(self, split: Split) -> Generator[Chunk]:
        starts = itertools.count(0, CHUNK)
        if self._pool is None:
            for start in starts:
                yield _generate(self._seed, split, start)
        else:
            pending: deque[Future[Chunk]] = deque()
            try:
                while True:
                    while len(pending) < 2 * self._workers:
                        task = self._pool.submit(_generate, self._seed, split, next(starts))
                        pending.append(task)
                    yield pending.popleft().result()
            finally:
                for task in pending:
                    task.cancel()


# Text of files and of the hub


class _Divided(Corpus):
    """Documents with random access, divided in proportion to the tokens that each split needs.

    They are given in an array or a column of datasets, which both take lists of indices.
    """

    def __init__(
        self, texts: np.ndarray | Column, seed: int, tokens: SplitTokens, name: str
    ) -> None:
        self._texts = texts
        order, sizes, self.repeats = shuffled(texts, seed)
        if not len(order):
            raise UserError(f"corpus {name} has no text; give one that holds some")
        wanted = {split: count for split, count in tokens.model_dump().items() if count}
        if len(order) < len(wanted):
            raise UserError(
                f"corpus {name} has {len(order)} different documents and the "
                f"{len(wanted)} splits need one each; give more text, divided into documents"
            )
        bounds = shares(sizes, list(wanted.values()))
        self._splits = {
            split: order[low:high] for split, (low, high) in zip(wanted, itertools.pairwise(bounds))
        }

    def chunks(self, split: Split) -> Generator[Chunk]:
        order = self._splits.get(split, np.zeros(0, np.int64))
        for start in range(0, len(order), BATCH):
            yield Chunk(list(self._texts[order[start : start + BATCH].tolist()]))


class _Streamed(Corpus):
    """Documents of a stream, each assigned to a split by a hash of its text."""

    def __init__(self, texts: Iterator[str], seed: int, tokens: SplitTokens, waiting: Path) -> None:
        self._texts, self._seed = texts, seed
        wanted = {split: count for split, count in tokens.model_dump().items() if count}
        self._splits, self._counts = list(wanted), list(wanted.values())
        # For each split that is not filled yet, the documents that came before.
        self._waiting = {
            split: (waiting / f"{split}.jsonl").open("w+", encoding="utf-8") for split in wanted
        }

    def chunks(self, split: Split) -> Generator[Chunk]:
        if split not in self._waiting:
            return
        stored = self._waiting[split]
        try:
            stored.seek(0)
            while lines := list(itertools.islice(stored, BATCH)):
                yield Chunk([json.loads(line) for line in lines])
            # A chunk may be small: BATCH documents of this split may take the whole source.
            while texts := list(itertools.islice(self._texts, BATCH)):
                if mine := self._sorted(texts, split):
                    yield Chunk(mine)
        finally:
            self._waiting.pop(split).close()

    def _sorted(self, texts: Iterable[str], split: Split) -> list[str]:
        """Return the texts that belong to `split`, and store those of splits to come."""
        mine = []
        for text in texts:
            if not text.strip():
                continue
            owner = self._splits[draw(text, self._seed, self._counts)]
            if owner == split:
                mine.append(text)
            elif owner in self._waiting:
                self._waiting[owner].write(json.dumps(text) + "\n")
        return mine

    def close(self) -> None:
        """Close the files."""
        for file in self._waiting.values():
            file.close()


def digest(text: str, seed: int) -> bytes:
    """Return a hash of a text and a seed, 16 bytes."""
    return hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=16).digest()


def draw(text: str, seed: int, wanted: Sequence[int]) -> int:
    """Return the index of the part that a text belongs to, of parts in proportion to `wanted`."""
    point = int.from_bytes(digest(text, seed), "big") * sum(wanted) >> 128
    return bisect.bisect_right(list(itertools.accumulate(wanted)), point)


def shuffled(texts: Iterable[str | None], seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the distinct texts that are not blank, in an order set by their hashes and `seed`.

    Returns:
        The first index of each (D,), its size in bytes (D,), and how many repeats were left out.
    """
    digests, indices, sizes = bytearray(), array("q"), array("q")
    for index, text in enumerate(texts):
        if text and text.strip():
            digests += digest(text, seed)
            indices.append(index)
            sizes.append(len(text.encode()))
    _, first = np.unique(np.frombuffer(bytes(digests), "S16"), return_index=True)
    indices_D, sizes_D = (np.array(column, np.int64)[first] for column in (indices, sizes))
    return indices_D, sizes_D, len(indices) - len(first)


def shares(sizes: np.ndarray, wanted: Sequence[int]) -> list[int]:
    """Cut a list of documents into consecutive parts whose sizes are in proportion to `wanted`.

    Returns:
        The bounds, one more than there are parts. Every part gets at least one document, so
        there must be at least as many documents as parts.
    """
    count, parts = len(sizes), len(wanted)
    assert count >= parts
    middles = np.cumsum(sizes) - sizes / 2
    targets = np.cumsum(wanted) / sum(wanted) * sizes.sum()
    bounds = [0, *np.searchsorted(middles, targets).tolist()]
    bounds[-1] = count
    for part in range(1, parts):
        bounds[part] = min(max(bounds[part], bounds[part - 1] + 1), count - (parts - part))
    return bounds
