"""Compute the latents of every family for given tokens, with forward hooks.

A reader turns token ids into the active latents of each hookpoint, as values and indices, never
as a dense vector. There is one class for each kind of family (`clearnets.families`):

    native     the sparse model's own feedforward latents
    coder      a coder on the output (SAE) or input (transcoder) of the dense model's feedforward
    neurons    what the last map of the dense model's feedforward reads (its post-activation),
               the k largest by magnitude per token
    tokens     no model: a latent is active on one token id

`open_directions` reads random directions of the native latents' space: their null.

Shapes: B rows, S positions, N = B*S tokens, D width of the model, L latents, K active latents,
W width of the dense feedforward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clearnets import UserError
from clearnets.families import FAMILIES, TOKENS
from clearnets.latents.hooks import capture
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, remake
from clearnets.pipeline.runtime import seed_for

Latents = dict[str, tuple[Tensor, Tensor]]


class LatentReader(ABC):
    """Gives the active latents of token ids.

    Attributes:
        num_latents: latents per hookpoint; indices are below it.
        hookpoints: the modules read, in order.
        source: the checkpoint folder of the model that is read, or None where there is none.
    """

    num_latents: int
    hookpoints: tuple[str, ...]
    source: Path | None = None

    @abstractmethod
    def _read(self, input_ids_BS: Tensor) -> Latents: ...

    @torch.no_grad()
    def __call__(self, input_ids_BS: Tensor) -> Latents:
        """Return by hookpoint `acts_BSK` (float32, at least 0) and `indices_BSK` (int64).

        An index with value 0 is not active. An active index occurs once per token. Neither the
        special tokens nor the first position are left out here: masking is the caller's.
        """
        return self._read(input_ids_BS)


class NativeReader(LatentReader):
    """The latents that a sparse model computes with: outputs of its `mlp.encoder` modules."""

    def __init__(self, model: nn.Module, hookpoints: Sequence[str], *, num_latents: int) -> None:
        self._model = model
        self.hookpoints = tuple(hookpoints)
        self.num_latents = num_latents

    def _read(self, input_ids_BS: Tensor) -> Latents:
        names = {point: f"{point}.encoder" for point in self.hookpoints}
        with capture(self._model, list(names.values())) as seen:
            _forward(self._model, input_ids_BS)
        return {point: _plain(*seen[name]) for point, name in names.items()}


@dataclass(frozen=True)
class Encoder:
    """The encoding half of a sparsify coder: ReLU of an affine map, then the k largest.

    It repeats `sparsify.SparseCoder.encode` value for value (a test holds them together), because
    importing sparsify takes longer than caching a family of the default experiment.
    """

    weight_LD: Tensor
    bias_L: Tensor
    b_dec_D: Tensor
    k: int
    activation: Literal["topk", "groupmax"]
    transcode: bool
    """It reads the input of its module and does not centre by `b_dec_D`."""

    @property
    def num_latents(self) -> int:
        return self.weight_LD.shape[0]

    def __call__(self, x_D: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices (..., k) of the active latents of `x_D` (..., D), unsorted."""
        # With it comes transformers, which a reader of tokens does without.
        from clearnets.models import sparse_ops

        x_ND = x_D.flatten(0, -2)
        if not self.transcode:
            x_ND = x_ND - self.b_dec_D
        acts_NK, indices_NK = sparse_ops.encode(
            x_ND, self.weight_LD, self.bias_L, k=self.k, selection=self.activation
        )
        shape = (*x_D.shape[:-1], self.k)
        return acts_NK.view(shape), indices_NK.view(shape)


def load_encoder(folder: Path, device: torch.device | str = "cpu") -> Encoder:
    """Return the encoder of a coder in sparsify's folder format (`cfg.json`, `sae.safetensors`).

    Raises:
        UserError: a file is missing or damaged.
    """
    cfg = read_json(folder / "cfg.json")
    path = folder / "sae.safetensors"
    try:
        weights = load_file(path, device=str(device))
    except (FileNotFoundError, SafetensorError):
        state = "unreadable" if path.exists() else "missing"
        raise UserError(f"{path} is {state}; {remake(path)}") from None
    return Encoder(
        weight_LD=weights["encoder.weight"].float(),
        bias_L=weights["encoder.bias"].float(),
        b_dec_D=weights["b_dec"].float(),
        k=cfg["k"],
        activation=cfg.get("activation", "topk"),
        transcode=cfg["transcode"],
    )


class CoderReader(LatentReader):
    """The latents of coders: SAEs read the output of their module, transcoders its input."""

    def __init__(self, model: nn.Module, encoders: Mapping[str, Encoder]) -> None:
        self._model = model
        self._encoders = dict(encoders)
        self.hookpoints = tuple(encoders)
        widths = {encoder.num_latents for encoder in encoders.values()}
        assert len(widths) == 1, "the coders of one family have one width"
        (self.num_latents,) = widths

    def _read(self, input_ids_BS: Tensor) -> Latents:
        with capture(self._model, self.hookpoints, inputs=True) as seen:
            _forward(self._model, input_ids_BS)
        latents = {}
        for point, encoder in self._encoders.items():
            input_BSD, output_BSD = seen[point]
            latents[point] = encoder(input_BSD if encoder.transcode else output_BSD)
        return latents


class NeuronReader(LatentReader):
    """The k largest neurons by magnitude, each sign a one-sided latent.

    Neurons are what a feedforward's last linear map reads: the post-activation, times the linear
    branch where the feedforward is gated. Neuron i is latent i where it is positive and latent
    i + W where it is negative, so there are 2W latents; values are magnitudes.
    """

    def __init__(
        self, model: nn.Module, projections: Mapping[str, str], *, width: int, k: int
    ) -> None:
        """Take by hookpoint the name of the last map of that layer's feedforward."""
        self._model = model
        self._projections = dict(projections)
        self._width, self._k = width, k
        self.hookpoints = tuple(projections)
        self.num_latents = 2 * width

    def _read(self, input_ids_BS: Tensor) -> Latents:
        with capture(self._model, list(self._projections.values()), inputs=True) as seen:
            _forward(self._model, input_ids_BS)
        return {point: self._largest(seen[name][0]) for point, name in self._projections.items()}

    def _largest(self, post_BSW: Tensor) -> tuple[Tensor, Tensor]:
        acts_BSK, neurons_BSK = post_BSW.abs().topk(self._k, dim=-1, sorted=False)
        negative_BSK = post_BSW.gather(-1, neurons_BSK) < 0
        return _plain(acts_BSK, neurons_BSK + self._width * negative_BSK)


class TokenReader(LatentReader):
    """A control without a model: latent t is active, with value 1, on every token of id t."""

    def __init__(self, vocab_size: int) -> None:
        self.num_latents = vocab_size
        self.hookpoints = (TOKENS,)

    def _read(self, input_ids_BS: Tensor) -> Latents:
        indices_BS1 = input_ids_BS.long().unsqueeze(-1)
        return {TOKENS: (torch.ones_like(indices_BS1, dtype=torch.float32), indices_BS1)}


def open_reader(
    family: str,
    seed: int,
    layers: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> LatentReader:
    """Return the reader of one family for the pair of one training seed.

    Args:
        family: name of a family.
        seed: the training seed whose pair and coders are read.
        layers: layers to read; None means all that the model has. Tokens have none.
        device: where model and coders are put.

    Raises:
        UserError: an unknown family, or a missing or damaged file.
    """
    spec = FAMILIES.get(family)
    if spec is None:
        raise UserError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    if spec.kind == "tokens":
        return TokenReader(read_json(paths.data() / "meta.json")["vocab_size"])

    from clearnets.models import hookpoints
    from clearnets.models.loading import load
    from clearnets.models.matching import load_pair
    from clearnets.models.untrained import untrained

    source: Path | None = load_pair(seed).checkpoint(spec)
    if spec.model == "dense" and spec.untrained_model:
        model, source = untrained(source, seed), None
    else:
        model = load(source)
    nn.Module.to(model, device)
    every = hookpoints.names(model)
    chosen = range(len(every)) if layers is None else layers
    points = [every[layer] for layer in chosen]
    reader: LatentReader
    if spec.is_coder:
        folder = paths.coders(family, seed)
        reader = CoderReader(
            model, {point: load_encoder(folder / point, device) for point in points}
        )
    elif spec.kind == "neurons":
        names, width = hookpoints.projections(model)
        reader = NeuronReader(
            model,
            {every[layer]: names[layer] for layer in chosen},
            width=width,
            k=model.config.k,  # The pair shares one, and a model that was taken over is given it.
        )
    else:
        reader = NativeReader(model, points, num_latents=model.config.num_latents)
    reader.source = source
    return reader


def open_directions(
    seed: int, rows_RS: np.ndarray, counted_RS: np.ndarray, device: torch.device | str = "cpu"
) -> LatentReader:
    """Return a reader of random directions in the input of the sparse model's feedforwards, as many
    as it has latents, of which as many are chosen per token in the same way.

    What an untrained SAE or transcoder is to the dense model's coders: Gaussian directions, centred
    on the mean input at the counted tokens of `rows_RS`.

    Args:
        seed: the training seed whose pair is read; it names the directions, too.
        rows_RS: rows of tokens.
        counted_RS: which of their positions count.
        device: where the model is put.
    """
    from clearnets.models import hookpoints
    from clearnets.models.loading import load
    from clearnets.models.matching import load_pair

    source = load_pair(seed).sparse
    assert source is not None, "there are native latents"
    model = load(source)
    nn.Module.to(model, device)
    size = model.config
    selection = "groupmax" if size.mlp == "sparse" else "topk"
    points = hookpoints.names(model)
    with torch.no_grad(), capture(model, points, inputs=True) as seen:
        _forward(model, torch.from_numpy(rows_RS.astype(np.int64)))
    counted = torch.from_numpy(counted_RS).to(device)
    encoders = {}
    for point in points:
        generator = torch.Generator().manual_seed(seed_for(seed, "directions", point))
        weight_LD = torch.randn(size.num_latents, size.hidden_size, generator=generator)
        weight_LD = (weight_LD / size.hidden_size**0.5).to(device)
        mean_D = seen[point][0][counted].mean(0)
        bias_L = -weight_LD @ mean_D
        encoders[point] = Encoder(
            weight_LD, bias_L, torch.zeros_like(mean_D), size.k, selection, transcode=True
        )
    reader = CoderReader(model, encoders)
    reader.source = source
    return reader


def _forward(model: nn.Module, input_ids_BS: Tensor) -> None:
    """Run the base model: the unembedding is not read, so it is not computed.

    There is no attention mask: rows are padded at their end, which no earlier position sees.
    """
    base = getattr(model, "base_model", model)
    device = next(base.parameters()).device
    base(input_ids=input_ids_BS.to(device), use_cache=False)


def _plain(acts_BSK: Tensor, indices_BSK: Tensor) -> tuple[Tensor, Tensor]:
    return acts_BSK.float(), indices_BSK.long()
