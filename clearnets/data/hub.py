"""Datasets of the Hugging Face hub, read with the `datasets` library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.config import HubPictures, HubText
from clearnets.data.files import bounds, checked, column_error, type_error
from clearnets.pipeline.hub_client import detect_offline, network_errors

if TYPE_CHECKING:
    from datasets.arrow_dataset import Column


def download(corpus: HubText) -> Column:
    """Return all texts of `corpus`, memory-mapped, downloaded unless `datasets` has them cached.

    Blank ones may be None.

    Raises:
        UserError: one line that names the dataset and the cure.
    """
    dataset = load(corpus, corpus.split)
    where, column = f"hub dataset {corpus.name}", corpus.text_column
    if column not in dataset.column_names:
        raise column_error(where, column, dataset.column_names)
    kind = getattr(dataset.features[column], "dtype", "a structure")
    if kind not in ("string", "large_string"):
        raise type_error(where, column, kind)
    return dataset[column]


def stream(corpus: HubText) -> Iterator[str]:
    """Yield the documents of `corpus`, including blank ones, fetched as they are needed.

    Raises:
        UserError: as `download`; or a slice needs the number of documents, which is unknown.
    """
    where = f"hub dataset {corpus.name}"
    for part in corpus.split.split("+"):
        name, sliced, slice_ = part.partition("[")
        dataset = load(corpus, name, streaming=True)
        if sliced:
            known = (dataset.info.splits or {}).get(name)
            if not (known and known.num_examples) and ("%" in slice_ or "-" in slice_):
                raise UserError(
                    f"{where} does not tell how many documents split {name!r} has: with "
                    f"`streaming: true` write a slice in documents, such as {name}[:10000]"
                )
            # Of an unknown number of documents all are taken.
            low, high = bounds(
                part, known.num_examples if known and known.num_examples else 1 << 62
            )
            dataset = dataset.skip(low).take(high - low)
        with _one_line_errors(corpus):
            for row, record in enumerate(dataset, 1):
                if corpus.text_column not in record:
                    raise column_error(where, corpus.text_column, sorted(record))
                text = record[corpus.text_column]
                yield checked(text, f"{where}, document {row}", corpus.text_column)


def load(source: HubText | HubPictures, split: str, *, streaming: bool = False) -> Any:
    """Return a split of a dataset as `datasets` loads it.

    Raises:
        UserError: one line that names the dataset and the cure.
    """
    with _one_line_errors(source):
        import datasets

        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        return datasets.load_dataset(
            source.name, source.config, split=split, revision=source.revision, streaming=streaming
        )


@contextmanager
def _one_line_errors(source: HubText | HubPictures) -> Iterator[None]:
    """Turn the errors of `datasets` and of the network into a UserError."""
    from datasets.exceptions import DatasetsError

    if isinstance(source, HubText):
        name, choice = "data.corpus.name", "data.corpus.config or data.corpus.split"
        local = "a folder in the hub's layout, Parquet, JSONL or text"
    else:
        name, choice, local = "its name", "its config", "a folder of Parquet files"
    try:
        with detect_offline():
            yield
    except ValueError as error:
        # An unknown configuration or split; datasets lists the known ones.
        reason = " ".join(str(error).split())
        raise UserError(f"hub dataset {source.name}: {reason:.300}; correct {choice}") from None
    except (*network_errors(), RuntimeError, DatasetsError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"hub dataset {source.name} cannot be had ({reason:.160}); correct {name}, or offline "
            f"use `kind: local` with {local}"
        ) from None
