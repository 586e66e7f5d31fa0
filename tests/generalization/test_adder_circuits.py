"""Circuits of an adder, against autograd and a network of which the circuit is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from clearnets.generalization import adder_circuits as circuits
from clearnets.generalization.addition import Adder, DenseMLP, SparseMLP

P, WIDTH, LATENTS = 7, 8, 16
PAIRS = torch.cartesian_prod(torch.arange(P), torch.arange(P))
LABELS = (PAIRS.sum(1) % P).numpy()


def adder(kind: str) -> Adder:
    if kind == "dense":
        mlp = partial(DenseMLP, width=WIDTH, inner=LATENTS)
    else:
        mlp = partial(SparseMLP, width=WIDTH, num_latents=LATENTS, k=4)
    return Adder(0, modulus=P, width=WIDTH, num_heads=2, mlp=mlp).requires_grad_(False)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_parts_sum_to_the_logits(kind):
    model = adder(kind)
    found = circuits.latents(model, PAIRS)
    assert found.code_NL.shape == (P * P, LATENTS)
    np.testing.assert_allclose(found.logits(found.code_NL), model(PAIRS).numpy(), atol=1e-5)
    # The biases are zero, so without latents the stream before the feedforward is left.
    model.mlp.forward = torch.zeros_like
    np.testing.assert_allclose(found.rest_NP, model(PAIRS).numpy(), atol=1e-5)
    if kind == "sparse":
        assert ((found.code_NL > 0).sum(1) <= 4).all()


def random_latents() -> circuits.Latents:
    rng = np.random.default_rng(0)
    code_NL = np.maximum(rng.normal(size=(P * P, LATENTS)), 0)
    return circuits.Latents(code_NL, rng.normal(size=(LATENTS, P)), rng.normal(size=(P * P, P)))


def losses(of: circuits.Latents, code_NL: torch.Tensor) -> torch.Tensor:
    logits_NP = torch.tensor(of.rest_NP) + code_NL @ torch.tensor(of.weight_LP)
    return torch.nn.functional.cross_entropy(logits_NP, torch.tensor(LABELS))


def test_effects_are_those_of_autograd_on_a_fine_way():
    of = random_latents()
    base_NL = np.random.default_rng(1).permutation(of.code_NL)
    found_L = circuits.effects(of, LABELS, base_NL)
    change, wanted_L, steps = torch.tensor(of.code_NL - base_NL), np.zeros(LATENTS), 400
    for step in range(steps):
        code = (torch.tensor(base_NL) + (step + 0.5) / steps * change).requires_grad_()
        losses(of, code).backward()
        assert code.grad is not None
        wanted_L -= (code.grad * change).sum(0).numpy() / steps
    np.testing.assert_allclose(found_L, wanted_L, atol=1e-5)
    fall = losses(of, torch.tensor(base_NL)) - losses(of, torch.tensor(of.code_NL))
    assert found_L.sum() == pytest.approx(float(fall), abs=1e-5)


def test_entropy_counts_how_many_share_the_work():
    assert circuits.entropy(np.array([0, 3.0, 0])) == 0
    assert np.exp(circuits.entropy(np.array([1, -1, 1, -1, 0]))) == pytest.approx(4)
    assert np.isnan(circuits.entropy(np.zeros(3)))


def test_a_known_circuit_has_its_size():
    """A latent per class says that class; nine others say next to nothing."""
    rng = np.random.default_rng(0)
    code_NL = np.concatenate([np.eye(P)[LABELS], rng.random((P * P, 9))], axis=1)
    weight_LP = np.concatenate([10 * np.eye(P), 1e-3 * rng.normal(size=(9, P))])
    of = circuits.Latents(code_NL, weight_LP, np.zeros((P * P, P)))
    found = circuits.measures(of, LABELS, rng)
    assert found["circuit_size_zero"] == P
    # Seven equal shares, and next to nothing of nine others.
    assert found["node_entropy_zero"] == pytest.approx(np.log(P), abs=0.02)


def test_a_circuit_does_as_much_as_asked_and_one_latent_less_does_not():
    rng = np.random.default_rng(0)
    code_NL = np.concatenate([np.eye(P)[LABELS], rng.random((P * P, 9))], axis=1)
    weight_LP = np.concatenate([4 * np.eye(P), 0.3 * rng.normal(size=(9, P))])
    of = circuits.Latents(code_NL, weight_LP, np.zeros((P * P, P)))
    base_NL = rng.permutation(code_NL)
    effect_L = circuits.effects(of, LABELS, base_NL)
    kept_NL, loss = torch.tensor(base_NL), []
    for latent in sorted(range(LATENTS), key=lambda latent: -abs(effect_L[latent])):
        loss.append(float(losses(of, kept_NL)))
        kept_NL[:, latent] = torch.tensor(code_NL[:, latent])
    wanted = loss[0] - circuits.RECOVERED * (loss[0] - float(losses(of, kept_NL)))
    size = int(circuits.circuit_size(of, LABELS, base_NL, effect_L))
    assert loss[size] <= wanted < loss[size - 1]


def test_without_latents_that_help_there_is_no_circuit():
    of = random_latents()._replace(weight_LP=np.zeros((LATENTS, P)))
    found = circuits.measures(of, LABELS, np.random.default_rng(0))
    assert all(np.isnan(value) for value in found.values())
