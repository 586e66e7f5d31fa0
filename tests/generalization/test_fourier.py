"""Progress measures against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearnets.generalization import fourier

P = 7
A, B = np.meshgrid(np.arange(P), np.arange(P), indexing="ij")
C = np.arange(P)
EVERYWHERE = np.ones((P, P), dtype=bool)


def waves(k: int, height: float = 1.0) -> np.ndarray:
    """cos(2πk (a + b - c) / P), (P, P, P): what a network that adds with frequency k computes."""
    return height * np.cos(2 * np.pi * k * (A[..., None] + B[..., None] - C) / P)


def by_loop(logits: np.ndarray, chosen: np.ndarray) -> float:
    """Mean cross-entropy in plain Python."""
    losses = []
    for a in range(P):
        for b in range(P):
            if chosen[a, b]:
                terms = [np.exp(x) for x in logits[a, b]]
                losses.append(np.log(sum(terms)) - logits[a, b, (a + b) % P])
    return sum(losses) / len(losses)


def test_a_pure_wave_has_its_frequency_alone():
    found = fourier.Waves.of(waves(2) + np.linspace(0, 1, P))
    np.testing.assert_allclose(found.power_W(), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found.mean_C, np.linspace(0, 1, P), atol=1e-12)
    assert fourier.key_frequencies(found) == (2,)


def test_key_frequencies_hold_the_share_that_is_asked_for():
    # Power goes with the square of the height: 16 : 4 : 1.
    found = fourier.Waves.of(waves(1, 2.0) + waves(2, 1.0) + waves(3, 4.0))
    np.testing.assert_allclose(found.power_W(), np.array([4, 1, 16]) / 21, atol=1e-12)
    assert fourier.key_frequencies(found, share=0.7) == (3,)
    assert fourier.key_frequencies(found, share=0.9) == (1, 3)
    assert fourier.key_frequencies(found, share=1.0) == (1, 2, 3)


def test_losses_of_a_network_that_adds_and_memorises():
    rng = np.random.default_rng(0)
    trained = rng.random((P, P)) < 0.4
    # Memory: a high logit for the answer, on training pairs only. It depends on a and b apart.
    memory = np.zeros((P, P, P))
    memory[A, B, (A + B) % P] = 5.0 * trained
    logits = waves(3, 4.0)
    np.testing.assert_allclose(
        fourier.restricted_loss(logits, (3,), EVERYWHERE), by_loop(logits, EVERYWHERE)
    )
    # Nothing is left of a pure wave without it: all answers are alike.
    np.testing.assert_allclose(fourier.excluded_loss(logits, (3,), EVERYWHERE), np.log(P))
    # The other frequencies of it know nothing.
    np.testing.assert_allclose(fourier.restricted_loss(logits, (1, 2), EVERYWHERE), np.log(P))
    # A network that only memorises is hardly the worse without any one wave.
    assert by_loop(memory, trained) < 0.05
    assert fourier.excluded_loss(memory, (3,), trained) < 0.3
    assert fourier.restricted_loss(memory, (3,), ~trained) > 1


def test_projections_are_those_onto_sines_and_cosines():
    logits = np.random.default_rng(1).normal(size=(P, P, P))
    expected = np.zeros_like(logits)
    angle = 2 * np.pi * 2 * (A + B) / P
    for wave in (np.cos(angle), np.sin(angle)):
        unit = wave / np.linalg.norm(wave)
        for c in range(P):
            expected[..., c] += (unit * logits[..., c]).sum() * unit
    found = fourier.Waves.of(logits).at((2,))[(A + B) % P]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_cross_entropy_equals_a_loop():
    logits = np.random.default_rng(2).normal(size=(P, P, P)) * 3
    chosen = np.random.default_rng(3).random((P, P)) < 0.5
    np.testing.assert_allclose(fourier.cross_entropy(logits, chosen), by_loop(logits, chosen))


def test_fourier_sparsity_of_one_wave_and_of_white_noise():
    numbers = np.arange(P)
    # Cosine of frequency 1 in one dimension: one of six components, and a Gini of 5/6.
    one = np.cos(2 * np.pi * numbers / P)[:, None]
    assert fourier.fourier_sparsity(one) == pytest.approx(5 / 6)
    # Cosine and sine alike: two of six.
    both = np.stack([one[:, 0], np.sin(2 * np.pi * numbers / P)], axis=1)
    assert fourier.fourier_sparsity(both) == pytest.approx(4 / 6)
    # The identity uses all frequencies alike, and a constant says nothing about numbers.
    assert fourier.fourier_sparsity(np.eye(P) + 3.0) == pytest.approx(0, abs=1e-12)
