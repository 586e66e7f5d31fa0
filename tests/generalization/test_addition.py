"""The side-by-side transformers against one written plainly, and against each other."""

from __future__ import annotations

from functools import partial

import torch

from clearnets.generalization.addition import Adders, DenseMLP, SparseMLP
from clearnets.generalization.checkpoint_metrics import weight_metrics
from clearnets.pipeline.runtime import seed_for

P, D, H = 7, 8, 2
MLPS = {
    "dense": partial(DenseMLP, width=D, inner=16),
    "sparse": partial(SparseMLP, width=D, num_latents=12, k=3),
}


def adders(kind: str, seeds: list[int]) -> Adders:
    return Adders(seeds, modulus=P, width=D, num_heads=H, mlp=MLPS[kind])


def plainly(model: Adders, pair: tuple[int, int], kind: str) -> torch.Tensor:
    """Logits of one pair by the textbook: the whole sequence through every layer."""
    w = {name: tensor[0] for name, tensor in model.named_parameters()}
    rows = [w["W_E_MPD"][pair[0]], w["W_E_MPD"][pair[1]], w["equals_M1D"][0]]
    x_SD = torch.stack(rows) + w["places_M3D"]
    heads = []
    for h in range(H):
        q_Sh, k_Sh, v_Sh = (
            (x_SD @ w[f"attention.W_{name}_MDD"])[:, h * D // H : (h + 1) * D // H]
            for name in "QKV"
        )
        scores_SS = q_Sh @ k_Sh.T / (D // H) ** 0.5
        later = torch.ones(3, 3).triu(1).bool()
        heads.append(scores_SS.masked_fill(later, -torch.inf).softmax(1) @ v_Sh)
    x_SD = x_SD + torch.cat(heads, 1) @ w["attention.W_O_MDD"]
    if kind == "dense":
        hidden = (x_SD @ w["mlp.W_in_MDF"] + w["mlp.b_in_M1F"]).relu()
        out_SD = hidden @ w["mlp.W_out_MFD"] + w["mlp.b_out_M1D"]
    else:
        pre_SL = (x_SD @ w["mlp.encoder.weight"].T + w["mlp.encoder.bias"]).relu()
        largest = pre_SL.view(3, 3, 4).amax(2, keepdim=True)
        kept_SL = torch.where(pre_SL.view(3, 3, 4) == largest, pre_SL.view(3, 3, 4), 0).view(3, 12)
        out_SD = kept_SL @ w["mlp.decoder.weight"] + w["mlp.decoder.bias"]
    return ((x_SD + out_SD) @ w["W_U_MDP"])[-1]


@torch.no_grad()
def test_the_last_position_alone_gives_what_the_whole_sequence_gives():
    for kind in MLPS:
        model = adders(kind, [5])
        for name, weight in model.named_parameters():
            if name.endswith(("b_in_M1F", "bias")):
                weight.normal_(generator=torch.Generator().manual_seed(1))
        pairs = [(0, 0), (3, 6), (6, 3)]
        found = model(torch.tensor([pairs]))[0]
        expected = torch.stack([plainly(model, pair, kind) for pair in pairs])
        torch.testing.assert_close(found, expected)


def test_runs_side_by_side_are_the_runs_alone():
    pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))
    for kind in MLPS:
        both = adders(kind, [3, 4])
        logits = both(pairs.expand(2, -1, -1))
        logits.square().mean(dim=(1, 2)).sum().backward()
        for place, seed in enumerate([3, 4]):
            alone = adders(kind, [seed])
            own = alone(pairs.unsqueeze(0))
            torch.testing.assert_close(own[0], logits[place])
            own.square().mean().backward()
            for (name, one), (_, two) in zip(alone.named_parameters(), both.named_parameters()):
                assert one.grad is not None, name
                assert two.grad is not None, name
                torch.testing.assert_close(one.grad[0], two.grad[place], msg=name)


def test_variants_of_a_seed_share_all_weights_outside_their_feedforward():
    dense, sparse = (dict(adders(kind, [1]).named_parameters()) for kind in MLPS)
    shared = set(dense) & set(sparse)
    assert {"W_E_MPD", "attention.W_Q_MDD", "W_U_MDP"} <= shared
    for name in shared:
        assert torch.equal(dense[name], sparse[name])


def test_heads_are_drawn_one_by_one_and_observed_as_one_matrix():
    attention = dict(adders("dense", [5]).attention.named_parameters())
    for name in ("W_Q", "W_K"):
        rng = torch.Generator().manual_seed(seed_for(5, "weights", name))
        heads_HDh = torch.randn((H, D, D // H), generator=rng) / D**0.5
        whole_DD = torch.cat(list(heads_HDh), dim=1)
        found = attention[f"{name}_MDD"].detach().numpy()
        torch.testing.assert_close(torch.from_numpy(found[0]), whole_DD)
        shares_S = torch.linalg.svdvals(whole_DD.double())
        shares_S = shares_S / shares_S.sum()
        rank = torch.exp(-(shares_S * shares_S.log()).sum())
        metrics = weight_metrics({name: found}, {name: found})
        assert abs(metrics["weight_effective_rank"] - float(rank)) < 1e-4
