"""What lies on target when latents are ablated, on tables small enough to be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearnets.latents.targets import aims

# Tokens 0 and 1 are of the first concept, 2 of the second.
TRUTH = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool)


def test_shares_and_means_are_those_counted_by_hand():
    moved_CT = np.array([[3.0, 1.0, 0.0, 4.0], [0.5, 0.0, 2.0, 0.0]])
    one, other = aims([(0, 5), (1, 5)], moved_CT, TRUTH)
    assert (one.tokens, one.inside, one.outside, one.share) == (2, 2.0, 2.0, 0.5)
    assert one.share_others == pytest.approx(0.5 / 2.5)
    assert one.share_tokens == 0.5
    # No token of the second concept moves; a token of none moves more, which does not count here.
    assert one.own
    assert (other.inside, other.outside, other.share) == (2.0, pytest.approx(0.5 / 3), 0.8)
    assert other.share_others == 0.0
    assert other.own


def test_a_latent_that_does_nothing_has_no_share_and_is_nobodys_other():
    moved_CT = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    one, other = aims([(0, 5), (0, 6)], moved_CT, TRUTH)
    assert np.isnan(one.share)
    assert one.inside == one.outside == 0.0
    assert not one.own
    assert np.isnan(other.share_others)
    assert one.share_others == 0.5
    assert one.columns()["share"] is None
    assert other.columns()["share"] == 0.5


def test_concepts_of_one_latent_are_no_others_of_each_other():
    moved_CT = np.array([[1.0, 0.0, 3.0, 0.0]] * 2)
    one, other = aims([(0, 5), (0, 5)], moved_CT, TRUTH)
    assert np.isnan(one.share_others)
    assert not one.own
    assert other.own
