import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearnets.data.ngrams import fit, losses, predicted

PAD, BOS, EOS = 0, 1, 2
VOCAB = 9


def as_stream(texts):
    return np.array([i for text in texts for i in (BOS, *text, EOS)])


def grams(texts, order):
    """Padded n-grams in plain Python."""
    for text in texts:
        padded = [BOS] * (order - 1) + [*text, EOS] if order > 1 else [*text, EOS]
        for end in range(order, len(padded) + 1):
            yield tuple(padded[end - order : end])


class Naive:
    """Interpolated modified Kneser-Ney on dicts, straight from the equations."""

    def __init__(self, texts, order):
        self.order = order
        self.counts = {order: Counter(grams(texts, order))}
        for size in range(order - 1, 0, -1):
            longer = self.counts[size + 1]
            left = defaultdict(set)
            for gram in longer:
                left[gram[1:]].add(gram[0])
            self.counts[size] = {
                gram: longer[(BOS, *gram)] if gram[0] == BOS else len(words)
                for gram, words in left.items()
            }
        self.discounts = {size: self._discounts(size) for size in self.counts}

    def _discounts(self, size):
        n = Counter(self.counts[size].values())
        if not all(n[c] for c in (1, 2, 3, 4)):
            return [0, 0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        raw = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
        return [0, *raw] if min(raw) > 0 else [0, 0.5, 1.0, 1.5]

    def p(self, gram):
        size = len(gram)
        if size == 0:
            return 1 / (VOCAB - 2)
        lower = self.p(gram[1:])
        if size > self.order:
            return lower
        same = {g: c for g, c in self.counts[size].items() if g[:-1] == gram[:-1]}
        total = sum(same.values())
        if not total:
            return lower
        discounts = self.discounts[size]
        count = same.get(gram, 0)
        kept = max(count - discounts[min(count, 3)], 0)
        given_up = sum(discounts[min(c, 3)] for c in same.values())
        return kept / total + given_up / total * lower


corpora = st.lists(st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=9), min_size=1)


def test_contexts_stop_at_bos():
    got = predicted(as_stream([[5], [6, 7]]), order=3, bos=BOS, pad=PAD).tolist()
    assert got == [[1, 1, 5], [1, 5, 2], [1, 1, 6], [1, 6, 7], [6, 7, 2]]


@settings(deadline=None)
@given(texts=corpora, order=st.integers(1, 3))
def test_ngrams_of_a_stream(texts, order):
    got = predicted(as_stream(texts), order=order, bos=BOS, pad=PAD)
    assert [tuple(gram) for gram in got.tolist()] == list(grams(texts, order))


@settings(max_examples=60, deadline=None)
@given(train=corpora, valid=corpora, order=st.integers(1, 3))
def test_equals_a_plain_implementation(train, valid, order):
    model = fit(as_stream(train), order=order, vocab_size=VOCAB, bos=BOS, pad=PAD)
    naive = Naive(train, order)
    wanted = list(grams(valid, order))
    got = model.probabilities(np.array(wanted))
    np.testing.assert_allclose(got, [naive.p(gram) for gram in wanted], rtol=1e-12)
    mean = -sum(math.log(naive.p(gram)) for gram in wanted) / len(wanted)
    assert model.loss(as_stream(valid), bos=BOS, pad=PAD) == pytest.approx(mean, rel=1e-12)


def test_estimated_discounts_equal_a_plain_implementation():
    # Enough text that all of n1 to n4 are there at every order.
    rng = np.random.default_rng(1)
    texts = [np.minimum(rng.geometric(0.3, 12) + 2, VOCAB - 1).tolist() for _ in range(20)]
    naive = Naive(texts, 3)
    model = fit(as_stream(texts), order=3, vocab_size=VOCAB, bos=BOS, pad=PAD)
    for size, order in enumerate(model.orders, 1):
        np.testing.assert_allclose(order.discounts, naive.discounts[size])
    assert naive.discounts[3] != [0, 0.5, 1.0, 1.5]
    np.testing.assert_allclose(
        model.probabilities(np.array(list(grams(texts, 3)))),
        [naive.p(gram) for gram in grams(texts, 3)],
    )


@settings(deadline=None)
@given(texts=corpora, order=st.integers(1, 3), context=st.lists(st.integers(1, VOCAB - 1)))
def test_probabilities_sum_to_one(texts, order, context):
    model = fit(as_stream(texts), order=order, vocab_size=VOCAB, bos=BOS, pad=PAD)
    context = ([BOS, BOS, *context])[-2:]
    every = np.array([[*context, word] for word in range(EOS, VOCAB)])
    assert model.probabilities(every).sum() == pytest.approx(1)


def test_rows_with_pads_and_cut_documents_are_predicted_where_a_model_predicts():
    rows = np.array([[1, 5, 6, 7], [1, 8, 2, 0], [1, 3, 2, 0]])
    got = predicted(rows.reshape(-1), order=2, bos=BOS, pad=PAD)
    assert got.tolist() == [[1, 5], [5, 6], [6, 7], [1, 8], [8, 2], [1, 3], [3, 2]]
    targets = rows[:, 1:]
    assert sorted(got[:, 1]) == sorted(targets[targets != PAD])


def test_losses_fall_with_the_order_on_text_that_has_one():
    # Each word is the sum of the two before it: only the trigram can know.
    texts = [[3 + (a * x) % 5 for x in range(1, 12)] for a in range(1, 60)]
    rng = np.random.default_rng(0)
    for text in texts:
        text[0], text[1] = (rng.integers(3, 8, 2)).tolist()
        for i in range(2, len(text)):
            text[i] = 3 + (text[i - 1] + text[i - 2]) % 5
    found = losses(as_stream(texts[:50]), as_stream(texts[50:]), vocab_size=VOCAB, bos=BOS, pad=PAD)
    assert list(found) == ["unigram", "bigram", "trigram"]
    assert found["trigram"] < 0.7 * found["bigram"] < found["unigram"]
