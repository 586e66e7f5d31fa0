"""Files of the train split that grow document by document, so that it needs no memory.

One holds the packed rows that training reads, the other the documents, to be read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clearnets.data.packing import Documents, fill_rows, stream
from clearnets.data.tokenizer import Vocabulary

# Tokens in a block.
BLOCK = 1 << 20


def narrow(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smaller of the data unit's two types that holds every token id."""
    return np.uint16 if vocab_size < 65536 else np.uint32


class RowFile:
    """An `.npy` file of packed rows that grows; its bytes are those of `np.save`."""

    def __init__(self, path: Path, vocabulary: Vocabulary, *, ctx_len: int, max_rows: int) -> None:
        path.parent.mkdir(exist_ok=True)
        self._file: BinaryIO = path.open("wb")
        self._dtype, self._ctx_len, self._max_rows = narrow(vocabulary.size), ctx_len, max_rows
        self._bos, self._eos = vocabulary.bos, vocabulary.packed_with["eos"]
        self._rest = np.zeros(0, np.uint32)
        self.rows = 0
        self._header()

    def append(self, docs: Documents) -> None:
        """Pack documents and append their rows."""
        tokens = np.concatenate([self._rest, stream(docs, bos=self._bos, eos=self._eos)])
        rows_RS, self._rest = fill_rows(tokens, ctx_len=self._ctx_len, bos=self._bos)
        rows_RS = rows_RS[: self._max_rows - self.rows]
        self.rows += len(rows_RS)
        self._file.write(rows_RS.astype(self._dtype).tobytes())

    def close(self) -> None:
        """Write the number of rows into the header, which has room for any number."""
        self._file.seek(0)
        self._header()
        self._file.close()

    def _header(self) -> None:
        described = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self._dtype)),
            "fortran_order": False,
            "shape": (self.rows, self._ctx_len),
        }
        np.lib.format.write_array_header_1_0(self._file, described)


class DocumentFiles:
    """Token ids and lengths of documents in two files that grow."""

    def __init__(self, folder: Path, *, vocab_size: int) -> None:
        self._ids = (folder / "ids").open("w+b")
        self._lengths = (folder / "lengths").open("w+b")
        self._dtype = narrow(vocab_size)
        self.documents = self.tokens = self.longest = 0

    def append(self, docs: Documents) -> None:
        """Append documents."""
        self._ids.write(docs.ids_T.astype(self._dtype).tobytes())
        self._lengths.write(docs.lengths_D.astype(np.int64).tobytes())
        self.documents += len(docs)
        self.tokens += len(docs.ids_T)
        self.longest = max(self.longest, int(docs.lengths_D.max(initial=0)))

    def blocks(self, tokens: int | None = None) -> Iterator[Documents]:
        """Yield all documents in blocks of at most `tokens` tokens, or of one longer document."""
        tokens = tokens or BLOCK
        self._ids.flush()
        self._lengths.flush()
        lengths_D = np.memmap(self._lengths, np.int64, "r") if self.documents else np.zeros(0, int)
        ids_T = np.memmap(self._ids, self._dtype, "r") if self.documents else np.zeros(0, int)
        first = at = 0
        while first < self.documents:
            # No block holds more documents than tokens.
            ends_D = np.cumsum(lengths_D[first : first + tokens])
            last = first + max(1, int(np.searchsorted(ends_D, tokens, side="right")))
            size = int(ends_D[last - first - 1])
            ids = np.array(ids_T[at : at + size], np.uint32)
            lengths = np.array(lengths_D[first:last])
            yield Documents(ids, lengths, None, np.zeros(len(lengths)))
            first, at = last, at + size

    def head(self, tokens: int) -> Documents:
        """Return the first block of documents, of at most `tokens` tokens."""
        return next(self.blocks(tokens))

    def close(self) -> None:
        """Close the files."""
        self._ids.close()
        self._lengths.close()
