"""Planted latents: active where their pattern stands, by a loop over the text."""

from __future__ import annotations

import numpy as np
import pytest

from clearnets.latents.planted import LATENTS, NONE, PATTERNS, Planted

PAD, BOS = 0, 1


@pytest.fixture(scope="module")
def text() -> tuple[np.ndarray, np.ndarray]:
    """Rows of tokens whose frequencies fall, with padding, and what of them counts."""
    rng = np.random.default_rng(0)
    tokens_RS = 2 + np.minimum(rng.geometric(0.01, size=(400, 64)), 300)
    tokens_RS[:, 0] = BOS
    for row, length in enumerate(rng.integers(8, 65, size=400)):
        tokens_RS[row, length:] = PAD
    tokens_RS = tokens_RS.astype(np.uint16)
    counted_RS = tokens_RS > BOS
    return tokens_RS, counted_RS


def places(planted: Planted, tokens_RS) -> list[set[tuple[int, int]]]:
    """Where each latent is active; no latent twice at one position."""
    active_RSK = planted(tokens_RS)
    found: list[set[tuple[int, int]]] = [set() for _ in range(planted.num_latents)]
    for row, position, k in zip(*np.nonzero(active_RSK != NONE)):
        latent = active_RSK[row, position, k]
        assert (row, position) not in found[latent]
        found[latent].add((row, position))
    return found


def stands_at(planted: Planted, latent: int, tokens_RS) -> set[tuple[int, int]]:
    token, before = planted.token_L[latent], planted.before_L[latent]
    return {
        (row, position)
        for row, tokens_S in enumerate(tokens_RS.tolist())
        for position in range(1, len(tokens_S))
        if tokens_S[position] == token and before in (NONE, tokens_S[position - 1])
    }


def test_a_rule_is_active_where_its_pattern_stands(text):
    planted = Planted.of("rule", *text)
    assert planted.num_latents == LATENTS
    assert (planted.before_L == NONE).sum() == LATENTS / 2
    expected = [stands_at(planted, latent, text[0]) for latent in range(LATENTS)]
    assert places(planted, text[0]) == expected
    assert [len(some) for some in expected] == planted.place_L.tolist()


def test_a_mixture_is_active_on_two_patterns(text):
    planted = Planted.of("mixture", *text)
    found = places(planted, text[0])
    every = [stands_at(planted, latent, text[0]) for latent in range(LATENTS)]
    for latent, some in enumerate(found):
        others = [i for i in range(LATENTS) if i != latent and every[i] <= some]
        assert any(some == every[latent] | every[other] for other in others)
    assert len({frozenset(some) for some in found}) == LATENTS


def test_noise_takes_half_and_adds_as_much(text):
    planted = Planted.of("noisy", *text)
    found = places(planted, text[0])
    every = [stands_at(planted, latent, text[0]) for latent in range(LATENTS)]
    kept = sum(len(some & own) for some, own in zip(found, every))
    wrong = sum(len(some - own) for some, own in zip(found, every))
    total = sum(map(len, every))
    # Some 5,000 draws: four standard deviations are 0.03.
    assert kept / total == pytest.approx(0.5, abs=0.03)
    assert wrong / total == pytest.approx(0.5, abs=0.05)
    counted = {tuple(place) for place in np.argwhere(text[1])}
    assert all(some <= counted for some in found)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_does_not_depend_on_the_others(text, pattern):
    planted = Planted.of(pattern, *text)
    np.testing.assert_array_equal(planted(text[0])[7:9], planted(text[0][7:9]))
