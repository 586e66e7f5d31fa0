"""Where documents come from: the embedded storybook, or local Parquet, JSONL and text files.

A corpus gives, for each split, its documents in a fixed order. No document is in two splits.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from clearnets.artifacts import UserError, sha256
from clearnets.config import LocalText, Split, SplitTokens, Storybook

EXTENSIONS = (".parquet", ".jsonl", ".txt")
END_OF_TEXT = "<|endoftext|>"
# Splits whose tokens carry concept labels, where the corpus has them.
LABELLED: tuple[Split, ...] = ("explain", "score", "concept_fit", "concept_test")
# Documents that travel together, from a generating process or to the tokenizer.
CHUNK = 128
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


class Corpus(Protocol):
    """Documents by split. `concepts` names the bits of labels; `repeats` were left out."""

    @property
    def concepts(self) -> tuple[str, ...]: ...

    @property
    def repeats(self) -> int: ...

    def chunks(self, split: Split) -> Iterator[Chunk]:
        """The split's documents in order; without end where they are generated."""
        ...


@contextmanager
def open_corpus(
    corpus: Storybook | LocalText, tokens: SplitTokens, *, workers: int
) -> Iterator[Corpus]:
    """The corpus of a config. What it gives does not depend on the number of `workers`.

    Raises:
        UserError: a local corpus is missing, empty, unreadable or too small.
    """
    if isinstance(corpus, LocalText):
        yield _Local(read_local(corpus), corpus, tokens)
        return
    total = sum(tokens.model_dump().values())
    if workers < 2 or total < _WORTH_A_POOL:
        yield _Generated(corpus.seed, None, 1)
        return
    # Not forked: the parent has threads of the tokenizer.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        yield _Generated(corpus.seed, pool, workers)


def fingerprints(corpus: Storybook | LocalText) -> dict[str, str]:
    """SHA-256 of each file that a corpus is read from, by its path below the corpus's path."""
    if not isinstance(corpus, LocalText):
        return {}
    root = Path(corpus.path)
    return {
        file.name if file == root else file.relative_to(root).as_posix(): sha256(file)
        for file in files(root)
    }


# The storybook


def _end_with_parent() -> None:
    """In a worker: leave when the parent is gone, even killed, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _generate(seed: int, split: Split, start: int) -> Chunk:
    from clearnets.data import storybook

    stories = [storybook.story(seed, split, index) for index in range(start, start + CHUNK)]
    return Chunk(
        [story.text for story in stories],
        [story.spans for story in stories] if split in LABELLED else None,
        [story.nll for story in stories],
    )


class _Generated:
    """The storybook: any number of stories, made by a pool of processes ahead of their use."""

    repeats = 0

    def __init__(self, seed: int, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self._seed, self._pool, self._workers = seed, pool, workers

    @property
    def concepts(self) -> tuple[str, ...]:
        from clearnets.data import storybook

        return storybook.CONCEPTS

    def chunks(self, split: Split) -> Iterator[Chunk]:
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


# Local files


class _Local:
    """Documents of files, assigned to the splits in proportion to what each asks for."""

    concepts: tuple[str, ...] = ()

    def __init__(self, texts: Sequence[str], corpus: LocalText, tokens: SplitTokens) -> None:
        ordered = shuffled(texts, corpus.seed)
        self.repeats = len(texts) - len(ordered)
        wanted = {split: count for split, count in tokens.model_dump().items() if count}
        if len(ordered) < len(wanted):
            raise UserError(
                f"corpus {corpus.path} has {len(ordered)} different documents and the "
                f"{len(wanted)} splits need one each; give more text, divided into documents"
            )
        sizes = np.array([len(text.encode()) for text in ordered])
        bounds = shares(sizes, list(wanted.values()))
        self._splits = {
            split: ordered[low:high]
            for split, (low, high) in zip(wanted, itertools.pairwise(bounds))
        }

    def chunks(self, split: Split) -> Iterator[Chunk]:
        texts = self._splits.get(split, [])
        for start in range(0, len(texts), CHUNK):
            yield Chunk(texts[start : start + CHUNK])


def shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """The different ones of `texts`, in an order set by `seed` and not by where they stood."""
    prefix = f"{seed}/".encode()
    keyed = {hashlib.blake2b(prefix + t.encode(), digest_size=16).digest(): t for t in texts}
    return [keyed[key] for key in sorted(keyed)]


def shares(sizes: np.ndarray, wanted: Sequence[int]) -> list[int]:
    """Cut a list of documents into consecutive parts whose sizes are in proportion to `wanted`.

    Returns:
        The bounds, one more than there are parts. Every part gets at least one document, of
        which there must be enough.
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


def files(path: Path) -> list[Path]:
    """The corpus files at `path`: the file itself, or those of known type in a folder, sorted.

    Raises:
        UserError: there is none, or its type is unknown.
    """
    if not path.exists():
        raise UserError(f"corpus {path} is missing; correct data.corpus.path")
    known = ", ".join(EXTENSIONS)
    if path.is_file():
        if path.suffix not in EXTENSIONS:
            raise UserError(f"corpus file {path} has an unknown type; known are {known}")
        return [path]
    found = [
        file
        for file in path.rglob("*")
        if file.suffix in EXTENSIONS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise UserError(f"corpus folder {path} has no files of a known type ({known})")
    return sorted(found)


def read_local(corpus: LocalText) -> list[str]:
    """All documents of a local corpus that are not blank, file by file.

    Raises:
        UserError: one line that names the file and the cure.
    """
    texts: list[str] = []
    for file in files(Path(corpus.path)):
        match file.suffix:
            case ".parquet":
                found = _read_parquet(file, corpus.text_column)
            case ".jsonl":
                found = _read_jsonl(file, corpus.text_column)
            case _:
                found = split_text(_decode(file, file.read_bytes()))
        texts.extend(text for text in found if text.strip())
    if not texts:
        raise UserError(f"corpus {corpus.path} has no text; give a file that holds some")
    return texts


def split_text(text: str) -> list[str]:
    """Documents of a plain text: set apart by lines `<|endoftext|>`, else by blank lines."""
    lines = text.splitlines()
    marked = any(line.strip() == END_OF_TEXT for line in lines)
    separator = END_OF_TEXT if marked else ""
    groups = itertools.groupby(lines, key=lambda line: line.strip() == separator)
    return ["\n".join(group).strip() for separates, group in groups if not separates]


def _decode(file: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"corpus file {file} is not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None


def _column_error(file: Path, column: str, names: Sequence[str]) -> UserError:
    return UserError(
        f"corpus file {file} has no column {column!r}; it has {', '.join(names) or 'none'}: "
        "set data.corpus.text_column"
    )


def _checked(value: object, where: str, column: str) -> str:
    """A document's text; None counts as blank."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"{where}: {column!r} is not text but {type(value).__name__}; "
            "set data.corpus.text_column"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start} is half of a surrogate pair; remove it"
        ) from None
    return value


def _read_parquet(file: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if column not in names:
            raise _column_error(file, column, names)
        row = 0
        for batch in table.iter_batches(columns=[column]):
            for value in batch.column(0):
                row += 1
                try:
                    text = value.as_py()
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"corpus file {file}, row {row}, is not UTF-8 at byte {error.start} of "
                        "its text; convert it to UTF-8"
                    ) from None
                yield _checked(text, f"corpus file {file}, row {row}", column)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"corpus file {file} is not readable Parquet ({reason:.120}); replace it"
        ) from None


def _read_jsonl(file: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_decode(file, file.read_bytes()).split("\n"), 1):
        if not line.strip():
            continue
        where = f"corpus file {file}, line {number}"
        try:
            record: Mapping[str, object] = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}, is not JSON ({error.msg}); correct it") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}, is not a JSON object; write one object per line")
        if column not in record:
            raise _column_error(file, column, sorted(record))
        yield _checked(record[column], where, column)
