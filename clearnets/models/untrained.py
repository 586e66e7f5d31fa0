"""Make the dense model before its training again, from its config and the training seed."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from clearnets.models.loading import alias_tokens, silence
from clearnets.pipeline.runtime import seed_for


def untrained(path: Path, seed: int) -> PreTrainedModel:
    """Return a model with the config of the one in `path` and untrained weights, in float32.

    They are bit for bit the weights that training with this seed started from (a test holds them
    to checkpoint 0), so nothing has to be kept. For a model that others trained they are weights
    that its class begins with; where it really began is not known.
    """
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    with silence(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "init"))
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        )
    alias_tokens(model)
    return model.eval()
