"""Effects and circuits, on small networks of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_pipeline as tiny
import torch
from circuit_networks import PROMPTS, model_of, questions, subject_of

from clearnets.coders import circuits, feedforward
from clearnets.coders.circuits import Subject
from clearnets.coders.written import of_native


@pytest.fixture(params=["sparse", "sparse_topk", "dense"])
def subject(request) -> Subject:
    return subject_of(request.param)


def test_all_nodes_are_the_model_and_no_node_does_not_depend_on_them(subject):
    asked = questions()
    plain = circuits.answers(subject.model, asked)
    np.testing.assert_allclose(
        circuits.run(subject, asked, subject.everything(1.0)), plain, atol=1e-5
    )
    # With every feedforward at its mean by position, put there by other means.
    with torch.no_grad():
        outputs = feedforward.read(subject.model, asked.tokens_NS)[0].outputs
    where = torch.ones_like(asked.tokens_NS, dtype=torch.bool)
    means = {
        layer: lambda _, __, y=y_NSD: y.mean(0).repeat(PROMPTS, 1)
        for layer, y_NSD in enumerate(outputs)
    }
    with feedforward.replaced(subject.model, means, where):
        none = circuits.answers(subject.model, asked)
    np.testing.assert_allclose(
        circuits.run(subject, asked, subject.everything(0.0)), none, atol=1e-5
    )


def test_integrated_gradients_sum_to_what_all_nodes_change(subject):
    asked = questions()
    found = circuits.effects(subject, asked, 24).integrated
    change = circuits.answers(subject.model, asked).mean()
    change -= circuits.run(subject, asked, subject.everything(0.0)).mean()
    size = float(sum(part.abs().sum() for part in found))
    assert float(sum(part.sum() for part in found)) == pytest.approx(change, abs=0.005 * size)
    # Coders leave something out; native latents do not.
    assert bool(found.errors_YS.any()) != subject.written[0].whole


def test_patching_is_the_slope_of_single_ablations(subject):
    asked = questions()
    found = circuits.effects(subject, asked, 1).patching
    whole, step = circuits.answers(subject.model, asked).mean(), 1e-2
    for node in circuits.ranked(found)[:5].tolist():
        kept = subject.everything(1.0)
        kept.latents_YSL.view(-1)[node] -= step
        slope = (whole - circuits.run(subject, asked, kept).mean()) / step
        assert float(found.latents_YSL.view(-1)[node]) == pytest.approx(slope, rel=0.1, abs=1e-3)


def test_a_known_circuit_is_found_and_is_all_that_is_needed():
    model = model_of("sparse")
    members = {(0, 3), (0, 40), (1, 11)}
    for layer, mlp in enumerate(layer.mlp for layer in model.gpt_neox.layers):
        for latent in range(tiny.LATENTS):
            if (layer, latent) not in members:
                mlp.decoder.weight[latent] = 0
        # The members are always active.
        mlp.encoder.bias[[latent for own, latent in members if own == layer]] = 50.0
    subject = Subject.of(model, of_native(model), questions())
    order_Z = circuits.ranked(circuits.effects(subject, questions(), 4).integrated)
    layer_Z, _, latent_Z = np.unravel_index(order_Z.numpy(), subject.mean_YSL.shape)
    assert set(zip(layer_Z.tolist(), latent_Z.tolist())) == members
    plain = circuits.answers(model, questions())
    kept = circuits.circuit(subject, order_Z, errors=False)
    np.testing.assert_allclose(circuits.run(subject, questions(), kept), plain, atol=1e-5)


def test_ablating_one_latent_is_to_take_it_from_the_output(subject):
    asked = questions()
    node = int(circuits.ranked(circuits.effects(subject, asked, 2).integrated)[0])
    layer, position, latent = np.unravel_index(node, subject.mean_YSL.shape)
    written = subject.written[layer]

    def without(x_ND: torch.Tensor, y_ND: torch.Tensor) -> torch.Tensor:
        acts_NK, indices_NK = written.encode(x_ND, y_ND)
        value_N = (acts_NK * (indices_NK == int(latent))).sum(1)
        mean = subject.mean_YSL[layer, position, latent]
        return y_ND + (mean - value_N)[:, None] * written.weight_LD[latent]

    where = torch.zeros_like(asked.tokens_NS, dtype=torch.bool)
    where[:, position] = True
    with feedforward.replaced(subject.model, {int(layer): without}, where):
        changed = circuits.answers(subject.model, asked).mean()
    fall = circuits.answers(subject.model, asked).mean() - changed
    assert circuits.ablations(subject, asked, [node])[0] == pytest.approx(fall, rel=1e-3, abs=1e-5)
