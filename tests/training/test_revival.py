"""Centring and revival of sparse feedforwards in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from torch import nn

from clearnets.training.revival import Encoders
from clearnets.training.schedule_free import ExactScheduleFree


def batches(count: int) -> torch.Tensor:
    """Rows of which the last one is half padding, (count, B, S)."""
    tokens = torch.from_numpy(tiny_run.rows(count * 3, seed=5).astype(np.int64))
    tokens[2::3, 6:] = tiny_run.PAD
    return tokens.view(count, 3, -1)


def begin(**settings: Any) -> tuple[nn.Module, Encoders, ExactScheduleFree]:
    model = tiny_run.new_model("sparse_topk").train()
    encoders = Encoders(model, tiny_run.train_settings(**settings))
    optimizer = ExactScheduleFree(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
    optimizer.train()
    return model, encoders, optimizer


def step(model: Any, encoders: Encoders, optimizer: Any, tokens_BS: torch.Tensor) -> None:
    encoders.reads(tokens_BS != tiny_run.PAD)
    model(input_ids=tokens_BS, labels=tokens_BS).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    encoders.end_step(optimizer)


def encoders_of(model: Any) -> list[Any]:
    return [layer.mlp.encoder for layer in model.gpt_neox.layers]


def test_the_mean_is_a_running_one_of_what_is_no_padding():
    model, encoders, optimizer = begin(centring=0.25)
    norm, seen = model.gpt_neox.layers[0].post_attention_layernorm, []
    norm.register_forward_hook(lambda _, __, out: seen.append(out.detach().numpy()))
    expected = np.zeros(8)
    for tokens_BS in batches(6):
        step(model, encoders, optimizer, tokens_BS)
        there = seen.pop()[(tokens_BS != tiny_run.PAD).numpy()]
        expected = 0.75 * expected + 0.25 * there.mean(0)
    np.testing.assert_allclose(encoders.state()[0]["mean"], expected, atol=1e-6)


def test_silent_latents_and_no_others_rise_by_the_step():
    model, encoders, optimizer = begin(bias_step=0.5, silent_steps=3, centring=0)
    for group in optimizer.param_groups:
        group["lr"] = 1e-9
    encoder = encoders_of(model)[1]
    with torch.no_grad():
        encoder.bias[4:8] = -30.0
    before = encoder.bias.detach().clone()
    fired: list[set[int]] = []

    def watch(_: Any, __: Any, output: Any) -> None:
        there = (tokens_BS != tiny_run.PAD)[..., None] & (output[0] > 0)
        fired.append(set(output[1][there].tolist()))

    encoder.register_forward_hook(watch)
    for tokens_BS in batches(7):
        step(model, encoders, optimizer, tokens_BS)
    expected = before.numpy().copy()
    for latent in range(len(expected)):
        silent = 0
        for active in fired:
            silent = 0 if latent in active else silent + 1
            expected[latent] += 0.5 * (silent >= 3)
    np.testing.assert_allclose(encoder.bias.detach(), expected, atol=1e-5)
    assert (expected[4:8] == before[4:8].numpy() + 2.5).all()
    # The iterate and the average have moved alike.
    optimizer.eval()
    np.testing.assert_allclose(encoder.bias.detach(), expected, atol=1e-4)


@pytest.mark.parametrize("mlp", ["sparse", "sparse_topk", "sparse_low_rank"])
def test_folded_into_the_bias_the_model_says_the_same(mlp):
    model: Any = tiny_run.new_model(mlp).train()
    encoders = Encoders(model, tiny_run.train_settings(centring=0.5))
    tokens_BS = batches(1)[0]
    for encoder in encoders._each:
        encoder.mean_D = torch.linspace(-1, 1, 8)
    encoders.reads(tokens_BS != tiny_run.PAD)
    with torch.no_grad():
        centred = model(input_ids=tokens_BS).logits
        bias = [encoder.bias.clone() for encoder in encoders_of(model)]
        plain = model.eval()(input_ids=tokens_BS).logits
        with encoders.folded():
            folded = model(input_ids=tokens_BS).logits
        assert all(map(torch.equal, bias, (encoder.bias for encoder in encoders_of(model))))
        encoders.finish()
        finished = model.train()(input_ids=tokens_BS).logits
    torch.testing.assert_close(folded, centred)
    torch.testing.assert_close(finished, centred)
    assert (plain - centred).abs().max() > 1e-3


def test_a_dense_model_has_nothing_to_keep():
    assert Encoders(tiny_run.new_model("dense"), tiny_run.train_settings()).state() == []


def test_latents_that_would_die_are_revived(tmp_path: Path):
    def dead(name: str, **settings: Any) -> float:
        torch.manual_seed(0)
        model: Any = tiny_run.new_model("sparse")
        with torch.no_grad():
            for encoder in encoders_of(model):
                encoder.bias[::2] = -4.0
        tiny_run.run(tmp_path / name, model=model, epochs=8, **settings)
        active: set[tuple[int, int]] = set()
        for layer, encoder in enumerate(encoders_of(model)):
            encoder.register_forward_hook(
                lambda _, __, out, layer=layer: active.update(
                    (layer, latent) for latent in out[1][out[0] > 0].tolist()
                )
            )
        with torch.no_grad():
            model(input_ids=torch.from_numpy(tiny_run.rows(62, seed=1).astype(np.int64)))
        return 1 - len(active) / (2 * 32)

    without, with_it = dead("without", bias_step=0), dead("with", bias_step=0.1, silent_steps=2)
    assert with_it < without - 0.2
