"""Documents of Parquet, JSONL and plain-text files, read lazily and in order.

A folder may have the hub's layout, where file names give the split. Splits and slices such as
`train[:2%]` are found by datasets, as in `datasets.load_dataset(folder)`, except that a README's
`configs` are ignored.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from clearnets import UserError
from clearnets.pipeline.artifacts import sha256

EXTENSIONS = (".parquet", ".jsonl", ".txt")
END_OF_TEXT = "<|endoftext|>"


# Which files


def corpus_files(path: Path) -> list[Path]:
    """Return the corpus files at `path`: the file itself, or all of known types in a folder.

    Raises:
        UserError: there is no file, or its type is unknown.
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


def layout(path: Path) -> dict[str, list[Path]]:
    """Return the files of each split of a folder in the hub's layout; else all are `train`.

    Raises:
        UserError: as `corpus_files`.
    """
    found = corpus_files(path)
    if path.is_file():
        return {"train": found}
    from datasets.data_files import DataFilesDict, get_data_patterns

    patterns = get_data_patterns(str(path))
    splits = DataFilesDict.from_patterns(patterns, str(path), allowed_extensions=list(EXTENSIONS))
    root = path.absolute()
    return {
        str(split): sorted({path / Path(file).relative_to(root) for file in files})
        for split, files in splits.items()
    }


def of_split(path: Path, split: str | None) -> list[Path]:
    """Return the files that `split` takes documents from; all files if it is None.

    Raises:
        UserError: as `corpus_files`; or there is no such split.
    """
    if split is None:
        return corpus_files(path)
    splits = layout(path)
    names = [part.partition("[")[0] for part in split.split("+")]
    for name in names:
        if name not in splits:
            raise UserError(
                f"corpus {path} has no split {name!r}; it has {', '.join(sorted(splits))}: "
                "correct data.corpus.split"
            )
    return sorted({file for name in names for file in splits[name]})


def hashes(root: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path below `root`, or its name if it is `root`."""
    return {
        file.name if file == root else file.relative_to(root).as_posix(): sha256(file)
        for file in files
    }


# Reading


def read(path: Path, column: str, split: str | None = None) -> Iterator[str]:
    """Yield the documents at `path`, including blank ones, file by file.

    Raises:
        UserError: one line that names the file and the cure.
    """
    for part in [None] if split is None else split.split("+"):
        name, sliced, _ = (part or "").partition("[")
        found = of_split(path, name if part else None)
        texts = itertools.chain.from_iterable(_read_file(file, column) for file in found)
        if part and sliced:
            count = sum(1 for file in found for _ in _read_file(file, column))
            low, high = bounds(part, count)
            texts = itertools.islice(texts, low, high)
        yield from texts


def bounds(part: str, documents: int) -> tuple[int, int]:
    """Return the first and past-the-last document of a slice such as `train[:2%]`.

    Raises:
        UserError: datasets cannot parse the slice.
    """
    from datasets import ReadInstruction

    name = part.partition("[")[0]
    try:
        (found,) = ReadInstruction.from_spec(part).to_absolute({name: documents})
    except (ValueError, AssertionError) as error:
        raise UserError(f"data.corpus.split {part!r}: {error}") from None
    return found.from_, max(found.from_, found.to)


def _read_file(file: Path, column: str) -> Iterator[str]:
    if file.suffix == ".parquet":
        return _read_parquet(file, column)
    return _read_jsonl(file, column) if file.suffix == ".jsonl" else _read_text(file)


def _lines(file: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their line ends."""
    at = 0
    with file.open("rb") as opened:
        for line in opened:
            try:
                text = line.decode("utf-8-sig" if at == 0 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"corpus file {file} is not UTF-8 at byte {at + error.start}; convert it to "
                    "UTF-8"
                ) from None
            at += len(line)
            yield text.removesuffix("\n").removesuffix("\r")


def _read_text(file: Path) -> Iterator[str]:
    """Yield a text's documents: between its marks `<|endoftext|>`, or without any, blank lines."""
    marked = any(line.strip() == END_OF_TEXT for line in _lines(file))
    separator = END_OF_TEXT if marked else ""
    groups = itertools.groupby(_lines(file), key=lambda line: line.strip() == separator)
    return ("\n".join(group).strip() for separates, group in groups if not separates)


def _read_jsonl(file: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_lines(file), 1):
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
            raise column_error(f"corpus file {file}", column, sorted(record))
        yield checked(record[column], where, column)


def _read_parquet(file: Path, column: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    with readable_parquet(file):
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if column not in names:
            raise column_error(f"corpus file {file}", column, names)
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
                yield checked(text, f"corpus file {file}, row {row}", column)


@contextmanager
def readable_parquet(file: Path) -> Iterator[None]:
    """Turn the errors of a damaged Parquet file into a UserError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is not readable Parquet ({reason:.120}); replace it") from None


# Checks of a column


def column_error(where: str, column: str, names: Sequence[str]) -> UserError:
    """Return the error for a missing column; it lists the columns."""
    return UserError(
        f"{where} has no column {column!r}; it has {', '.join(names) or 'none'}: "
        "set data.corpus.text_column"
    )


def type_error(where: str, column: str, kind: str) -> UserError:
    """Return the error for a column that holds no text."""
    return UserError(f"{where}: {column!r} is not text but {kind}; set data.corpus.text_column")


def checked(value: object, where: str, column: str) -> str:
    """Return a document's text; None counts as blank.

    Raises:
        UserError: it is not text, or not valid Unicode.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise type_error(where, column, type(value).__name__)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start} is half of a surrogate pair; remove it"
        ) from None
    return value
