"""Write a model of the comparison as a folder that stands by itself, with its tokenizer.

A dense model becomes transformers' own GPT-NeoX, which it is, so that it loads where clearnets is
not installed. The others need `import clearnets.models.loading` before `AutoModelForCausalLM`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from clearnets.config import SPARSE
from clearnets.models.loading import load, silence
from clearnets.models.matching import load_pair
from clearnets.models.sparse_gptneox import SparseGPTNeoXConfig
from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.folders import made_whole


def run(mlp: str, out: Path, *, seed: int) -> Any:
    """Write the checkpoint that the comparison reads, with its tokenizer, to the folder `out`.

    Args:
        mlp: its feedforward.
        seed: its training seed.

    Returns:
        The model, float32 on the CPU.

    Raises:
        UserError: the model or the tokenizer is missing, or there can be no such folder.
    """
    artifacts.check(paths.data())
    source = load_pair(seed).trained[mlp]
    with made_whole(out) as folder, silence():
        model: Any = load(source)
        if isinstance(model.config, SparseGPTNeoXConfig) and mlp not in SPARSE:
            model = _plain(model)
        model.save_pretrained(folder)
        shutil.copytree(paths.data() / "tokenizer", folder, dirs_exist_ok=True)
    return model


def _plain(model: Any) -> Any:
    """Return transformers' GPT-NeoX with the weights of a dense model of ours."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    known = GPTNeoXConfig().to_dict().keys() - {"architectures", "model_type"}
    sizes = {key: value for key, value in model.config.to_dict().items() if key in known}
    # That of a wide model is not in its configuration.
    sizes["intermediate_size"] = model.gpt_neox.layers[0].mlp.dense_h_to_4h.out_features
    made = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
    made.load_state_dict(model.state_dict())
    made.generation_config = model.generation_config
    return made.eval()
