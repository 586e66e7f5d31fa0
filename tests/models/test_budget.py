"""Costs of an experiment against models that are built, coders of sparsify, and by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clearnets import config
from clearnets.families import FAMILIES
from clearnets.models import budget, flops
from clearnets.models.sparse_gptneox import build_model

ROOT = Path(__file__).parents[2]


def settings(**over) -> config.Config:
    return config.parse(config.overlay(config.read_yaml(ROOT / "params.yaml"), over), "test")


@pytest.mark.parametrize("mlp", config.MLPS)
@pytest.mark.parametrize("width", [64, 256])
def test_parameters_are_those_of_the_model(mlp, width):
    over = settings(model={"hidden_size": width})
    with torch.device("meta"):
        model = build_model(
            over.model,
            mlp=mlp,
            vocab_size=over.data.vocab_size,
            ctx_len=over.data.ctx_len,
            pad=0,
            bos=1,
            eos=2,
            seed=0,
        )
    sizes = budget.architecture(over, mlp)
    assert budget.parameters(sizes) == sum(p.numel() for p in model.parameters())
    # A config has defaults where a model does not depend on a size.
    own = flops.Architecture.of(model.config.to_dict(), over.data.ctx_len)
    assert flops.model(sizes) == flops.model(own)


@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder"])
def test_parameters_are_those_of_the_coders(family):
    from clearnets.coders.library import new_coder

    over = settings()
    coder = new_coder(
        "layers.0.mlp", **FAMILIES[family].coder_kind, d_in=64, num_latents=1024, k=8, seed=0
    )
    (cost,) = [cost for cost in budget.coders(over) if cost.name == family]
    assert cost.parameters == 8 * sum(p.numel() for p in coder.parameters())


def test_the_fair_budget_spends_the_surplus():
    over = settings(
        model={"expansion": 32}, data={"tokens": {"train": 1_000_000}}, train={"epochs": 2}
    )
    dense, sparse = budget.models(over)[:2]
    # Whole rows of 128 tokens, whole batches of 8 rows, two epochs.
    assert dense.tokens == sparse.tokens == 1_000_000 // 128 * 2 // 8 * 8 * 128
    surplus = budget.surplus(over)["sparse"]
    assert surplus == dense.tokens * (sparse.training - dense.training)
    (sae,) = [cost for cost in budget.coders(over) if cost.name == "sae"]
    text = "\n".join(budget.report(over))
    assert f"{surplus // sae.training:,} tokens of training saes" in text


def test_only_what_the_experiment_trains_is_listed():
    over = settings()
    assert [cost.name for cost in budget.models(over)] == list(over.models)
    trained = [family for family in over.coder_families if FAMILIES[family].trained]
    assert [cost.name for cost in budget.coders(over)] == trained
    by_name = {cost.name: cost for cost in budget.coders(over)}
    # Coders of the untrained model cost what those of the trained one do.
    assert by_name["step0-transcoder"].total == by_name["transcoder"].total
    few = settings(
        models=["dense", "sparse_low_rank"],
        families=["low-rank-native", "random-low-rank-native", "transcoder"],
        train={"learning_rate": 0.01},
    )  # fmt: skip
    names = [line.split()[0] for line in budget.report(few) if line[:1].isalpha()][1:4]
    assert names == ["dense", "sparse_low_rank", "transcoder"]
    nothing = settings(
        models=[], families=[], generalize={"tasks": ["grokking"]},
    )  # fmt: skip
    assert list(budget.report(nothing)) == [
        "The experiment compares no models; what its tasks cost is not counted."
    ]


def test_the_budget_of_the_original_calculator():
    """The original's `compute_calculator.py` at its own numbers: TinyStories-8M for 18,500 steps
    of 1,280 rows, and one SAE of 2,048 latents with Multi-TopK."""
    d, inner, latents, layers, context, k = 256, 1024, 8192, 8, 512, 32
    # Its formulas, per token: half of each of attention's products, a comparison per latent, norms.
    maps = 3 * d * d + context * d + d * d
    dense = 2 * d + layers * (maps + 4 * d * inner + 2 * d)
    sparse = 2 * d + layers * (maps + 2 * d * latents + latents + 2 * k * d + 2 * d)
    sae = 2 * d * 2048 + 2048 + 2 * k * d + d + 2 * (d // 2) * d + 2 * d
    steps = (sparse - dense) * 18_500 // (dense + 3 * sae)
    assert round(steps, -2) == 31_400  # what a comment in it says

    over = settings(
        data={"ctx_len": context, "tokens": {"train": 18_500 * 1280 * context}},
        model={"hidden_size": d, "num_heads": 16, "expansion": 32, "k": k},
        train={"batch_size": 1280},
        coders={"multi_topk": True},
    )
    by_name = {cost.name: cost for cost in budget.models(over)}
    assert by_name["dense"].tokens == 18_500 * 1280 * context
    # The surplus that it asks for is the forward pass's, and ours but for the comparisons.
    ours = by_name["sparse"].forward - by_name["dense"].forward
    assert ours == sparse - dense - layers * latents
    # It is answered in training FLOPs: the backward pass of the sparse model touches k latents, so
    # that its surplus is about a third, and the model that is read counts both of a product's.
    one = flops.coder(FAMILIES["sae"], d_in=d, num_latents=2048, k=k, multi_topk=True).training
    reading = flops.trunk(budget.architecture(over, "dense")).forward
    fair = budget.surplus(over)["sparse"] // ((reading + one) * 1280 * context)
    assert 0.25 < fair / steps < 0.5
    # All layers are fitted in one run, which reads the model once.
    (cost,) = [cost for cost in budget.coders(over) if cost.name == "sae"]
    wide = flops.coder(FAMILIES["sae"], d_in=d, num_latents=latents, k=k, multi_topk=True).training
    assert cost.training == reading + layers * wide


def test_a_sparse_model_that_costs_less_has_no_surplus():
    over = settings(model={"expansion": 1, "mlp_ratio": 8})
    assert budget.surplus(over)["sparse"] < 0
    assert "costs no more" in list(budget.report(over))[-1]


def test_the_command_prints_without_torch():
    code = (
        "import sys; from clearnets.cli import app, errors; sys.argv = ['clearnets', 'compute'];"
        "code = errors.guarded(lambda: app(standalone_mode=False));"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "596,608" in done.stdout
    assert "1,389,184" in done.stdout
