"""The objective against sparsify's own forward and backward, in double precision."""

from __future__ import annotations

import pytest
import torch

from clearnets.coders.library import new_coder
from clearnets.coders.objective import reconstruct, squares

D, L, K, N = 12, 40, 3, 50


def make(family: str, seed: int = 0):
    """A coder in double precision at a generic point, and a batch."""
    generator = torch.Generator().manual_seed(seed)
    coder = new_coder(family, "layers.0.mlp", d_in=D, num_latents=L, k=K, seed=0).double()
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    x_ND = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y_ND = torch.randn(N, D, generator=generator, dtype=torch.float64) + x_ND.roll(1, dims=1)
    return coder, x_ND, x_ND if family == "sae" else y_ND


def gradients(coder) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in coder.named_parameters()}
    coder.zero_grad()
    return found


@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder"])
def test_output_loss_and_gradient_equal_sparsifys(family):
    coder, x_ND, y_ND = make(family)
    with torch.no_grad():
        coder.encoder.bias += 3  # every selected latent is active
    theirs = coder(x_ND, y_ND)
    theirs.fvu.backward()
    expected = gradients(coder)

    made = reconstruct(coder, x_ND)
    residual, total = squares(made.output_ND, y_ND)
    (residual / total).backward()
    torch.testing.assert_close(made.output_ND, theirs.sae_out, rtol=0, atol=1e-12)
    torch.testing.assert_close(residual / total, theirs.fvu, rtol=1e-12, atol=0)
    assert (made.acts_Nk > 0).all()
    for name, gradient in gradients(coder).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_latents_selected_at_zero_get_no_gradient():
    coder, x_ND, y_ND = make("transcoder")
    with torch.no_grad():
        coder.encoder.bias -= 100
    made = reconstruct(coder, x_ND)
    residual, total = squares(made.output_ND, y_ND)
    (residual / total).backward()
    assert not made.acts_Nk.any()
    assert not coder.encoder.weight.grad.any()
    assert not coder.W_dec.grad.any()
    assert coder.b_dec.grad.abs().min() > 0


def test_squares_by_hand():
    output = torch.tensor([[0.0, 1.0], [2.0, 2.0]])
    target = torch.tensor([[1.0, 1.0], [3.0, 5.0]])
    residual, total = squares(output, target)
    assert residual == 1 + 0 + 1 + 9
    assert total == 1 + 1 + 4 + 4
