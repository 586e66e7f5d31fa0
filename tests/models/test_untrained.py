"""A model at step 0: the same again, of any kind that can be a base."""

from __future__ import annotations

import pytest
import tiny_bases
import torch
from torch import nn

from clearnets.models.loading import load
from clearnets.models.untrained import untrained


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_base_of_others_gets_weights_that_its_class_begins_with(kind, tmp_path):
    base = tiny_bases.make(kind, vocab_size=50, eos=2)
    base.config.update({"num_latents": 64, "k": 4, "token_aliases": {"49": 2}})
    base.save_pretrained(tmp_path)
    first, again, other = (untrained(tmp_path, seed) for seed in (0, 0, 1))
    names = dict(load(tmp_path).named_parameters())
    differ = 0
    for name, weight in first.named_parameters():
        assert weight.shape == names[name].shape
        assert torch.equal(weight, dict(again.named_parameters())[name])
        differ += not torch.equal(weight, dict(other.named_parameters())[name])
    # Norms and biases begin alike, all else with the seed.
    assert differ >= sum(isinstance(m, nn.Embedding) for m in first.modules()) + 4
    assert (first.config.num_latents, first.config.k) == (64, 4)
    # A token that stands for another is read as that.
    with torch.no_grad():
        alias, meant = (first(torch.tensor([[3, token]])).logits for token in (49, 2))
    assert torch.equal(alias, meant)
    assert not first.training


def test_the_random_state_is_left_alone(tmp_path):
    tiny_bases.make("gpt2", vocab_size=50, eos=2).save_pretrained(tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    untrained(tmp_path, 0)
    assert torch.equal(torch.rand(3), expected)
