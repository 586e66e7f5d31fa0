"""Documents of a dataset on the Hugging Face hub, by the library that reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clearnets import UserError
from clearnets.config import HubText
from clearnets.data.files import bounds, checked, column_error
from clearnets.pipeline.hub_client import asking, network_errors


class HubTexts:
    """The texts of a dataset that has been brought here; datasets maps them from the disk."""

    def __init__(self, dataset: Any, column: str, where: str) -> None:
        self._dataset, self._column, self._where = dataset, column, where

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 1024):
            yield from self.take(range(start, min(start + 1024, len(self))))

    def take(self, places: Sequence[int]) -> list[str]:
        """The texts at some places."""
        found = self._dataset[list(places)][self._column]
        return [checked(text, self._where, self._column) for text in found]


def download(corpus: HubText) -> HubTexts:
    """The whole of `corpus`, downloaded where datasets does not have it yet.

    Raises:
        UserError: one line that names the dataset and the cure.
    """
    dataset = _load(corpus, corpus.split, streaming=False)
    where = f"hub dataset {corpus.name}"
    if corpus.text_column not in dataset.column_names:
        raise column_error(where, corpus.text_column, dataset.column_names)
    return HubTexts(dataset.select_columns([corpus.text_column]), corpus.text_column, where)


def stream(corpus: HubText) -> Iterator[str]:
    """Documents of `corpus`, blank ones too, fetched as they are asked for.

    Raises:
        UserError: as `download`; or a slice needs the number of documents, which is not known.
    """
    where = f"hub dataset {corpus.name}"
    for part in corpus.split.split("+"):
        name, sliced, slice_ = part.partition("[")
        dataset = _load(corpus, name, streaming=True)
        if sliced:
            known = (dataset.info.splits or {}).get(name)
            if not (known and known.num_examples) and ("%" in slice_ or "-" in slice_):
                raise UserError(
                    f"{where} does not tell how many documents split {name!r} has: with "
                    f"`streaming: true` write a slice in documents, such as {name}[:10000]"
                )
            # Of an unknown number all are taken that there are.
            low, high = bounds(
                part, known.num_examples if known and known.num_examples else 1 << 62
            )
            dataset = dataset.skip(low).take(high - low)
        with _reaching(corpus):
            for row, record in enumerate(dataset, 1):
                if corpus.text_column not in record:
                    raise column_error(where, corpus.text_column, sorted(record))
                text = record[corpus.text_column]
                yield checked(text, f"{where}, document {row}", corpus.text_column)


def _load(corpus: HubText, split: str, *, streaming: bool) -> Any:
    with _reaching(corpus):
        import datasets

        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        return datasets.load_dataset(
            corpus.name, corpus.config, split=split, revision=corpus.revision, streaming=streaming
        )


@contextmanager
def _reaching(corpus: HubText) -> Iterator[None]:
    """Say in one line what is wrong with a dataset, or the way to it."""
    from datasets.exceptions import DatasetsError

    try:
        with asking():
            yield
    except ValueError as error:
        # An unknown configuration or split; datasets lists those there are.
        reason = " ".join(str(error).split())
        raise UserError(
            f"hub dataset {corpus.name}: {reason:.300}; correct data.corpus.config or "
            "data.corpus.split"
        ) from None
    except (*network_errors(), RuntimeError, DatasetsError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"hub dataset {corpus.name} cannot be had ({reason:.160}); correct data.corpus.name, "
            "or offline use `kind: local` with a folder in the hub's layout, Parquet, JSONL or text"
        ) from None
