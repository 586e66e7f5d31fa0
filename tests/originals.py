"""Checkpoints of the original and its formulas, written out: what imported models must compute."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from clearnets.models.original import State

D, LAYERS, HEADS, VOCAB, K = 32, 2, 4, 29, 4
LATENTS, RANK = 32 * D, D // 8
SET = {"num_attention_heads": HEADS, "k": K}
MODES = ("dense", "sparse", "sparse_low_rank", "early_topk")


def state(mode: str, vocab: int = VOCAB) -> State:
    """A state dict as the original's modules name and shape it."""
    generator = torch.Generator().manual_seed(MODES.index(mode))

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])

    mlp = {
        "dense": {"dense_h_to_4h": (4 * D, D, True), "dense_4h_to_h": (D, 4 * D, True)},
        "early_topk": {"dense_h_to_4h": (LATENTS, D, True), "dense_4h_to_h": (D, LATENTS, True)},
        "sparse": {"dense_h_to_4h": (LATENTS, D, True)},
        "sparse_low_rank": {
            "encoder.0": (RANK, D, False),
            "encoder.1": (LATENTS, RANK, True),
            "decoder_down": (RANK, LATENTS, False),
            "decoder_up": (D, RANK, True),
        },
    }[mode]
    linear = {"attention.query_key_value": (3 * D, D, True), "attention.dense": (D, D, True)}
    linear |= {f"mlp.{name}": shape for name, shape in mlp.items()}
    found = {"gpt_neox.embed_in.weight": random(vocab, D), "embed_out.weight": random(vocab, D)}
    for n in range(LAYERS):
        at = f"gpt_neox.layers.{n}"
        for name, (rows, columns, bias) in linear.items():
            found[f"{at}.{name}.weight"] = random(rows, columns)
            if bias:
                found[f"{at}.{name}.bias"] = random(rows)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{norm}.weight"] = 1 + random(D)
            found[f"{at}.{norm}.bias"] = random(D)
        if mode == "sparse":
            found[f"{at}.mlp.values"] = random(LATENTS, D)
            found[f"{at}.mlp.offsets"] = torch.arange(0, LATENTS, LATENTS // K)
    found["gpt_neox.final_layer_norm.weight"] = 1 + random(D)
    found["gpt_neox.final_layer_norm.bias"] = random(D)
    return found


def feedforward(mode: str, w: State, x_SD: torch.Tensor) -> torch.Tensor:
    """The original's formulas, one dense product at a time. `w`: weights of one `mlp`."""
    if mode == "sparse_low_rank":
        pre_SL = x_SD @ w["encoder.0.weight"].T @ w["encoder.1.weight"].T + w["encoder.1.bias"]
        decoder_DL = w["decoder_up.weight"] @ w["decoder_down.weight"]
        return _largest(F.gelu(pre_SL)) @ decoder_DL.T + w["decoder_up.bias"]
    pre_SL = x_SD @ w["dense_h_to_4h.weight"].T + w["dense_h_to_4h.bias"]
    if mode == "sparse":
        values, indices = F.relu(pre_SL).unflatten(-1, (K, -1)).max(dim=-1)
        return torch.zeros_like(pre_SL).scatter(1, indices + w["offsets"], values) @ w["values"]
    acts_SL = F.gelu(pre_SL) if mode == "dense" else _largest(F.gelu(pre_SL))
    return acts_SL @ w["dense_4h_to_h.weight"].T + w["dense_4h_to_h.bias"]


def _largest(acts_SL: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(acts_SL).scatter(1, *reversed(acts_SL.topk(K, dim=-1)))


def reference(mode: str, weights: State, ids_S: torch.Tensor, base: float, share: float):
    """Logits of the original, written out for one row."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (D,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    size = D // HEADS
    rotary = int(size * share)
    angle = torch.outer(torch.arange(len(ids_S)), base ** (-torch.arange(0, rotary, 2) / rotary))

    def rotated(x_SHd: torch.Tensor) -> torch.Tensor:
        first, second, rest = x_SHd.split([rotary // 2, rotary // 2, size - rotary], dim=-1)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)

    x_SD = weights["gpt_neox.embed_in.weight"][ids_S]
    for n in range(LAYERS):
        at = f"gpt_neox.layers.{n}"
        w = {k.removeprefix(f"{at}."): v for k, v in weights.items() if k.startswith(f"{at}.")}
        h_SD = norm(f"{at}.input_layernorm", x_SD)
        qkv = h_SD @ w["attention.query_key_value.weight"].T + w["attention.query_key_value.bias"]
        q, k, v = qkv.view(-1, HEADS, 3, size).unbind(2)
        scores = torch.einsum("qhd,khd->hqk", rotated(q), rotated(k)) / math.sqrt(size)
        future = torch.ones(len(ids_S), len(ids_S)).triu(1).bool()
        mixed = torch.einsum("hqk,khd->qhd", scores.masked_fill(future, -torch.inf).softmax(-1), v)
        x_SD = x_SD + mixed.flatten(1) @ w["attention.dense.weight"].T + w["attention.dense.bias"]
        mlp = {k.removeprefix("mlp."): v for k, v in w.items() if k.startswith("mlp.")}
        x_SD = x_SD + feedforward(mode, mlp, norm(f"{at}.post_attention_layernorm", x_SD))
    return norm("gpt_neox.final_layer_norm", x_SD) @ weights["embed_out.weight"].T
