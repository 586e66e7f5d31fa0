"""Capturing: what the hooks see is what the modules take and give, and nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from clearnets import UserError
from clearnets.latents.hooks import capture


def tiny_model() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=20,
        use_parallel_residual=False,
    )
    return GPTNeoXForCausalLM(config).eval()


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@torch.no_grad()
def test_input_and_output_are_those_of_the_module():
    model = tiny_model()
    ids_BS = torch.arange(12).view(2, 6)
    with capture(model, ["layers.0.mlp", "layers.1.mlp"], inputs=True) as seen:
        hidden = model(ids_BS, output_hidden_states=True).hidden_states
    input_BSD, output_BSD = seen["layers.0.mlp"]
    layer = model.gpt_neox.layers[0]
    assert torch.equal(layer.mlp(input_BSD), output_BSD)
    # With a sequential residual, the layer's output is its middle plus the feedforward's output.
    middle_BSD = hidden[1] - output_BSD
    torch.testing.assert_close(layer.post_attention_layernorm(middle_BSD), input_BSD)
    with capture(model.gpt_neox, ["layers.0.mlp"]) as seen:
        model(ids_BS)
    assert torch.equal(seen["layers.0.mlp"], output_BSD)


@torch.no_grad()
def test_the_last_call_counts():
    model = tiny_model()
    with capture(model, ["layers.0.mlp"]) as seen:
        model(torch.zeros(1, 3, dtype=torch.long))
        model(torch.ones(1, 5, dtype=torch.long))
    assert seen["layers.0.mlp"].shape == (1, 5, 8)


def test_hooks_are_removed_also_after_an_error():
    model = tiny_model()
    before = hook_count(model)
    with pytest.raises(RuntimeError, match="boom"), capture(model, ["layers.0.mlp"]):
        assert hook_count(model) == before + 1
        raise RuntimeError("boom")
    assert hook_count(model) == before
    with pytest.raises(UserError, match=r"layers\.9\.mlp"):
        capture(model, ["layers.0.mlp", "layers.9.mlp"]).__enter__()
    assert hook_count(model) == before
