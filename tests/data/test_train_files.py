"""What is written front to back equals what is written at once."""

from types import SimpleNamespace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_documents import BOS, EOS, make, pack_dense

from clearnets.data.packing import concatenate
from clearnets.data.train_files import DocumentFiles, RowFile, narrow

parts = st.lists(
    st.lists(st.lists(st.integers(3, 60_000), min_size=1, max_size=40), max_size=6), min_size=1
)
same_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_folder
@given(parts=parts, ctx_len=st.integers(8, 40), max_rows=st.integers(1, 12), size=st.booleans())
def test_rows_are_the_bytes_of_np_save(tmp_path, parts, ctx_len, max_rows, size):
    sizes = {"size": 70_000 if size else 60_001, "bos": BOS}
    vocabulary = SimpleNamespace(**sizes, packed_with={"eos": EOS})
    written = RowFile(tmp_path / "a.npy", vocabulary, ctx_len=ctx_len, max_rows=max_rows)  # type: ignore[arg-type]
    for part in parts:
        written.append(make(part))
    written.close()
    whole = pack_dense(concatenate([make(p) for p in parts]), ctx_len=ctx_len)
    rows = whole[:max_rows].astype(narrow(vocabulary.size))
    np.save(tmp_path / "b.npy", rows)
    assert written.rows == len(rows)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@same_folder
@given(parts=parts, size=st.integers(1, 50))
def test_documents_come_back_whole_and_in_order(tmp_path, parts, size):
    written = DocumentFiles(tmp_path, vocab_size=60_001)
    for part in parts:
        written.append(make(part))
    blocks = list(written.blocks(size))
    written.close()
    every = [text for part in parts for text in part]
    assert written.documents == len(every)
    assert written.tokens == sum(map(len, every))
    found = []
    for block in blocks:
        assert len(block.ids_T) <= size or len(block) == 1
        ends = np.cumsum(block.lengths_D)
        found += [part.tolist() for part in np.split(block.ids_T, ends[:-1])]
    assert found == every


def test_ids_take_two_bytes_where_they_can():
    assert [narrow(size) for size in (1536, 65_535, 65_536, 151_936)] == [
        np.uint16,
        np.uint16,
        np.uint32,
        np.uint32,
    ]
