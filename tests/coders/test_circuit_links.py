"""Links between latents, on small networks of which they are known or found by cutting them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_networks import model_of, questions, subject_of

from clearnets.coders import circuit_links, circuits
from clearnets.coders.circuit_links import Node
from clearnets.coders.circuits import Questions, Subject
from clearnets.coders.written import of_native


@pytest.fixture(params=["sparse", "sparse_topk", "dense"])
def subject(request) -> Subject:
    return subject_of(request.param)


def largest(subject: Subject, count: int | None) -> list[Node]:
    order_Z = circuits.ranked(circuits.effects(subject, questions(), 1).patching)
    return circuit_links.nodes(subject, order_Z[:count].tolist())


@pytest.mark.parametrize("mlp", ["sparse", "sparse_topk"])
def test_the_links_from_a_latent_sum_to_its_effect(mlp):
    subject = subject_of(mlp)
    patching_YSL = circuits.effects(subject, questions(), 1).patching.latents_YSL
    every = largest(subject, None)
    weights = circuit_links.links(subject, questions(), every)
    for node, sum_of_links in zip(every, weights.sum(1), strict=True):
        effect = float(patching_YSL[node])
        assert sum_of_links == pytest.approx(effect, rel=1e-3, abs=1e-4)
    between = np.abs(weights[:, :-1]).sum()
    assert between > 0.05 * np.abs(weights[:, -1]).sum(), "some effects go through others"


def test_links_only_lead_to_later_layers_and_never_back_in_the_text(subject):
    nodes = largest(subject, 20)
    weights = circuit_links.links(subject, questions(), nodes)
    for (u, v), weight in np.ndenumerate(weights[:, :-1]):
        layer, position, _ = nodes[u]
        if not (layer < nodes[v].layer and position <= nodes[v].position):
            assert weight == 0


def test_a_link_is_the_slope_of_cutting_it(subject):
    """For one prompt, with means so near the values that nothing bends or jumps in between."""
    one = Questions(*(part[:1] for part in questions()))
    alone = Subject.of(subject.model, subject.written, one)
    nearby = replace(alone, mean_YSL=alone.mean_YSL * 0.999)
    order_Z = circuits.ranked(circuits.gradients(nearby, one, [1.0])[0])
    nodes = circuit_links.nodes(nearby, order_Z[:12].tolist())
    weights = circuit_links.links(nearby, one, nodes)
    ends = [*nodes, None]
    order = np.argsort(-np.abs(weights), axis=None)[:12]
    pairs = [np.unravel_index(place, weights.shape) for place in order]
    cut = circuit_links.cut_links(nearby, one, [(nodes[int(u)], ends[int(v)]) for u, v in pairs])
    found = [weights[pair] for pair in pairs]
    assert cut == pytest.approx(found, rel=0.1, abs=0.02 * np.abs(found).max())
    assert any(v < len(nodes) for _, v in pairs), "some lead to another latent"


def test_to_cut_a_link_from_the_last_layer_is_to_ablate_its_source(subject):
    last = len(subject.written) - 1
    order_Z = circuits.ranked(circuits.effects(subject, questions(), 1).patching).tolist()
    places = [z for z, node in zip(order_Z, largest(subject, None)) if node.layer == last][:3]
    nodes = circuit_links.nodes(subject, places)
    cut = circuit_links.cut_links(subject, questions(), [(node, None) for node in nodes])
    ablated = circuits.ablations(subject, questions(), places)
    assert cut == pytest.approx(ablated, rel=1e-3, abs=1e-5)


@torch.no_grad()
def test_a_latent_that_reads_nothing_has_no_links_to_it():
    """Two latents in a row, of which the second is the same whatever stands before it."""
    model = model_of("sparse")
    members = {(0, 3), (0, 40), (1, 11), (1, 20)}
    for layer, mlp in enumerate(layer.mlp for layer in model.gpt_neox.layers):
        own = [latent for at, latent in members if at == layer]
        others = torch.ones(len(mlp.encoder.bias), dtype=torch.bool)
        others[own] = False
        mlp.decoder.weight[others] = 0
        mlp.encoder.bias[own] = 50.0  # Always active.
    model.gpt_neox.layers[1].mlp.encoder.weight[11] = 0
    subject = Subject.of(model, of_native(model), questions())
    order_Z = circuits.ranked(circuits.effects(subject, questions(), 1).patching)
    nodes = circuit_links.nodes(subject, order_Z.tolist())
    weights = circuit_links.links(subject, questions(), nodes)
    reached = {nodes[v][::2] for u, v in np.argwhere(weights[:, :-1])}
    assert reached == {(1, 20)}
    deaf = Node(1, nodes[0].position, 11)
    source = next(node for node in nodes if node.before(deaf))
    assert circuit_links.cut_links(subject, questions(), [(source, deaf)])[0] == 0
