"""FLOPs against torch's counter on the dense model, and by hand on the sparse ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clearnets import compute, config
from clearnets.models import build_model

ROOT = Path(__file__).parents[1]
CTX, ROWS, VOCAB = 12, 3, 40


def make(mlp: str):
    over = {"model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "expansion": 4, "k": 4}}
    settings = config.parse(
        config.overlay(config.read_yaml(ROOT / "params.yaml"), over), "test"
    ).model
    model = build_model(
        settings, mlp=mlp, vocab_size=VOCAB, ctx_len=CTX, pad=0, bos=1, eos=2, seed=0
    )
    # Eager attention: the fused one computes the scores anew in its backward pass.
    model.set_attn_implementation("eager")
    return model, compute.Architecture.of(model.config.to_dict())


def counted(model, *, train: bool) -> float:
    tokens = torch.randint(3, VOCAB, (ROWS, CTX), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens, use_cache=False).logits
        if train:
            logits.sum().backward()
    return counter.get_total_flops() / (ROWS * CTX)


def test_dense_model_equals_torchs_counter():
    model, architecture = make("dense")
    flops = compute.model(architecture)
    assert flops.forward == counted(model, train=False)
    assert flops.training == counted(model, train=True)


@pytest.mark.parametrize("mlp", ["sparse", "sparse_topk"])
def test_sparse_feedforward_by_hand(mlp):
    _, architecture = make(mlp)
    d, latents, k = 16, 64, 4
    encoder, decoder = 2 * d * latents, 2 * k * d
    flops = compute.feedforward(architecture)
    assert flops.forward == encoder + decoder
    # Backward: gradients of the encoder's rows and input, the decoder's rows, the activations.
    assert flops.training == encoder + decoder + 4 * 2 * k * d


def test_low_rank_feedforward_by_hand():
    _, architecture = make("sparse_low_rank")
    d, latents, k, rank = 16, 64, 4, 2
    flops = compute.feedforward(architecture)
    assert flops.forward == 2 * d * rank + 2 * rank * latents + 2 * k * rank + 2 * rank * d
    assert flops.training == flops.forward + 2 * (2 * 2 * d * rank) + 4 * 2 * k * rank


@pytest.mark.parametrize("mlp", ["sparse", "sparse_low_rank"])
def test_dense_products_of_sparse_models_equal_torchs_counter(mlp):
    """torch counts no embedding bag: what is left is the forward without the sparse decoder."""
    model, architecture = make(mlp)
    width = 16 if mlp == "sparse" else 2
    layers, k = 2, 4
    bags = layers * 2 * k * width
    assert compute.model(architecture).forward - bags == counted(model, train=False)


def test_coders_by_hand():
    sizes = {"d_in": 10, "num_latents": 100, "k": 3}
    encode, row = 2 * 10 * 100, 2 * 3 * 10
    # Backward: rows of both weights and the activations; an SAE's output bias is also an input.
    assert compute.coder("transcoder", **sizes) == compute.Flops(encode + row, encode + 4 * row)
    assert compute.coder("sae", **sizes) == compute.Flops(encode + row, encode + 5 * row)
    skip = 2 * 10 * 10
    assert compute.coder("skip-transcoder", **sizes) == compute.Flops(
        encode + row + skip, encode + 4 * row + 2 * skip
    )


def test_unknown_feedforward():
    _, architecture = make("dense")
    with pytest.raises(ValueError, match="unknown feedforward"):
        compute.feedforward(replace(architecture, mlp="other"))
