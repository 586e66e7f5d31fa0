"""The transformers against one written plainly, and their loss against one in float64."""

from __future__ import annotations

from functools import partial

import torch

from clearnets.generalization.addition import Adder, DenseMLP, SparseMLP
from clearnets.generalization.checkpoint_metrics import weight_metrics
from clearnets.generalization.grokking import losses
from clearnets.pipeline.runtime import seed_for

P, D, H = 7, 8, 2
MLPS = {
    "dense": partial(DenseMLP, width=D, inner=16),
    "sparse": partial(SparseMLP, width=D, num_latents=12, k=3),
}


def adder(kind: str, seed: int) -> Adder:
    return Adder(seed, modulus=P, width=D, num_heads=H, mlp=MLPS[kind])


def plainly(model: Adder, pair: tuple[int, int], kind: str) -> torch.Tensor:
    """Logits of one pair by the textbook: the whole sequence through every layer."""
    w = dict(model.named_parameters())
    rows = [w["W_E_PD"][pair[0]], w["W_E_PD"][pair[1]], w["equals_1D"][0]]
    x_SD = torch.stack(rows) + w["places_3D"]
    heads = []
    for h in range(H):
        q_Sh, k_Sh, v_Sh = (
            (x_SD @ w[f"attention.W_{name}_DD"])[:, h * D // H : (h + 1) * D // H] for name in "QKV"
        )
        scores_SS = q_Sh @ k_Sh.T / (D // H) ** 0.5
        later = torch.ones(3, 3).triu(1).bool()
        heads.append(scores_SS.masked_fill(later, -torch.inf).softmax(1) @ v_Sh)
    x_SD = x_SD + torch.cat(heads, 1) @ w["attention.W_O_DD"]
    if kind == "dense":
        hidden = (x_SD @ w["mlp.W_in_DF"] + w["mlp.b_in_F"]).relu()
        out_SD = hidden @ w["mlp.W_out_FD"] + w["mlp.b_out_D"]
    else:
        pre_SL = (x_SD @ w["mlp.encoder.weight"].T + w["mlp.encoder.bias"]).relu()
        largest = pre_SL.view(3, 3, 4).amax(2, keepdim=True)
        kept_SL = torch.where(pre_SL.view(3, 3, 4) == largest, pre_SL.view(3, 3, 4), 0).view(3, 12)
        out_SD = kept_SL @ w["mlp.decoder.weight"] + w["mlp.decoder.bias"]
    return ((x_SD + out_SD) @ w["W_U_DP"])[-1]


def test_the_last_position_alone_gives_what_the_whole_sequence_gives():
    for kind in MLPS:
        model = adder(kind, 5)
        for name, weight in model.named_parameters():
            if name.endswith(("b_in_F", "bias")):
                weight.data.normal_(generator=torch.Generator().manual_seed(1))
        pairs = [(0, 0), (3, 6), (6, 3)]
        found = model(torch.tensor(pairs))
        expected = torch.stack([plainly(model, pair, kind) for pair in pairs])
        torch.testing.assert_close(found, expected)
        weights = list(model.parameters())
        gradients = (torch.autograd.grad(x.square().sum(), weights) for x in (found, expected))
        for one, other in zip(*gradients):
            torch.testing.assert_close(one, other)


def test_the_loss_is_the_cross_entropy_and_keeps_the_digits_of_small_ones():
    rng = torch.Generator().manual_seed(0)
    logits_NP = 30 * torch.randn((64, P), generator=rng)
    labels_N = torch.randint(P, (64,), generator=rng)
    # Right by ever more: the loss goes down to 1e-30.
    logits_NP[torch.arange(32), labels_N[:32]] = logits_NP.amax(1)[:32] + torch.linspace(0, 70, 32)
    logits_NP.requires_grad_()
    exact_NP = logits_NP.detach().double()
    others_NP = exact_NP.scatter(1, labels_N[:, None], -torch.inf)
    excess_N = others_NP.logsumexp(1) - exact_NP.gather(1, labels_N[:, None])[:, 0]
    found_N = losses(logits_NP, labels_N)
    expected_N = torch.logaddexp(excess_N, torch.zeros(()).double())
    expected_N = torch.where(excess_N < -30, excess_N.exp(), expected_N)
    torch.testing.assert_close(found_N.double(), expected_N, rtol=2e-5, atol=0)
    found_N.sum().backward()
    assert logits_NP.grad is not None
    wrong_N1 = excess_N.sigmoid()[:, None]
    expected_NP = others_NP.softmax(1) * wrong_N1
    expected_NP.scatter_(1, labels_N[:, None], -wrong_N1)
    torch.testing.assert_close(logits_NP.grad.double(), expected_NP, rtol=5e-5, atol=1e-37)


def test_variants_of_a_seed_share_all_weights_outside_their_feedforward():
    dense, sparse = (dict(adder(kind, 1).named_parameters()) for kind in MLPS)
    shared = set(dense) & set(sparse)
    assert {"W_E_PD", "attention.W_Q_DD", "W_U_DP"} <= shared
    for name in shared:
        assert torch.equal(dense[name], sparse[name])


def test_heads_are_drawn_one_by_one_and_observed_as_one_matrix():
    attention = dict(adder("dense", 5).attention.named_parameters())
    for name in ("W_Q", "W_K"):
        rng = torch.Generator().manual_seed(seed_for(5, "weights", name))
        heads_HDh = torch.randn((H, D, D // H), generator=rng) / D**0.5
        whole_DD = torch.cat(list(heads_HDh), dim=1)
        found = attention[f"{name}_DD"].detach().numpy()
        torch.testing.assert_close(torch.from_numpy(found), whole_DD)
        shares_S = torch.linalg.svdvals(whole_DD.double())
        shares_S = shares_S / shares_S.sum()
        rank = torch.exp(-(shares_S * shares_S.log()).sum())
        metrics = weight_metrics({name: found}, {name: found})
        assert abs(metrics["weight_effective_rank"] - float(rank)) < 1e-4
