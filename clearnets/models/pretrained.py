"""Pretrained models, a base and its twin: which kinds there are, and where their files come from.

Nothing here needs torch. Weights are only ever read from safetensors, and code that lies beside a
model is never run: a base is one of transformers' own classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearnets import UserError
from clearnets.config import SPARSE, Pretrained, PretrainedSparse
from clearnets.pipeline.artifacts import check_unchanged, read_json, sha256
from clearnets.pipeline.hub_client import detect_offline, is_id, one_line_errors

Base = Pretrained | PretrainedSparse

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Kind:
    """Where transformers keeps the parts of one kind of model.

    Attributes:
        name: what people call it.
        layers: the base model's list of layers.
        projection: in a layer, the last linear map of its feedforward; what that map reads are
            the neurons.
        gated: the feedforward has a linear branch beside the one with the activation.
        returns_tuple: a layer gives its hidden state in a tuple.
    """

    name: str
    layers: str
    projection: str
    gated: bool = False
    returns_tuple: bool = False

    @property
    def feedforwards(self) -> str:
        """The hookpoints that fit this kind."""
        return f"{self.layers}.*.mlp"


KINDS: Mapping[str, Kind] = {
    "gpt_neox": Kind("GPT-NeoX", "layers", "mlp.dense_4h_to_h"),
    "gpt_neo": Kind("GPT-Neo", "h", "mlp.c_proj", returns_tuple=True),
    "gpt2": Kind("GPT-2", "h", "mlp.c_proj"),
    "llama": Kind("Llama", "layers", "mlp.down_proj", gated=True),
    "qwen2": Kind("Qwen2", "layers", "mlp.down_proj", gated=True),
    "qwen3": Kind("Qwen3", "layers", "mlp.down_proj", gated=True),
}
"""By the `model_type` of a model's config.json."""

OURS = "sparse_gpt_neox"


def kind_of(model_type: str) -> Kind:
    """Return the kind of a model that `load` gave; our own is a GPT-NeoX around its feedforward."""
    return KINDS["gpt_neox" if model_type == OURS else model_type]


def locate(base: Base) -> dict[str, Path]:
    """Return a base's files by name, config and weights; from the hub, downloaded to its cache.

    Raises:
        UserError: no such folder or hub id, no safetensors in it, or the hub is out of reach.
    """
    files = {CONFIG: config_path(base)}
    if whole := _file(base, WEIGHTS):
        return files | {WEIGHTS: whole}
    if index := _file(base, INDEX):
        files[INDEX] = index
        for shard in sorted(set(_plain_names(index))):
            path = _file(base, shard)
            if path is None:
                raise UserError(f"{base.name} lacks {shard}, which its {INDEX} names; restore it")
            files[shard] = path
        return files
    pickled = next((name for name in PICKLED if _file(base, name, download=False)), None)
    if pickled:
        raise UserError(
            f"{base.name} holds its weights as a pickle ({pickled}), which is never read; name a "
            f"revision with {WEIGHTS} (on the hub often refs/pr/1), or save it as safetensors"
        )
    raise UserError(f"{base.name} holds no {WEIGHTS}; name a model saved as safetensors")


def _plain_names(index: Path) -> list[str]:
    names = read_json(index).get("weight_map", {}).values()
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{index} names {name!r}, which is not a file beside it")
    return list(names)


def identity(base: Base) -> dict[str, str]:
    """Return what the bytes of a base follow from: hashes of a folder's files, a hub id's commit.

    Raises:
        UserError: as `locate`.
    """
    if _is_folder(base):
        return {name: sha256(path) for name, path in locate(base).items()}
    if base.revision and _COMMIT.fullmatch(base.revision):
        return {"commit": base.revision}
    # The hub's cache keeps a snapshot in a folder named by its commit.
    return {"commit": config_path(base).parent.name}


def checked_identity(base: Base, experiment: str) -> dict[str, str]:
    """Return `identity`, after a comparison with the recorded one if there is one.

    Raises:
        UserError: the base has changed since.
    """
    found = identity(base)
    check_unchanged(base.name, found, base.fingerprint, experiment=experiment)
    return found


def read_config(base: Base) -> dict[str, Any]:
    """Return the values of a base's `config.json`.

    Raises:
        UserError: it is missing or broken, or of a kind that cannot be a base.
    """
    path = config_path(base)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); restore it") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    mlp = values.get("mlp") if kind == OURS else "dense"
    if isinstance(base, PretrainedSparse):
        if mlp not in SPARSE:
            made = "what `clearnets import` made of a sparse checkpoint"
            raise UserError(f"{base.name} is not sparse by construction; name {made}")
        return values
    if mlp != "dense":
        raise UserError(
            f"{base.name} is sparse by construction; a base has to be dense, and model.sparse "
            "names its sparse twin"
        )
    if kind == OURS:
        return values
    if kind not in KINDS:
        known = ", ".join(f"{kind.name} ({name})" for name, kind in KINDS.items())
        raise UserError(f"{base.name} is of the unknown kind {kind!r}; there are: {known}")
    return values


_SIZES = {
    "hidden_size": ("hidden_size", "n_embd"),
    "num_layers": ("num_hidden_layers", "num_layers", "n_layer"),
}
"""What the kinds call the sizes that the parameters repeat."""


def check(settings: Pretrained, mlp: str = "dense") -> None:
    """Compare a model's `config.json` with the parameters, before anything is computed.

    A size that the file leaves to transformers' defaults is compared when the base is taken over.

    Raises:
        UserError: as `read_config`; or sizes or hookpoints differ: one line says what to set.
    """
    base = settings.member(mlp)
    values = read_config(base)
    found: dict[str, Any] = {}
    for key, names in _SIZES.items():
        own = next((values[name] for name in names if values.get(name) is not None), None)
        if own is not None:
            found[key] = own
    if mlp != "dense":
        found |= latent_sizes(base, values, mlp)
    wrong = {key: own for key, own in found.items() if own != getattr(settings, key)}
    kind = kind_of(values["model_type"])
    if not settings.relative_hookpoints.startswith(f"{kind.layers}.*."):
        wrong["hookpoints"] = kind.feedforwards
    if wrong:
        listed = ", ".join(f"model.{key} to {value}" for key, value in wrong.items())
        raise UserError(f"{base.name} has other sizes or modules than the parameters; set {listed}")


def check_completed(settings: Pretrained, config: Any, mlp: str = "dense") -> None:
    """Compare a model's config, completed by transformers' defaults, with the parameters.

    Raises:
        UserError: sizes differ: one line says what to set.
    """
    base = settings.member(mlp)
    own = {"hidden_size": config.hidden_size, "num_layers": config.num_hidden_layers}
    if mlp != "dense":
        own |= latent_sizes(base, config.to_dict(), mlp)
    wrong = [
        f"model.{key} to {value}" for key, value in own.items() if getattr(settings, key) != value
    ]
    if wrong:
        raise UserError(f"{base.name} has other sizes than the parameters; set {', '.join(wrong)}")


def latent_sizes(base: Base, values: Mapping[str, Any], mlp: str) -> dict[str, int]:
    """Return what the parameters have to say of the latents of a sparse model.

    Args:
        base: the sparse model.
        values: of its config.
        mlp: the feedforward that it has to have.

    Raises:
        UserError: it has another, or no such latents as coders could have.
    """
    if values["mlp"] != mlp:
        raise UserError(
            f"the feedforward of {base.name} is {values['mlp']}, not {mlp}; "
            f"set `models: [dense, {values['mlp']}]`"
        )
    for key in ("hidden_size", "num_latents", "k"):
        if not isinstance(values.get(key), int) or values[key] < 1:
            raise UserError(f"the {CONFIG} of {base.name} has no {key}; save the model again")
    expansion, rest = divmod(values["num_latents"], values["hidden_size"])
    if rest:
        raise UserError(
            f"{base.name} has {values['num_latents']} latents, no multiple of its width "
            f"{values['hidden_size']}; coders as wide as it cannot be described"
        )
    return {"expansion": expansion, "k": values["k"]}


def config_path(base: Base) -> Path:
    """Return the path of a base's `config.json`.

    Raises:
        UserError: it has none.
    """
    path = _file(base, CONFIG)
    if path is None:
        raise UserError(f"{base.name} holds no {CONFIG}; name the folder or hub id of a model")
    return path


def _is_folder(base: Base) -> bool:
    if Path(base.name).is_dir():
        if base.revision is not None:
            raise UserError(
                f"{base.name} is a folder; remove {base.at}.revision, which is for hub ids"
            )
        return True
    if not is_id(base.name):
        raise UserError(
            f"{base.at}.name {base.name!r}: no such folder; correct it, or make the folder "
            "(`clearnets import` does of a GGUF file)"
        )
    return False


def _file(base: Base, name: str, *, download: bool = True) -> Path | None:
    """Return one file of a base, or None where it has none of that name."""
    if _is_folder(base):
        path = Path(base.name) / name
        return path if path.is_file() else None
    return _from_hub(base, name, download=download)


def _from_hub(base: Base, name: str, *, download: bool) -> Path | None:
    import huggingface_hub as hub
    from huggingface_hub import errors

    with one_line_errors(base.name, base.revision, at=f"{base.at}.name", what="a model"):
        try:
            with detect_offline() as offline:
                if download:
                    path = hub.hf_hub_download(
                        base.name, name, revision=base.revision, local_files_only=offline
                    )
                    return Path(path)
                if offline:
                    raise errors.OfflineModeIsEnabled
                # Only whether it is there; a pickle is not even fetched.
                found = hub.file_exists(base.name, name, revision=base.revision)
                return Path(name) if found else None
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
            if _known_absent(base, name) or (not download and _cached(base)):
                return None
            raise
        except errors.EntryNotFoundError:
            return None


def _known_absent(base: Base, name: str) -> bool:
    """Return the cache holds a snapshot of this revision, and `name` is no file of it."""
    import huggingface_hub as hub

    missing = hub.try_to_load_from_cache(base.name, name, revision=base.revision)
    return not isinstance(missing, str) and _cached(base)


def _cached(base: Base) -> bool:
    import huggingface_hub as hub

    return isinstance(hub.try_to_load_from_cache(base.name, CONFIG, revision=base.revision), str)
