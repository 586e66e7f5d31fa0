"""The objective against sparsify's own forward and backward, in double precision."""

from __future__ import annotations

import pytest
import torch
from tiny_objective import D, K, L, N, gradients, make

from clearnets.coders.objective import add_gradient, reconstruct, variation


@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder", "groupmax-transcoder"])
def test_output_loss_and_gradient_equal_sparsifys(family):
    coder, x_ND, y_ND = make(family)
    with torch.no_grad():
        coder.encoder.bias += 3  # every selected latent is active
    theirs = coder(x_ND, y_ND)
    theirs.fvu.backward()
    expected = gradients(coder)

    made = add_gradient(coder, x_ND, y_ND, variation(y_ND))
    output_ND = reconstruct(coder, x_ND).output_ND
    torch.testing.assert_close(output_ND, theirs.sae_out, rtol=0, atol=1e-12)
    torch.testing.assert_close(made.value, theirs.fvu, rtol=1e-12, atol=0)
    assert (made.acts_Nk > 0).all()
    for name, gradient in gradients(coder).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_latents_selected_at_zero_get_no_gradient():
    coder, x_ND, y_ND = make("transcoder")
    with torch.no_grad():
        coder.encoder.bias -= 100
    made = add_gradient(coder, x_ND, y_ND, variation(y_ND))
    assert not made.acts_Nk.any()
    assert not coder.encoder.weight.grad.any()
    assert not coder.W_dec.grad.any()
    assert coder.b_dec.grad.abs().min() > 0


def test_variation_by_hand():
    assert variation(torch.tensor([[1.0, 1.0], [3.0, 5.0]])) == 1 + 1 + 4 + 4


def dense_multi_topk(coder, x_ND, y_ND) -> torch.Tensor:
    """The Multi-TopK loss with all latents kept and those not selected multiplied by zero."""
    read_ND = x_ND if coder.cfg.transcode else x_ND - coder.b_dec
    acts_NL = (read_ND @ coder.encoder.weight.T + coder.encoder.bias).relu()
    value = torch.zeros((), dtype=torch.float64)
    for k, weight in ((K, 1), (4 * K, 1 / 8)):
        mask_NL = torch.zeros_like(acts_NL)
        for row, acts_L in enumerate(acts_NL):
            mask_NL[row, acts_L.argsort(descending=True)[:k]] = 1
        output_ND = (acts_NL * mask_NL) @ coder.W_dec + coder.b_dec
        if coder.W_skip is not None:
            output_ND = output_ND + x_ND @ coder.W_skip.T
        fvu = ((y_ND - output_ND) ** 2).sum() / ((y_ND - y_ND.mean(0)) ** 2).sum()
        value = value + weight * fvu
    return value


@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder"])
def test_multi_topk_equals_the_dense_reference(family):
    coder, x_ND, y_ND = make(family)
    coder.cfg.multi_topk = True
    expected_value = dense_multi_topk(coder, x_ND, y_ND)
    expected_value.backward()
    expected = gradients(coder)
    made = add_gradient(coder, x_ND, y_ND, variation(y_ND))
    torch.testing.assert_close(made.value, expected_value, rtol=1e-12, atol=0)
    for name, gradient in gradients(coder).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    # What the narrow reconstruction makes of its latents is not changed by the wider one.
    codes = [(m.indices_Nk, m.acts_Nk) for m in (reconstruct(coder, x_ND), made)]
    assert torch.equal(*(torch.zeros(N, L).double().scatter(1, *code) for code in codes))


@pytest.mark.parametrize("family", ["sae", "transcoder"])
def test_multi_topk_reaches_our_encoder_and_not_sparsifys(family):
    """The wider reconstruction's own gradient: the difference that `multi_topk` makes."""

    coder, x_ND, y_ND = make(family)
    with torch.no_grad():
        coder.encoder.bias += 3  # every selected latent is active: sparsify's fvu agrees with ours
    total = variation(y_ND)
    add_gradient(coder, x_ND, y_ND, total)
    plain = gradients(coder)["encoder.weight"]
    coder.cfg.multi_topk = True
    theirs = coder(x_ND, y_ND)
    assert theirs.multi_topk_fvu > 0
    theirs.multi_topk_fvu.backward()
    assert torch.equal(gradients(coder)["encoder.weight"], torch.zeros(L, D).double())
    add_gradient(coder, x_ND, y_ND, total)
    ours = gradients(coder)["encoder.weight"] - plain
    assert ours.abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.parametrize("multi_topk", [False, True])
def test_losses_of_pieces_add_up(multi_topk):
    coder, x_ND, y_ND = make("transcoder")
    coder.cfg.multi_topk = multi_topk
    total = variation(y_ND)
    whole_loss = add_gradient(coder, x_ND, y_ND, total)
    whole = gradients(coder)
    pieces = [
        add_gradient(coder, x_MD, y_MD, total, share=0.5)
        for x_MD, y_MD in zip(x_ND.chunk(3), y_ND.chunk(3))
    ]
    for name, gradient in gradients(coder).items():
        torch.testing.assert_close(gradient, whole[name] / 2, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.stack([p.value for p in pieces]).sum(), whole_loss.value)
