"""Complexity measures against hand-worked cases, plain loops and losses with a closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.func import functional_call

from clearnets.generalization import complexity


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def test_davies_bouldin_by_hand():
    # Centres 4 apart, each point 1 from its centre: (1 + 1) / 4.
    features = torch.tensor([[0.0, 1], [0, -1], [4, 1], [4, -1]])
    labels = torch.tensor([0, 0, 1, 1])
    assert complexity.davies_bouldin(features, labels) == pytest.approx(0.5)
    assert complexity.davies_bouldin(features.view(4, 1, 2), labels) == pytest.approx(0.5)


def test_davies_bouldin_needs_classes_with_members():
    assert math.isnan(complexity.davies_bouldin(normal(3, 2), torch.zeros(3)))
    assert math.isnan(complexity.davies_bouldin(normal(3, 2), torch.arange(3)))


def test_mixup_accuracy_is_the_share_of_all_pairs(monkeypatch):
    weight, inputs = normal(3, 2, seed=1), normal(12, 2, seed=2)
    labels = torch.tensor([0, 1, 2] * 3 + [0, 1, 7])

    def classify(x: torch.Tensor) -> torch.Tensor:
        return x @ weight.T

    shares = []
    for label in range(3):
        members = [x for x, y in zip(inputs, labels) if y == label]
        answers = [
            int(classify((a + b)[None] / 2).argmax()) == label
            for a, b in itertools.combinations(members, 2)
        ]
        shares.append(sum(answers) / len(answers))
    for batch in (1, 4, 1000):
        monkeypatch.setattr(complexity, "BATCH", batch)
        found = complexity.mixup_accuracy(classify, inputs, labels, pairs=1000, rng=rng())
        # Class 7 has one member and no pair, and does not count.
        assert found == pytest.approx(np.mean(shares))


def test_mixup_accuracy_of_drawn_pairs_estimates_that_of_all():
    inputs, labels = normal(120, 2, seed=3), torch.zeros(120, dtype=torch.long)

    def classify(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0] + 0.3, torch.zeros(len(x))], dim=1)

    whole, drawn = (
        complexity.mixup_accuracy(classify, inputs, labels, pairs=pairs, rng=rng())
        for pairs in (10_000, 2_000)
    )
    assert 0.5 < whole < 0.9
    assert drawn == pytest.approx(whole, abs=4 * math.sqrt(whole * (1 - whole) / 2000))
    first, again = (
        complexity.mixup_accuracy(classify, inputs, labels, pairs=50, rng=rng(5)) for _ in range(2)
    )
    assert first == again


def test_mixup_needs_a_pair_and_pgdl_is_the_product():
    nothing = complexity.mixup_accuracy(
        lambda x: x, normal(3, 3), torch.arange(3), pairs=9, rng=rng()
    )
    assert math.isnan(nothing)
    assert complexity.pgdl(0.5, 0.8) == pytest.approx(0.1)


def quadratic(curvature: torch.Tensor, at: torch.Tensor):
    """A loss with its minimum `at`, over one weight."""
    return lambda weights: (weights["w"] - at) @ curvature @ (weights["w"] - at) / 2 + 3


def test_average_sharpness_of_a_quadratic_with_diagonal_curvature():
    curvature, w, elsewhere = torch.tensor([1.0, 4, 0.5]), normal(3, seed=4), normal(3, seed=5)
    expected = 0.1**2 / 2 * float((curvature * w**2).sum())
    # The slope at w is not 0, but cancels.
    loss = quadratic(torch.diag(curvature).double(), elsewhere)
    options = {"size": 0.1, "draws": 1, "rng": rng()}
    found = complexity.average_sharpness(loss, {"w": w}, **options)
    assert found == pytest.approx(expected)


def test_average_sharpness_of_any_quadratic_is_the_trace():
    root, w = normal(4, 4, seed=6), normal(4, seed=7)
    curvature = root @ root.T
    options = {"size": 0.2, "draws": 4000, "rng": rng()}
    found = complexity.average_sharpness(quadratic(curvature, w), {"w": w}, **options)
    expected = 0.2**2 / 2 * float((curvature.diag() * w**2).sum())
    assert found == pytest.approx(expected, rel=0.05)


def test_sharpness_does_not_see_how_a_relu_units_weights_are_scaled():
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)
    ).double()
    for index, part in enumerate(net.parameters()):
        part.data = normal(*part.shape, seed=10 + index)
    inputs, labels = normal(20, 3, seed=20), torch.arange(20) % 2
    scaled = {name: w.detach().clone() for name, w in net.named_parameters()}
    factor = torch.tensor([0.1, 1, 3, 10, 100]).double()
    scaled["0.weight"] *= factor[:, None]
    scaled["0.bias"] *= factor
    scaled["2.weight"] /= factor

    def loss(weights):
        logits = functional_call(net, dict(weights), (inputs,))
        return torch.nn.functional.cross_entropy(logits, labels)

    def value(weights) -> float:
        return complexity.average_sharpness(loss, weights, size=0.1, draws=5, rng=rng())

    plain = dict(net.named_parameters())
    before = {name: w.detach().clone() for name, w in plain.items()}
    assert abs(value(plain)) > 1e-4
    assert value(scaled) == pytest.approx(value(plain), rel=1e-6)
    for name, w in net.named_parameters():
        assert (w == before[name]).all()
        assert w.grad is None


def test_margins_by_a_loop():
    logits, labels = normal(9, 4, seed=11), torch.arange(9) % 4
    spread = math.sqrt(sum(np.var(logits[:, c].numpy()) for c in range(4)))
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist()):
        others = [value for c, value in enumerate(row) if c != label]
        expected.append((row[label] - max(others)) / math.sqrt(2) / spread)
    assert complexity.margins(logits, labels).tolist() == pytest.approx(expected)
    assert complexity.margins(100 * logits, labels).tolist() == pytest.approx(expected)
    found = complexity.margin_quantiles(logits, labels)
    assert list(found) == ["margin_q10", "margin_q25", "margin_q50", "margin_q75", "margin_q90"]
    quantiles = np.quantile(expected, [0.1, 0.25, 0.5, 0.75, 0.9])
    assert list(found.values()) == pytest.approx(quantiles)


def test_margins_of_constant_logits_are_none():
    assert complexity.margins(torch.ones(3, 2), torch.tensor([0, 1, 0])).isnan().all()
