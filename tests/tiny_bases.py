"""Tiny random checkpoints of every kind that can be a base, and settings that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from clearnets import config
from clearnets.models.pretrained import KINDS

HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 16, 3, 4, 40, 64
EXPANSION, K = 4, 4

ROTARY = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
GROUPED = {**ROTARY, "num_key_value_heads": 2}
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt_neox": (GPTNeoXConfig, ROTARY),
    "gpt_neo": (
        GPTNeoConfig,
        {
            "hidden_size": HIDDEN,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "intermediate_size": INNER,
            "max_position_embeddings": POSITIONS,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 4,
        },
    ),
    "gpt2": (
        GPT2Config,
        {
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_inner": INNER,
            "n_positions": POSITIONS,
        },
    ),
    "llama": (LlamaConfig, GROUPED),
    # Layers of two types: each looks its mask up by its number.
    "qwen2": (
        Qwen2Config,
        {**GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3Config, {**GROUPED, "head_dim": 6, "tie_word_embeddings": True}),
}
assert set(CONFIGS) == set(KINDS)


def make(kind: str, *, vocab_size: int, eos: int, bos: int | None = None) -> PreTrainedModel:
    """An untrained model of a kind, in which every layer matters."""
    kind_config, sizes = CONFIGS[kind]
    values = {"vocab_size": vocab_size, "eos_token_id": eos, "bos_token_id": bos}
    made = kind_config(**sizes, **values, pad_token_id=None)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


def settings(name: str | Path, kind: str = "gpt_neox", **over: Any) -> config.Pretrained:
    """The `model` section of a base."""
    values = {
        "kind": "pretrained",
        "name": str(name),
        "hookpoints": KINDS[kind].feedforwards,
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "expansion": EXPANSION,
        "k": K,
        "attention": "across",
    }
    return config.Pretrained.model_validate({**values, **over})
