"""Convert checkpoints of the original clearnets to Hugging Face folders that this package reads.

The original saved Lightning checkpoints (`.ckpt`, names behind `model.`), plain torch files, and
folders of transformers' Trainer. Which feedforward a model has stands in the names of its weights:

    mlp.values, mlp.dense_h_to_4h            sparse: ReLU, GroupMax, no bias behind it
    mlp.encoder.0/1, mlp.decoder_down/up     sparse_low_rank: GELU, top-k
    mlp.dense_h_to_4h, mlp.dense_4h_to_h     dense; early sparse models (GELU, top-k) look alike
    attn.attention.*, mlp.c_fc, mlp.c_proj   an early GPT-Neo; a dense one is transformers' own

A state dict does not hold everything: what it lacks comes from a `config.json` beside the file or
from assignments, in the original's names. Nothing that is not a tensor or a plain value is ever
unpickled.

Shapes: D width of the model, L latents, R rank.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedModel

from clearnets import UserError
from clearnets.models.loading import silence
from clearnets.models.sparse_gptneox import SparseGPTNeoXConfig, SparseGPTNeoXForCausalLM
from clearnets.pipeline.folders import check_new, made_whole

State = dict[str, Tensor]

# Of a folder, in this order.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Buffers that older releases of transformers saved; they follow from the config.
_BUFFERS = re.compile(r"\.(attention|attn\.attention)\.(bias|masked_bias)$|rotary_emb\.inv_freq$")
# What the original's config classes say where nothing else does.
NEOX = {
    "rotary_pct": 0.25,
    "rotary_emb_base": 10048,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "use_parallel_residual": False,
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
NEO = {
    "attention_types": [[["global", "local"], 4]],
    "window_size": 256,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
# Nothing in a state dict tells these, and a wrong one gives a wrong model.
_ASKED = ("num_attention_heads", "num_heads", "k", "sparse_mlp")
KEYS = tuple(dict.fromkeys((*_ASKED, *NEOX, *NEO)))


def run(checkpoint: Path, out: Path, assignments: Mapping[str, Any]) -> PreTrainedModel:
    """Convert `checkpoint`, a file or a folder, into the new folder `out`.

    Args:
        assignments: values of the original's config, over those of its `config.json`.

    Raises:
        UserError: it is no checkpoint of the original, lacks something, or `out` is there.
    """
    check_new(out)
    for key in assignments:
        if key not in KEYS:
            raise UserError(f"--set {key}: unknown key; there are: {', '.join(KEYS)}")
    state = read_state(checkpoint)
    values = {**_config_beside(checkpoint), **assignments}
    model = convert(state, values, str(checkpoint), assigned=tuple(assignments))
    with made_whole(out) as part, silence():
        model.save_pretrained(part)
    return model


def read_state(checkpoint: Path) -> State:
    """Return a checkpoint's tensors by name, without prefixes of the modules around the model.

    Raises:
        UserError: it is missing, not readable without running code, or holds no tensors.
    """
    path = checkpoint
    if checkpoint.is_dir():
        path = next((checkpoint / n for n in WEIGHTS if (checkpoint / n).exists()), checkpoint)
    if not path.is_file():
        raise UserError(f"{checkpoint} is no checkpoint; name a file or a folder with {WEIGHTS[0]}")
    content = _safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {
        str(name): tensor
        for name, tensor in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(tensor, Tensor)
    }
    if not tensors:
        raise UserError(f"{path} holds no state dict; save model.state_dict() with torch.save")
    return {_bare(name): tensor for name, tensor in tensors.items()}


def _bare(name: str) -> str:
    """Strip `model.` of Lightning, `module.` of DDP, `_orig_mod.` of torch.compile."""
    return re.sub(r"^(?:(?:model|module|_orig_mod)\.)+", "", name)


def _safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); restore it") from None


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # Of pickles that torch did not write.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        what = f"the pickled class {named[1]}" if named else "more than tensors"
        raise UserError(
            f"{path} holds {what}, which is not unpickled; save model.state_dict() alone, where "
            "you trust the file"
        ) from None
    except (RuntimeError, EOFError, LookupError, ValueError, AttributeError, TypeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path} is not a file that torch.save wrote ({line:.80})") from None


def _config_beside(checkpoint: Path) -> dict[str, Any]:
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "config.json"
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); restore or delete it") from None
    return values if isinstance(values, dict) else {}


def convert(
    state: State, values: Mapping[str, Any], source: str, *, assigned: Collection[str] = ()
) -> PreTrainedModel:
    """Return the model of a state dict in the original's names, in float32.

    Args:
        state: the tensors.
        values: of the original's config; those that it may lack are in `NEOX` and `NEO`.
        source: what to call the checkpoint in errors.
        assigned: keys of `values` that have to be of use.

    Raises:
        UserError: names, shapes or values that do not fit, or an assigned one is of no use.
    """
    state = {name: tensor for name, tensor in state.items() if not _BUFFERS.search(name)}
    layers = _layers(state)
    try:
        if "gpt_neox.embed_in.weight" in state and layers:
            asked = _Asked(NEOX, values, source)
            model = _neox(state, asked, layers, source)
        elif "transformer.wte.weight" in state and layers:
            asked = _Asked(NEO, values, source)
            model = _neo(state, asked, layers, source)
        else:
            some = ", ".join(sorted(state)[:3])
            raise UserError(f"{source} is no model of the original; its weights are {some}, ...")
    except (StrictDataclassError, ValueError, TypeError) as error:
        line = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{source}: {line:.200}") from None
    unused = [key for key in assigned if key not in asked.read]
    if unused:
        raise UserError(
            f"--set {unused[0]}: {source} is a model that has no such value, or says it itself; "
            "remove it"
        )
    return model


def _layers(state: State) -> int:
    numbers = re.findall(r"(?:gpt_neox\.layers|transformer\.h)\.(\d+)\.", " ".join(state))
    return 1 + max(map(int, numbers), default=-1)


class _Asked(dict[str, Any]):
    """Values of a config; a missing one that nothing else tells is an error with its option.

    Attributes:
        read: keys that were looked up.
    """

    def __init__(self, defaults: Mapping[str, Any], values: Mapping[str, Any], source: str) -> None:
        super().__init__({**defaults, **values})
        self.source, self.read = source, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __missing__(self, key: str) -> Any:
        assert key in _ASKED, key
        raise UserError(f"{self.source} does not say its {key}; add --set {key}=VALUE")


def _neox(state: State, values: _Asked, layers: int, source: str) -> PreTrainedModel:
    embeddings_VD = state["gpt_neox.embed_in.weight"]
    vocab, width = embeddings_VD.shape
    heads = values["num_attention_heads"]
    mlp, sizes, rename = _feedforward(state, values, width, source)
    config = SparseGPTNeoXConfig(
        mlp=mlp,  # pyright: ignore[reportArgumentType]
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=values["max_position_embeddings"],
        initializer_range=values["initializer_range"],
        layer_norm_eps=values["layer_norm_eps"],
        hidden_act=values["hidden_act"],
        use_parallel_residual=values["use_parallel_residual"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(values["rotary_emb_base"]),
            "partial_rotary_factor": values["rotary_pct"],
        },
        bos_token_id=values["bos_token_id"],
        eos_token_id=values["eos_token_id"],
        **sizes,
    )
    renamed: State = {}
    for name, tensor in state.items():
        if name == "embed_out.weight":
            renamed["lm_head.weight"] = tensor
        elif ".mlp." in name:
            prefix, _, rest = name.partition(".mlp.")
            renamed |= {f"{prefix}.mlp.{new}": value for new, value in rename(rest, tensor)}
        else:
            renamed[name] = tensor
    return _filled(SparseGPTNeoXForCausalLM, config, renamed, source)


Rename = Callable[[str, Tensor], Iterator[tuple[str, Tensor]]]


def _feedforward(
    state: State, values: _Asked, width: int, source: str
) -> tuple[str, dict[str, Any], Rename]:
    """Return the mode of the feedforward, its sizes, and how its weights are called here."""
    first = {name.partition(".mlp.")[2]: t for name, t in state.items() if ".layers.0.mlp." in name}
    if "values" in first:
        latents = len(first["values"])
        # Their number is that of the groups; a later file has them, an early one does not.
        k = len(first["offsets"]) if "offsets" in first else values["k"]
        if values.get("k", k) != k:
            raise UserError(f"{source} has k {k} and is said to have {values['k']}; correct it")
        sizes = {"num_latents": latents, "k": k, "intermediate_size": 4 * width}
        return "sparse", sizes, _rename_sparse
    if "encoder.0.weight" in first and "encoder.1.weight" in first:
        latents, rank = first["encoder.1.weight"].shape
        sizes = {"num_latents": latents, "rank": rank, "k": values["k"]}
        sizes |= {"intermediate_size": 4 * width, "latent_act": _latent_act(values, source)}
        return "sparse_low_rank", sizes, _rename_low_rank
    if "dense_h_to_4h.weight" in first and "dense_4h_to_h.weight" in first:
        inner = len(first["dense_h_to_4h.weight"])
        # Early sparse models have a dense one's names and are eight times as wide.
        if inner == 32 * width and values["sparse_mlp"]:
            sizes = {"num_latents": inner, "k": values["k"], "intermediate_size": 4 * width}
            return "sparse_topk", {**sizes, "latent_act": _latent_act(values, source)}, _rename_topk
        sizes = {"intermediate_size": inner, "num_latents": 32 * width, "k": values.get("k", 32)}
        return "dense", sizes, _keep
    raise UserError(f"{source} has an unknown feedforward; its weights are {', '.join(first)}")


def _latent_act(values: _Asked, source: str) -> str:
    act = values["hidden_act"]
    if act not in ("relu", "gelu"):
        raise UserError(f"{source} puts {act!r} on its latents; known are relu and gelu")
    return act


def _keep(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield name, tensor


def _rename_sparse(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    match name:
        case "dense_h_to_4h.weight" | "dense_h_to_4h.bias":
            yield name.replace("dense_h_to_4h", "encoder"), tensor
        case "values":
            yield "decoder.weight", tensor
            # The original adds no bias.
            yield "decoder.bias", tensor.new_zeros(tensor.shape[1])
        case "offsets":
            return
        case _:
            yield name, tensor


def _rename_low_rank(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    new = {
        "encoder.0.weight": "encoder.down.weight",
        "encoder.1.weight": "encoder.weight",
        "encoder.1.bias": "encoder.bias",
        "decoder_up.weight": "decoder.up.weight",
        "decoder_up.bias": "decoder.bias",
    }
    if name == "decoder_down.weight":  # (R, L)
        yield "decoder.weight", tensor.T
    else:
        yield new.get(name, name), tensor


def _rename_topk(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    new = {
        "dense_h_to_4h.weight": "encoder.weight",
        "dense_h_to_4h.bias": "encoder.bias",
        "dense_4h_to_h.bias": "decoder.bias",
    }
    if name == "dense_4h_to_h.weight":  # (D, L)
        yield "decoder.weight", tensor.T
    else:
        yield new.get(name, name), tensor


def _neo(state: State, values: _Asked, layers: int, source: str) -> PreTrainedModel:
    # Where it is the embedding itself it may be left out.
    state = {"lm_head.weight": state["transformer.wte.weight"], **state}
    vocab, width = state["transformer.wte.weight"].shape
    inner = len(state.get("transformer.h.0.mlp.c_fc.weight", ()))
    if values.get("sparse_mlp", inner == 32 * width):
        raise UserError(
            f"{source} is an early sparse GPT-Neo, which has no place here; only a dense one has"
        )
    tied = torch.equal(state["lm_head.weight"], state["transformer.wte.weight"])
    config = GPTNeoConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_layers=layers,
        num_heads=values["num_heads"],
        intermediate_size=inner,
        max_position_embeddings=len(state["transformer.wpe.weight"]),
        tie_word_embeddings=tied,
        **{key: values[key] for key in NEO},
    )
    return _filled(GPTNeoForCausalLM, config, state, source)


def _filled(kind: Any, config: Any, state: State, source: str) -> PreTrainedModel:
    """Return a model of `kind` with exactly these weights, as float32."""
    with torch.device("meta"):
        model = kind(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in wanted.items():
        if name not in state:
            raise UserError(f"{source} lacks {name}")
        if state[name].shape != shape:
            have, want = tuple(state[name].shape), tuple(shape)
            raise UserError(f"{source}: {name} has the shape {have}, its config asks for {want}")
    unknown = sorted(set(state) - set(wanted))
    if unknown:
        raise UserError(f"{source} has the unknown weight {unknown[0]}")
    filled = kind(config)
    filled.load_state_dict({name: state[name].float().contiguous() for name in wanted})
    return filled.eval()
