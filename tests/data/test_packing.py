import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_documents import BOS, EOS, PAD, make, pack_dense, row_windows

from clearnets.data.packing import (
    GUARD,
    WINDOW,
    Hashes,
    carry_labels,
    concatenate,
    document_hashes,
    drop_leaks,
    drop_repeats,
    pack_single,
    stream,
    until,
    window_hashes,
)

ids = st.lists(st.integers(3, 9), min_size=1, max_size=40)
corpora = st.lists(ids, min_size=1, max_size=12)


def test_select_and_concatenate_keep_what_belongs_together():
    docs = make([[3, 4], [5], [6, 7, 8]], [[1, 2], [3], [4, 5, 6]])
    kept = docs.select(np.array([True, False, True]))
    both = concatenate([kept, docs])
    assert both.ids_T.tolist() == [3, 4, 6, 7, 8, 3, 4, 5, 6, 7, 8]
    assert both.labels_T.tolist() == [1, 2, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    assert both.lengths_D.tolist() == [2, 3, 2, 1, 3]
    assert both.nll_D.tolist() == [0, 2, 0, 1, 2]


@settings(deadline=None)
@given(texts=corpora)
def test_stream_is_the_documents_between_bos_and_eos(texts):
    expected = [token for text in texts for token in (BOS, *text, EOS)]
    assert stream(make(texts), bos=BOS, eos=EOS).tolist() == expected


@settings(deadline=None)
@given(texts=corpora, ctx_len=st.integers(8, 20))
def test_dense_rows_begin_with_bos_and_give_the_documents_back(texts, ctx_len):
    rows_RS = pack_dense(make(texts), ctx_len=ctx_len)
    whole = [token for text in texts for token in (BOS, *text, EOS)]
    back: list[int] = []
    for row in rows_RS.tolist():
        assert len(row) == ctx_len
        assert row[0] == BOS
        # Where the next token of the text is itself bos, the row did not get another one.
        back += row if whole[len(back)] == BOS else row[1:]
    assert PAD not in back
    assert back == whole[: len(back)]
    assert len(whole) - len(back) < ctx_len


@settings(deadline=None)
@given(texts=corpora, ctx_len=st.integers(8, 20))
def test_single_rows_never_mix_documents_and_give_them_back(texts, ctx_len):
    labels = [[i * i for i in text] for text in texts]
    rows_RS, labels_RS = pack_single(
        make(texts, labels), ctx_len=ctx_len, bos=BOS, eos=EOS, pad=PAD
    )
    rows, marks = rows_RS.tolist(), labels_RS.tolist()
    at = 0
    for text in texts:
        found: list[int] = []
        while EOS not in found:
            row = rows[at]
            assert row[0] == BOS
            used = len([token for token in row if token != PAD])
            assert row[used:] == [PAD] * (ctx_len - used)
            assert marks[at] == [t * t if t > EOS else 0 for t in row]
            found += row[1:used]
            at += 1
        assert found == [*text, EOS]
    assert at == len(rows)


@settings(deadline=None)
@given(texts=corpora, ctx_len=st.integers(8, 20))
def test_rows_of_open_ended_documents_begin_with_their_documents(texts, ctx_len):
    labels = [[i * i for i in text] for text in texts]
    rows_RS, labels_RS = pack_single(
        make(texts, labels), ctx_len=ctx_len, bos=BOS, eos=None, pad=PAD
    )
    for text, row, marks in zip(texts, rows_RS.tolist(), labels_RS.tolist(), strict=True):
        held = [BOS, *text][:ctx_len]
        rest = [PAD] * (ctx_len - len(held))
        assert row == held + rest
        assert marks == [0, *(t * t for t in held[1:]), *(0 for _ in rest)]
    flat = [token for text in texts for token in [BOS, *text]]
    assert stream(make(texts), bos=BOS, eos=None).tolist() == flat


def test_single_rows_of_no_documents():
    rows_RS, labels_RS = pack_single(concatenate([]), ctx_len=8, bos=BOS, eos=EOS, pad=PAD)
    assert rows_RS.shape == (0, 8)
    assert labels_RS is None


def test_labels_are_carried_from_characters_to_tokens():
    text = 'The red fox said, "Hi."'
    spans = [(0, 3, 1), (4, 7, 2), (8, 11, 4), (12, 16, 8), (16, 17, 16), (18, 19, 32)]
    spans += [(19, 21, 64), (21, 22, 128), (22, 23, 256)]
    tokens = [(0, 3), (3, 7), (7, 8), (7, 10), (10, 16), (16, 18), (18, 21), (21, 23)]
    labels_N = carry_labels(np.array(tokens), spans, text)
    # " red"; a lone space; " fo"; "x said"; ", "; '"Hi'; '."'
    assert labels_N.tolist() == [1, 2, 0, 4, 4 | 8, 16, 32 | 64, 128 | 256]


@settings(deadline=None)
@given(st.data())
def test_labels_equal_a_naive_union(data):
    text = data.draw(st.text(alphabet="ab \n", min_size=1, max_size=30))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    tokens = list(itertools.pairwise(cuts))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), min_size=2)))
    spans = [(a, b, 1 << i) for i, (a, b) in enumerate(itertools.pairwise(cuts)) if i % 3]

    def naive(first, last):
        inner = text[first:last]
        first, last = (
            first + len(inner) - len(inner.lstrip()),
            last - len(inner) + len(inner.rstrip()),
        )
        marks = [m for s, e, m in spans if set(range(first, last)) & set(range(s, e))]
        return sum(marks)

    expected = [naive(first, last) for first, last in tokens]
    assert carry_labels(np.array(tokens), spans, text).tolist() == expected


@settings(deadline=None)
@given(texts=corpora, window=st.integers(2, 6))
def test_equal_hashes_mean_equal_windows(texts, window):
    hashes, owners = window_hashes(make(texts), window=window)
    windows = [
        (index, tuple(text[i : i + window]))
        for index, text in enumerate(texts)
        for i in range(max(len(text) - window, 0) + 1)
    ]
    assert len(hashes) == len(windows)
    pairs = sorted(zip(owners.tolist(), hashes.tolist()))
    # Per document as many different hashes as different windows, and the same over all.
    for index in range(len(texts)):
        mine = {h for owner, h in pairs if owner == index}
        assert len(mine) == len({w for owner, w in windows if owner == index})
    assert len(set(hashes.tolist())) == len({w for _, w in windows})


@settings(deadline=None)
@given(texts=corpora)
def test_document_hashes_tell_documents_apart(texts):
    hashes = document_hashes(make(texts)).tolist()
    same = {(a, b) for a, x in enumerate(hashes) for b, y in enumerate(hashes) if x == y}
    assert same == {(a, b) for a, x in enumerate(texts) for b, y in enumerate(texts) if x == y}


@pytest.mark.parametrize("shared", [GUARD, GUARD + 1, WINDOW, 60])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_planted_leak_is_found(shared, place):
    rng = np.random.default_rng(0)
    train = [rng.integers(3, 500, 90).tolist() for _ in range(50)]
    test = [rng.integers(3, 500, 90).tolist() for _ in range(10)]
    start = {"start": 0, "middle": 17, "end": 90 - shared}[place]
    test[4][start : start + shared] = train[20][start : start + shared]
    known = [make(train[:10]), make(train[10:])]
    kept = drop_leaks(make(test), known)
    assert kept.nll_D.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_one_token_less_is_no_leak():
    rng = np.random.default_rng(0)
    train, test = rng.integers(3, 500, (2, 90)).tolist()
    test[10 : 10 + GUARD - 1] = train[10 : 10 + GUARD - 1]
    assert len(drop_leaks(make([test]), [make([train])])) == 1


def test_a_leak_does_not_cross_documents():
    text = list(range(3, 43))
    known = [make([text[:20], text[20:]])]
    assert len(drop_leaks(make([text]), known)) == 1


def test_short_documents_leak_as_a_whole():
    known = [make([[3, 4, 5], list(range(3, 60))])]
    kept = drop_leaks(make([[3, 4], [3, 4, 5], [4, 5, 6]]), known)
    assert kept.lengths_D.tolist() == [2, 3]
    assert kept.ids_T.tolist() == [3, 4, 4, 5, 6]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_guarded_rows_share_no_window_however_rows_are_cut(data):
    # Few different tokens and long common pieces, so that windows are often shared.
    piece = st.sampled_from([[3] * 7, [4, 5] * 5, list(range(3, 34)), [6], [7, 3]])
    text = st.lists(piece, min_size=1, max_size=12).map(
        lambda parts: [i for part in parts for i in part]
    )
    train = data.draw(st.lists(text, min_size=1, max_size=4))
    test = data.draw(st.lists(text, min_size=1, max_size=6))
    options = {"ctx_len": data.draw(st.integers(WINDOW, 80)), "bos": BOS, "eos": EOS, "pad": PAD}
    kept = drop_leaks(make(test), [make(train)])
    dense = pack_dense(make(train), ctx_len=options["ctx_len"])
    single, _ = pack_single(make(train), **options)
    guarded, _ = pack_single(kept, **options)
    assert not row_windows(guarded) & (row_windows(dense) | row_windows(single))


def test_repeats_are_dropped_within_and_across():
    seen = Hashes()
    first = drop_repeats(make([[3, 4], [4, 3], [3, 4]]), seen)
    second = drop_repeats(make([[4, 3], [5]]), seen)
    assert first.nll_D.tolist() == [0, 1]
    assert second.nll_D.tolist() == [1]


@settings(deadline=None)
@given(texts=corpora, budget=st.integers(1, 300))
def test_until_takes_the_first_documents_that_reach_the_budget(texts, budget):
    taken, count = 0, 0
    for text in texts:
        if count >= budget:
            break
        taken, count = taken + 1, count + len(text) + 2
    assert until(make(texts), budget).lengths_D.tolist() == [len(t) for t in texts[:taken]]
