"""Ablation wherever a latent is active, and steering, against forward passes of their own."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_pair
import torch

from clearnets.coders import feedforward, interventions
from clearnets.coders.written import of_native

LAYER = 1


@pytest.fixture(scope="module")
def world():
    """A sparse model, and rows with the mask of counted positions."""
    model = tiny_pair.build_models(tiny_pair.tiny_config())["sparse"]
    rows_RS = tiny_pair.padded_rows(9, 1)
    tokens_BS = torch.from_numpy(rows_RS.astype(np.int64))
    counted_BS = tokens_BS > 2
    counted_BS[:, 0] = False
    return model, tokens_BS, counted_BS


def predictions(model, tokens_BS):
    with torch.no_grad():
        return model(tokens_BS).logits.double().log_softmax(-1)


def test_ablation_takes_the_latent_away_at_all_counted_positions(world):
    model, tokens_BS, counted_BS = world
    written = of_native(model)
    reading, _ = feedforward.read(model, tokens_BS)
    x_ND, y_ND = (part[LAYER][counted_BS] for part in (reading.inputs, reading.outputs))
    with torch.no_grad():
        acts_NK, indices_NK = written[LAYER].encode(x_ND, y_ND)
    latents = [(LAYER, int(i)) for i in indices_NK.flatten().unique()[:3]]
    found = interventions.ablate(model, written, latents, tokens_BS, counted_BS)
    clean = predictions(model, tokens_BS)
    for (_, latent), moved_BS in zip(latents, found, strict=True):
        act_N = (acts_NK * (indices_NK == latent)).sum(1)

        def without(_, output_ND, act_N=act_N, latent=latent):
            return output_ND - act_N[:, None] * written[LAYER].weight_LD[latent]

        with feedforward.replaced(model, {LAYER: without}, counted_BS):
            changed = predictions(model, tokens_BS)
        expected_BS = (clean.exp() * (clean - changed)).sum(-1) * counted_BS
        assert expected_BS.max() > 1e-6
        np.testing.assert_allclose(moved_BS, expected_BS.numpy(), rtol=1e-2, atol=1e-6)


def test_a_latent_that_is_never_active_moves_nothing(world):
    model, tokens_BS, counted_BS = world
    written = of_native(model)
    none_BS = torch.zeros_like(counted_BS)
    none_BS[0, 1] = True
    (moved_BS,) = interventions.ablate(model, written, [(0, _silent(model, tokens_BS))],
                                       tokens_BS, none_BS)  # fmt: skip
    assert not moved_BS.any()


def _silent(model, tokens_BS) -> int:
    """A latent of the first layer that is not active at the second token of the first row."""
    reading, _ = feedforward.read(model, tokens_BS)
    x_ND, y_ND = (part[0][0, 1:2] for part in (reading.inputs, reading.outputs))
    with torch.no_grad():
        _, indices_NK = of_native(model)[0].encode(x_ND, y_ND)
    return next(i for i in range(64) if i not in indices_NK)


@pytest.mark.parametrize("wanted", [0.01, 0.3])
def test_steering_moves_predictions_as_much_as_is_asked_for(world, wanted):
    model, tokens_BS, _ = world
    rng = np.random.default_rng(0)
    direction_ID = (
        rng.normal(size=(5, model.config.hidden_size)) * np.geomspace(0.01, 5, 5)[:, None]
    )
    places = rng.integers(9, size=(5, 4)), rng.integers(1, 4, size=(5, 4))
    found = interventions.steer(
        model, LAYER, direction_ID, tokens_BS.numpy(), places, divergence=wanted, trials=8
    )
    np.testing.assert_allclose(found.divergence_I, wanted, rtol=0.2)
    assert (found.strength_I[:-1] > found.strength_I[1:]).all()
    clean = predictions(model, tokens_BS)
    for at in range(5):
        apart, moved = [], []
        for row, position in zip(*(part[at] for part in places)):
            where_BS = torch.zeros(tokens_BS.shape, dtype=torch.bool)
            where_BS[row, position] = True
            add_D = torch.from_numpy(found.strength_I[at] * direction_ID[at]).float()
            with feedforward.replaced(model, {LAYER: lambda _, y, a=add_D: y + a}, where_BS):
                changed = predictions(model, tokens_BS)[row, position]
            before = clean[row, position]
            apart.append((before.exp() * (before - changed)).sum())
            moved.append(changed - before)
        assert found.divergence_I[at] == pytest.approx(float(np.mean(apart)), rel=1e-2)
        np.testing.assert_allclose(
            found.moved_IV[at], torch.stack(moved).mean(0).numpy(), rtol=1e-3, atol=1e-4
        )


def test_a_direction_of_zeros_moves_nothing(world):
    model, tokens_BS, _ = world
    places = np.zeros((1, 2), int), np.ones((1, 2), int)
    found = interventions.steer(
        model, 0, np.zeros((1, model.config.hidden_size)), tokens_BS.numpy(), places,
        divergence=0.1, trials=2,
    )  # fmt: skip
    assert found.divergence_I[0] == pytest.approx(0, abs=1e-6)
