"""BatchTopK, JumpReLU and Matryoshka against dense implementations; their thresholds on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_objective import K, L, N, gradients, make
from tiny_training import Stopped, assert_same_bits, stop_at, trained

from clearnets.coders import library, selection
from clearnets.coders.objective import add_gradient, reconstruct, variation
from clearnets.latents.readers import load_encoder
from clearnets.models import sparse_ops

FAMILIES = [
    f"{name}-{kind}" for name in ("batchtopk", "matryoshka") for kind in ("transcoder", "sae")
]
JUMPS = ["jumprelu-transcoder", "jumprelu-sae"]


def started(family: str):
    """A coder whose threshold is that of the first batch."""
    coder, x_ND, y_ND = make(family)
    selection.start(coder, x_ND if coder.cfg.transcode else x_ND - coder.b_dec)
    return coder, x_ND, y_ND


def pre_activations(coder, x_ND):
    read_ND = x_ND if coder.cfg.transcode else x_ND - coder.b_dec
    return read_ND @ coder.encoder.weight.T + coder.encoder.bias


def dense(codes) -> torch.Tensor:
    indices_NK, acts_NK = codes
    return torch.zeros(len(acts_NK), L, dtype=acts_NK.dtype).scatter(1, indices_NK, acts_NK)


@pytest.mark.parametrize("family", FAMILIES)
def test_choice_by_batch_equals_the_dense_reference(family):
    coder, x_ND, y_ND = started(family)
    acts_NL = pre_activations(coder, x_ND).relu()
    least = acts_NL.flatten().sort(descending=True).values[N * K - 1]
    kept_NL = acts_NL * (acts_NL >= least)
    assert (kept_NL > 0).sum() == N * K
    parts = [2, 5, 10, 20, 40] if "matryoshka" in family else [L]
    fvus = [
        ((kept_NL[:, :n] @ coder.W_dec[:n] + coder.b_dec - y_ND) ** 2).sum() / variation(y_ND)
        for n in parts
    ]
    expected_value = sum(fvus) / len(fvus)
    expected_value.backward()
    expected = gradients(coder)

    made = add_gradient(coder, x_ND, y_ND, variation(y_ND))
    torch.testing.assert_close(made.value, expected_value, rtol=1e-12, atol=0)
    torch.testing.assert_close(made.residual, fvus[-1] * variation(y_ND), rtol=1e-12, atol=0)
    torch.testing.assert_close(dense((made.indices_Nk, made.acts_Nk)), kept_NL.detach())
    for name, gradient in gradients(coder).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    # The threshold is the smallest kept one, and follows as an average.
    assert coder.threshold == pytest.approx(float(least.detach()))
    selection.track(coder, made.acts_Nk * 3)
    assert coder.threshold == pytest.approx(float(least.detach()) * 1.1)


@pytest.mark.parametrize("family", JUMPS)
@pytest.mark.parametrize("k", [K, 1])
def test_jumprelu_equals_the_straight_through_formulas(family, k):
    """By the formulas of Rajamanoharan et al., dense and in numpy; l0 is above its aim at k 1."""
    coder, x_ND, y_ND = started(family)
    coder.cfg.k = k
    pre_NL = pre_activations(coder, x_ND).detach().numpy()
    theta_L = coder.log_threshold.detach().exp().numpy() * np.linspace(0.8, 1.2, L)
    coder.log_threshold.data = torch.from_numpy(theta_L).log()
    on_NL = pre_NL > theta_L
    acts_NL = pre_NL * on_NL
    W_enc, W_dec, b_dec = (
        p.detach().numpy() for p in (coder.encoder.weight, coder.W_dec, coder.b_dec)
    )
    error_ND = acts_NL @ W_dec + b_dec - y_ND.numpy()
    total = float(variation(y_ND))
    l0 = on_NL.sum() / N
    value = (error_ND**2).sum() / total + (l0 / k - 1) ** 2
    grad_acts_NL = 2 * error_ND @ W_dec.T / total
    width_L = theta_L * 0.5
    inside_NL = np.abs(pre_NL - theta_L) < width_L / 2
    by_l0 = 2 * (l0 / k - 1) / k / N
    grad_theta_L = (-(theta_L / width_L) * inside_NL * grad_acts_NL).sum(0)
    grad_theta_L += (-(1 / width_L) * inside_NL * by_l0).sum(0)
    grad_pre_NL = grad_acts_NL * on_NL
    read_ND = x_ND.numpy() - (0 if coder.cfg.transcode else b_dec)
    grad_b_dec = (2 * error_ND / total).sum(0)
    if not coder.cfg.transcode:
        grad_b_dec = grad_b_dec - (grad_pre_NL @ W_enc).sum(0)
    expected = {
        "log_threshold": grad_theta_L * theta_L,
        "encoder.weight": grad_pre_NL.T @ read_ND,
        "encoder.bias": grad_pre_NL.sum(0),
        "W_dec": acts_NL.T @ (2 * error_ND / total),
        "b_dec": grad_b_dec,
    }
    made = add_gradient(coder, x_ND, y_ND, variation(y_ND))
    assert float(made.value) == pytest.approx(value)
    found = gradients(coder)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient.numpy(), expected[name], rtol=1e-9, atol=1e-12)
    kept_NL = dense((made.indices_Nk, made.acts_Nk)).numpy()
    np.testing.assert_allclose(kept_NL, acts_NL)


@pytest.mark.parametrize("family", ["batchtopk-sae", "jumprelu-transcoder"])
def test_gradients_of_pieces_add_up(family):
    coder, x_ND, y_ND = started(family)
    total = variation(y_ND)
    add_gradient(coder, x_ND, y_ND, total)
    whole = gradients(coder)
    for x_MD, y_MD in ((x_ND, y_ND), (x_ND, y_ND)):
        add_gradient(coder, x_MD, y_MD, 2 * total, part=0.5)
    for name, gradient in gradients(coder).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", [*FAMILIES, *JUMPS])
def test_after_training_each_token_is_chosen_for_by_itself(family, tmp_path):
    coders, _ = trained(family, tmp_path)
    coder = coders["layers.1.mlp"]
    library.save_coder(coder, tmp_path / "coder")
    again = library.load_coder(tmp_path / "coder")
    threshold_L = load_file(tmp_path / "coder" / library.THRESHOLD)["threshold"]
    assert threshold_L.shape == (64,)
    assert (threshold_L > 0).all()
    x_ND = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pre_NL = pre_activations(coder, x_ND)
        acts_NL = pre_NL * (pre_NL > threshold_L)
        expected_ND = acts_NL @ coder.W_dec + coder.b_dec
    assert len((acts_NL > 0).sum(1).unique()) > 1, "numbers of active latents differ"
    for one in (coder, again):
        torch.testing.assert_close(reconstruct(one, x_ND).output_ND, expected_ND)
        torch.testing.assert_close(reconstruct(one, x_ND[:1]).output_ND, expected_ND[:1])
    encoder = load_encoder(tmp_path / "coder")
    acts_BSK, indices_BSK = encoder(x_ND.view(5, 10, 16))
    found = torch.zeros_like(acts_NL).scatter(1, indices_BSK.flatten(0, 1), acts_BSK.flatten(0, 1))
    torch.testing.assert_close(found, acts_NL)
    # sparsify loads the weights, as those of a top-k coder.
    theirs = library.coder_class().load_from_disk(tmp_path / "coder")
    assert theirs.cfg.activation == "topk"
    assert torch.equal(theirs.encoder.weight, coder.encoder.weight)


@pytest.mark.parametrize("optimizer", ["adam", "signum"])
@pytest.mark.parametrize(
    "family", ["batchtopk-sae", "jumprelu-transcoder", "matryoshka-transcoder"]
)
def test_interrupted_run_goes_on_to_the_same_bits(family, optimizer, tmp_path):
    expected, report = trained(family, tmp_path / "whole", optimizer=optimizer)
    with pytest.raises(Stopped):
        trained(family, tmp_path / "cut", optimizer=optimizer, on_step=stop_at(7))
    resumed, again = trained(family, tmp_path / "cut", optimizer=optimizer)
    assert_same_bits(expected, resumed)
    assert report == again


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_frozen_half_keeps_its_weights(half, tmp_path):
    coders, _ = trained(f"frozen-{half}-transcoder", tmp_path)
    untrained, _ = trained(f"frozen-{half}-transcoder", tmp_path / "none", steps=0)
    plain, _ = trained("transcoder", tmp_path / "plain", steps=0)
    for name, coder in coders.items():
        frozen, moved = (coder.encoder.weight, coder.W_dec)
        before = (untrained[name].encoder.weight, untrained[name].W_dec)
        if half == "decoder":
            frozen, moved, before = moved, frozen, before[::-1]
            torch.testing.assert_close(frozen.norm(dim=1), torch.ones(64))
        assert torch.equal(frozen, before[0])
        assert (moved != before[1]).any()
        assert torch.equal(untrained[name].encoder.weight, plain[name].encoder.weight)
        assert (coder.encoder.bias != untrained[name].encoder.bias).any()


def test_the_next_largest_and_all_above():
    generator = torch.Generator().manual_seed(0)
    for size, count in ((40, 7), (40, 39), (40, 40), (3000, 20), (3000, 17000), (3000, 100000)):
        pre_NL = torch.randn(50, size, generator=generator)
        ordered = pre_NL.flatten().sort(descending=True).values
        expected = max(0.0, float(ordered[count])) if count < pre_NL.numel() else 0.0
        least = sparse_ops._next_largest(pre_NL, count)
        assert float(least) == expected
        acts_NK, indices_NK = sparse_ops._above(pre_NL, least)
        kept_NL = torch.zeros_like(pre_NL).scatter(1, indices_NK, acts_NK)
        assert torch.equal(kept_NL, torch.where(pre_NL > least, pre_NL, 0))
    acts_NK, indices_NK = sparse_ops._above(torch.ones(3, 4), torch.tensor(2.0))
    assert not acts_NK.any()
    assert acts_NK.shape == indices_NK.shape == (3, 1)
