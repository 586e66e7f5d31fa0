"""Convert a GGUF file into a Hugging Face folder, weights and tokenizer.

The weights become plain floats, but they are what the file's quantization left of the original's.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from clearnets import UserError
from clearnets.models.loading import silence
from clearnets.pipeline.folders import check_new, made_whole

SUFFIX = ".gguf"


def run(file: Path, out: Path) -> PreTrainedModel:
    """Convert `file` into the new folder `out`, in float32.

    Its config says which file it was (`converted_from`).

    Raises:
        UserError: it is missing or of a kind that transformers does not read, the package gguf is
            missing, or `out` is there.
    """
    check_new(out)
    if not file.is_file():
        raise UserError(f"there is no file {file}; name a GGUF file, or package:NAME of one")
    if find_spec("gguf") is None:
        raise UserError("a GGUF file is read with the package gguf; install the extra `local-llm`")
    source: Any = {
        "pretrained_model_name_or_path": file.parent,
        "gguf_file": file.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        with silence():
            model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(**source)
    except (
        Exception
    ) as error:  # Whatever transformers and gguf meet in a file that they can't read.
        reason = " ".join(str(error).split())
        raise UserError(f"transformers cannot read {file} ({reason:.160})") from None
    # transformers refuses to save weights of this quantizer, though nothing of it is left in them.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.config.update({"converted_from": file.name})
    with made_whole(out) as part, silence():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return model
