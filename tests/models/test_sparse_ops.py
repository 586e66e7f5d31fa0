"""The sparse kernels against a dense reference in plain torch.

Shapes: N tokens, D width, L latents, K active per token.
"""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from sparse_feedforward import SELECTIONS, sparse, weights

from clearnets.models import sparse_ops


def reference(x_ND, W_enc_LD, b_enc_L, W_dec_LD, *, k, selection):
    """The feedforward with all L latents kept, those not selected multiplied by zero."""
    acts_NL = (x_ND @ W_enc_LD.T + b_enc_L).relu()
    mask_NL = torch.zeros_like(acts_NL)
    for row, acts_L in enumerate(acts_NL):
        if selection == "groupmax":
            size = len(acts_L) // k
            chosen = [g * size + int(acts_L[g * size : (g + 1) * size].argmax()) for g in range(k)]
        else:
            chosen = acts_L.argsort(descending=True)[:k].tolist()
        mask_NL[row, chosen] = 1
    return (acts_NL * mask_NL) @ W_dec_LD


@pytest.mark.parametrize("selection", SELECTIONS)
@settings(max_examples=25, deadline=None)
@given(
    num_tokens=st.integers(1, 9),
    width=st.integers(1, 6),
    k=st.integers(1, 4),
    group=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_output_and_gradients_equal_the_dense_reference(
    selection, num_tokens, width, k, group, seed
):
    arguments = weights(num_tokens, width, k * group, seed)
    expected_ND = reference(*arguments, k=k, selection=selection)
    got_ND = sparse(*arguments, k=k, selection=selection)
    torch.testing.assert_close(got_ND, expected_ND)
    grad_ND = torch.randn_like(expected_ND)
    expected = torch.autograd.grad(expected_ND, arguments, grad_ND, allow_unused=True)
    got = torch.autograd.grad(got_ND, arguments, grad_ND)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_gradcheck(selection):
    arguments = weights(5, 4, 12, seed=1)
    assert torch.autograd.gradcheck(
        lambda *values: sparse(*values, k=3, selection=selection), arguments
    )


def test_gradcheck_of_the_activations():
    """The encoder's values are differentiable on their own: a loss may be put on them."""
    x_ND, W_LD, b_L, _ = weights(4, 3, 8, seed=2)
    assert torch.autograd.gradcheck(
        lambda x, W, b: sparse_ops.encode(x, W, b, k=2, selection="groupmax")[0], (x_ND, W_LD, b_L)
    )


@pytest.mark.parametrize("selection", SELECTIONS)
def test_by_hand(selection):
    # Identity encoder: the pre-activations are the input itself.
    x_ND = torch.tensor([[3.0, 1.0, 2.0, 4.0], [-1.0, -2.0, 5.0, 5.0]])
    acts_NK, indices_NK = sparse_ops.encode(
        x_ND, torch.eye(4), torch.zeros(4), k=2, selection=selection
    )
    codes = [
        {int(i): float(a) for i, a in zip(indices, acts, strict=True) if a > 0}
        for acts, indices in zip(acts_NK, indices_NK, strict=True)
    ]
    if selection == "groupmax":
        # Groups (0, 1) and (2, 3): negative maxima count as zero, the first of a tie wins.
        assert codes == [{0: 3.0, 3: 4.0}, {2: 5.0}]
        assert indices_NK[0].tolist() == [0, 3]
    else:
        assert codes == [{0: 3.0, 3: 4.0}, {2: 5.0, 3: 5.0}]


def test_selected_zero_gets_no_gradient():
    x_ND = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    W_LD = torch.eye(2, requires_grad=True)
    b_L = torch.zeros(2, requires_grad=True)
    acts_NK, _ = sparse_ops.encode(x_ND, W_LD, b_L, k=1, selection="groupmax")
    assert acts_NK.tolist() == [[0.0]]
    acts_NK.sum().backward()
    for tensor in (x_ND, W_LD, b_L):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_pieces_change_nothing(monkeypatch):
    """Going over the tokens a few at a time gives what all at once gives."""
    arguments = weights(11, 4, 12, seed=3)
    whole = sparse(*arguments, k=3, selection="groupmax")
    monkeypatch.setattr(sparse_ops, "_CPU_PIECE", 12 * 4)
    monkeypatch.setattr(sparse_ops, "_PIECE_TOKENS", 1)
    pieces = sparse(*arguments, k=3, selection="groupmax")
    torch.testing.assert_close(pieces, whole)


def test_agrees_with_sparsify():
    fused = pytest.importorskip("sparsify.fused_encoder")
    x_ND, W_LD, b_L, _ = weights(16, 8, 32, seed=4, dtype=torch.float32)
    theirs = fused.fused_encoder(x_ND, W_LD, b_L, 4, "groupmax")
    acts_NK, indices_NK = sparse_ops.encode(x_ND, W_LD, b_L, k=4, selection="groupmax")
    assert torch.equal(acts_NK, theirs.top_acts)
    assert torch.equal(indices_NK, theirs.top_indices)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_same_bits_on_every_run(selection):
    def run():
        arguments = weights(600, 16, 256, seed=5, dtype=torch.float32)
        y_ND = sparse(*arguments, k=8, selection=selection)
        y_ND.square().sum().backward()
        return [y_ND.detach(), *(tensor.grad for tensor in arguments)]

    first = run()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_frozen_arguments_get_no_gradient():
    x_ND, W_enc_LD, b_L, W_dec_LD = weights(3, 2, 4, seed=6)
    W_enc_LD.requires_grad_(False)
    sparse(x_ND, W_enc_LD, b_L, W_dec_LD, k=2, selection="topk").sum().backward()
    assert W_enc_LD.grad is None
    assert x_ND.grad is not None
    assert b_L.grad is not None


def test_autocast_to_bfloat16_stays_close():
    arguments = weights(32, 16, 64, seed=7, dtype=torch.float32)
    exact = sparse(*arguments, k=4, selection="groupmax")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = sparse(*arguments, k=4, selection="groupmax")
    assert rounded.dtype == torch.float32
    rounded.sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in arguments)
    # bfloat16 has 8 bits; where two latents are nearly equal it may choose the other.
    assert (rounded - exact).abs().median() < 0.05 * exact.abs().median()
