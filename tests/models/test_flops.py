"""FLOPs of every model and coder against torch's counter, and by hand."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import get_args

import pytest
import tiny_bases
import torch
from torch.utils.flop_counter import FlopCounterMode

from clearnets import config
from clearnets.coders import cross_layer, feedforward
from clearnets.coders.library import new_coder
from clearnets.coders.objective import add_gradient, reconstruct, variation
from clearnets.coders.training import Activations, Schedule
from clearnets.families import FAMILIES
from clearnets.models import flops as compute
from clearnets.models import sparse_ops
from clearnets.models.pretrained import KINDS
from clearnets.models.sparse_gptneox import build_model

ROOT = Path(__file__).parents[2]
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
    return model, compute.Architecture.of(model.config.to_dict(), CTX)


def bag_flops(weight, indices, offsets, scale, mode, sparse, per_sample_weights=None, *_, **__):
    """Of an embedding bag, which torch does not count: a row of the weight per index.

    Without weights of the samples rows are added only: the gradient of a bias.
    """
    return 2 * prod(indices) * weight[1] if per_sample_weights else 0


BAGS = {
    torch.ops.aten._embedding_bag: bag_flops,
    torch.ops.aten._embedding_bag_forward_only: bag_flops,
}


class counter(FlopCounterMode):
    """Torch's counter, with the products of rows, which torch does not count."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=BAGS)
        self._dots, self._real = 0, sparse_ops.row_products

    def __enter__(self):
        def counting(rows_MD, *others):
            made = self._real(rows_MD, *others)
            self._dots += 2 * made.numel() * rows_MD.shape[-1]
            return made

        sparse_ops.row_products = counting
        return super().__enter__()

    def __exit__(self, *error):
        sparse_ops.row_products = self._real
        return super().__exit__(*error)

    def get_total_flops(self) -> int:
        return super().get_total_flops() + self._dots


def counted(model, *, train: bool) -> float:
    tokens = torch.randint(3, VOCAB, (ROWS, CTX), generator=torch.Generator().manual_seed(0))
    with counter() as flops:
        logits = model(tokens, use_cache=False).logits
        if train:
            logits.sum().backward()
    return flops.get_total_flops() / (ROWS * CTX)


@pytest.mark.parametrize("mlp", get_args(config.Mlp))
def test_models_equal_torchs_counter(mlp):
    model, architecture = make(mlp)
    flops = compute.model(architecture)
    assert flops.forward == counted(model, train=False)
    assert flops.training == counted(model, train=True)


def test_bags_are_counted_by_torch_as_by_hand():
    """The counter's own part: what it adds for a bag is a multiply-add per index and column."""
    weight_LD, indices_NK = torch.zeros(9, 5, requires_grad=True), torch.zeros(7, 3, dtype=int)
    with counter() as flops:
        torch.nn.functional.embedding_bag(
            indices_NK, weight_LD, per_sample_weights=torch.ones(7, 3), mode="sum"
        )
    assert flops.get_total_flops() == 2 * 7 * 3 * 5


@pytest.mark.parametrize("multi_topk", [False, True])
@pytest.mark.parametrize("family", ["sae", "transcoder", "skip-transcoder"])
def test_coders_equal_torchs_counter(family, multi_topk):
    tokens, sizes = 8, {"d_in": 10, "num_latents": 100, "k": 3, "multi_topk": multi_topk}
    coder = new_coder("layers.0.mlp", **FAMILIES[family].coder_kind, seed=0, **sizes)
    x_ND, y_ND = torch.randn(2, tokens, 10, generator=torch.Generator().manual_seed(0))
    target_ND = x_ND if family == "sae" else y_ND
    flops = compute.coder(FAMILIES[family], **sizes)
    with counter() as forward, torch.no_grad():
        reconstruct(coder, x_ND)
    assert flops.forward == forward.get_total_flops() / tokens
    with counter() as training:
        add_gradient(coder, x_ND, target_ND, variation(target_ND))
    assert flops.training == training.get_total_flops() / tokens


def test_cross_layer_coders_equal_torchs_counter():
    tokens, sizes = 8, {"d_in": 10, "num_latents": 100, "k": 3}
    coders = {name: new_coder(name, transcode=True, seed=0, **sizes) for name in ("a", "b", "c")}
    cross_layer.extend(coders)
    x_ND, y_ND = torch.randn(2, tokens, 10, generator=torch.Generator().manual_seed(0))
    by_name = [dict.fromkeys(coders, part) for part in (x_ND, y_ND, variation(y_ND))]
    activations = Activations(*by_name, None, None)
    with counter() as training:
        cross_layer.add_gradient(coders, activations, Schedule("adam", 1.0, 0, 1))
    family = FAMILIES["cross-layer-transcoder"]
    flops = [compute.coder(family, **sizes, later=later) for later in (2, 1, 0)]
    assert sum(part.training for part in flops) == training.get_total_flops() / tokens


def test_end_to_end_training_equals_torchs_counter():
    """The model's part: with feedforwards scaled in place of coders, all positions counted."""
    model, architecture = make("dense")
    model.requires_grad_(False)
    tokens_BS = torch.randint(3, VOCAB, (ROWS, CTX), generator=torch.Generator().manual_seed(0))
    scale = torch.ones((), requires_grad=True)
    every_BS = torch.ones_like(tokens_BS, dtype=torch.bool)
    with (
        counter() as flops,
        feedforward.replaced(
            model, dict.fromkeys(range(2), lambda x_ND, _: x_ND * scale), every_BS
        ),
    ):
        model(tokens_BS, use_cache=False).logits.sum().backward()
    assert compute.spliced(architecture).training == flops.get_total_flops() / (ROWS * CTX)


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


def test_coders_by_hand():
    sizes = {"d_in": 10, "num_latents": 100, "k": 3}
    encode, row = 2 * 10 * 100, 2 * 3 * 10
    # Backward: rows of both weights and the activations; an SAE's output bias is also an input.
    skip = 2 * 10 * 10
    expected = {
        "transcoder": compute.Flops(encode + row, encode + 4 * row),
        "sae": compute.Flops(encode + row, encode + 5 * row),
        "skip-transcoder": compute.Flops(encode + row + skip, encode + 4 * row + 2 * skip),
    }
    for family, flops in expected.items():
        assert compute.coder(FAMILIES[family], **sizes) == flops


def test_unknown_feedforward():
    _, architecture = make("dense")
    with pytest.raises(ValueError, match="unknown feedforward"):
        compute.feedforward(replace(architecture, mlp="other"))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_base_equals_torchs_counter(kind):
    model = tiny_bases.make(kind, vocab_size=VOCAB, eos=1).requires_grad_(True)
    model.set_attn_implementation("eager")
    flops = compute.model(compute.Architecture.of(model.config.to_dict(), CTX))
    assert flops.forward == counted(model, train=False)
    assert flops.training == counted(model, train=True)
    # The trunk is the model without its unembedding.
    whole, model.lm_head = flops.forward, torch.nn.Identity()
    trunk = compute.trunk(compute.Architecture.of(model.config.to_dict(), CTX)).forward
    assert trunk == counted(model, train=False) < whole
