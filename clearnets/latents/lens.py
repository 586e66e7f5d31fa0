"""The logit lens on latents: which tokens' logits a latent's direction raises and lowers.

The logit lens (nostalgebraist, 2020) on weights alone: what a unit of the latent adds to the
residual stream, d, is centred where the final norm centres, scaled by that norm's gain g, and
multiplied by the unembedding: W_U (g * (d - mean d)). Layers behind it and the size of the norm
are left out, so this orders tokens and says nothing of how much a latent changes the output.

Shape suffixes: V vocabulary, D width of the residual stream, L latents, W neurons.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from clearnets import UserError
from clearnets.families import FAMILIES
from clearnets.latents import neighbours
from clearnets.models.matching import checkpoint_of
from clearnets.models.pretrained import OURS, WEIGHTS, kind_of
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import missing, read_json, remake


@dataclass(frozen=True)
class Names:
    """What the parts of one kind of model are called in its safetensors file.

    Attributes:
        base: what stands before the names of the base model's parts.
        embedding: the input embedding, which is the unembedding, too, where there is no other.
        norm: the last norm.
        centred: it is a layer norm; others only scale.
        rows: a linear map has a row for each of its inputs, as transformers' Conv1D has.
    """

    base: str
    embedding: str
    norm: str
    centred: bool = True
    rows: bool = False


_LLAMA = Names("model.", "embed_tokens", "norm", centred=False)
NAMES = {
    "gpt_neox": Names("gpt_neox.", "embed_in", "final_layer_norm"),
    OURS: Names("gpt_neox.", "embed_in", "final_layer_norm"),
    "gpt_neo": Names("transformer.", "wte", "ln_f"),
    "gpt2": Names("transformer.", "wte", "ln_f", rows=True),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
UNEMBEDDINGS = ("lm_head.weight", "embed_out.weight")


class Checkpoint:
    """The tensors of a model's folder, read one by one without torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model_type: str = read_json(folder / "config.json")["model_type"]
        self.names = NAMES[self.model_type]
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for name in self._open(path, lambda file: list(file.keys())):
                self._files[name] = path
        if not self._files:
            raise UserError(missing(folder / WEIGHTS))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> np.ndarray:
        """A tensor as float32."""
        if name not in self._files:
            raise UserError(f"{self.folder} holds no {name}; {remake(self.folder)}")
        path = self._files[name]
        # numpy has no bfloat16.
        if self._open(path, lambda file: file.get_slice(name).get_dtype()) == "BF16":
            return _bfloat16(path, name)
        return self._open(path, lambda file: file.get_tensor(name)).astype(np.float32)

    @staticmethod
    def _open(path: Path, read):
        try:
            with safe_open(path, framework="numpy") as file:
                return read(file)
        except SafetensorError as error:
            raise UserError(f"{path} is not readable ({error}); {remake(path)}") from None

    def lens(self) -> np.ndarray:
        """(V, D): its product with a direction gives what that adds to each token's logit."""
        names = self.names
        embedding = f"{names.base}{names.embedding}.weight"
        unembedding_VD = self[next((name for name in UNEMBEDDINGS if name in self), embedding)]
        lens_VD = unembedding_VD * self[f"{names.base}{names.norm}.weight"]
        if names.centred:
            lens_VD = lens_VD - lens_VD.mean(axis=1, keepdims=True)
        return lens_VD

    def native(self, hookpoint: str) -> np.ndarray:
        """(L, D): what a sparse feedforward's latents write."""
        prefix = f"{self.names.base}{hookpoint}.decoder"
        weight_LR = self[f"{prefix}.weight"]
        up = f"{prefix}.up.weight"
        return weight_LR @ self[up].T if up in self else weight_LR

    def neurons(self, layer: int) -> np.ndarray:
        """(2W, D): what the neurons of a dense feedforward write, then the same for their negative
        side."""
        kind = kind_of(self.model_type)
        name = f"{self.names.base}{kind.layers}.{layer}.{kind.projection}.weight"
        weight_WD = self[name] if self.names.rows else self[name].T
        return np.concatenate([weight_WD, -weight_WD])


def _bfloat16(path: Path, name: str) -> np.ndarray:
    """A tensor of bfloat16, the upper halves of float32, from a safetensors file: eight bytes with
    the length of a header, the header as JSON, the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        upper = np.frombuffer(file.read(end - begin), dtype="<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(entry["shape"])


def has_lens(family: str) -> bool:
    """Return whether the latents of a family have a direction in the output of a model on disk.

    Tokens have none, and of a dense model before its training nothing is kept.
    """
    spec = FAMILIES[family]
    return spec.kind == "native" or (spec.model is not None and not spec.untrained_model)


class Lenses:
    """The lenses of the pair of one training seed, each read once."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._open: dict[Path, tuple[Checkpoint, np.ndarray]] = {}

    def logits(self, family: str, layer: int, hookpoint: str) -> np.ndarray | None:
        """(L, V): for a direction of unit length, what each latent adds to each token's logit, up
        to the norm's scale; None where the family has no lens.

        Raises:
            UserError: a file is missing or damaged.
        """
        if not has_lens(family):
            return None
        spec, (model, lens_VD) = FAMILIES[family], self._model(family)
        if spec.is_coder:
            coder = paths.coders(family, self._seed) / hookpoint
            weight_LD = neighbours.weights(coder, "decoder")
        elif spec.kind == "neurons":
            weight_LD = model.neurons(layer)
        else:
            weight_LD = model.native(hookpoint)
        norm_L1 = np.linalg.norm(weight_LD, axis=1, keepdims=True)
        return (weight_LD / np.maximum(norm_L1, np.finfo(np.float32).tiny)) @ lens_VD.T

    def lens(self, family: str) -> np.ndarray | None:
        """(V, D): the lens of the model that a family reads, see `Checkpoint.lens`; None where it
        has none."""
        return self._model(family)[1] if has_lens(family) else None

    def _model(self, family: str) -> tuple[Checkpoint, np.ndarray]:
        folder = checkpoint_of(FAMILIES[family], self._seed)
        if folder not in self._open:
            model = Checkpoint(folder)
            self._open[folder] = model, model.lens()
        return self._open[folder]


def extremes(logit_V: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """Ids of the `count` tokens with the largest and with the smallest logits, the most extreme
    first; of equal ones the first id."""
    return (
        np.argsort(-logit_V, kind="stable")[:count].tolist(),
        np.argsort(logit_V, kind="stable")[:count].tolist(),
    )
