"""Compute the latents of every family for given tokens, with forward hooks.

A reader turns token ids into the active latents of each hookpoint, as values and indices, never
as a dense vector. There is one class for each kind of family (`clearnets.families`):

    native     the sparse model's own feedforward latents
    coder      a coder on the output (SAE) or input (transcoder) of the dense model's feedforward
    neurons    what the last map of the dense model's feedforward reads (its post-activation),
               the k largest by magnitude per token
    tokens     no model: a latent is active on one token id, or as `latents.planted` says

`open_directions` reads random directions of the native latents' space: their null.

Shapes: B rows, S positions, N = B*S tokens, D width of the model, L latents, K active latents,
W width of the dense feedforward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clearnets import UserError
from clearnets.data.tokens import open_tokens
from clearnets.families import DIRECTIONS, FAMILIES, TOKENS, FamilySpec
from clearnets.latents.hooks import capture, watch
from clearnets.latents.planted import Planted
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_json, remake
from clearnets.pipeline.runtime import seed_for

Latents = dict[str, tuple[Tensor, Tensor]]


class LatentReader(ABC):
    """Gives the active latents of token ids.

    Attributes:
        num_latents: latents per hookpoint; indices are below it.
        hookpoints: where the latents are, in order.
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


class ModelReader(LatentReader):
    """Gives the latents that follow from what modules of a model take and give."""

    def __init__(self, model: nn.Module, modules: Mapping[str, str], num_latents: int) -> None:
        """Take by hookpoint the name of the module that is read there."""
        self.model = model
        self.modules = dict(modules)
        self.hookpoints = tuple(modules)
        self.num_latents = num_latents

    @abstractmethod
    def latents(self, point: str, read: Any, written: Any) -> tuple[Tensor, Tensor]:
        """Return values and indices (B, S, K) for the input and output of a hookpoint's module."""

    def _read(self, input_ids_BS: Tensor) -> Latents:
        found: Latents = {}

        def keep(_: LatentReader, point: str, acts_BSK: Tensor, indices_BSK: Tensor) -> None:
            found[point] = acts_BSK, indices_BSK

        read_together([self], input_ids_BS, keep)
        return found


@torch.no_grad()
def read_together(
    readers: Sequence[LatentReader],
    input_ids_BS: Tensor,
    take: Callable[[LatentReader, str, Tensor, Tensor], None],
) -> None:
    """Read several families in one forward pass of the model that they share.

    Args:
        readers: those of a model share it as one object.
        input_ids_BS: token ids.
        take: is called with a reader, its hookpoint, and there `acts_BSK` and `indices_BSK` as
            `LatentReader.__call__` returns them, as soon as the model has come to that module: no
            activation is kept.
    """
    of_model = [reader for reader in readers if isinstance(reader, ModelReader)]
    for reader in readers:
        if not isinstance(reader, ModelReader):
            for point, latents in reader(input_ids_BS).items():
                take(reader, point, *latents)
    if not of_model:
        return
    model, there = of_model[0].model, defaultdict(list)
    assert all(reader.model is model for reader in of_model), "one model is run"
    for reader in of_model:
        for point, name in reader.modules.items():
            there[name].append((reader, point))

    def at(name: str) -> Callable[[Any, Any], None]:
        def read_all(read: Any, written: Any) -> None:
            for reader, point in there[name]:
                take(reader, point, *reader.latents(point, read, written))

        return read_all

    with watch(model, {name: at(name) for name in there}):
        _forward(model, input_ids_BS)


class NativeReader(ModelReader):
    """The latents that a sparse model computes with: outputs of its `mlp.encoder` modules."""

    def __init__(self, model: nn.Module, hookpoints: Sequence[str], *, num_latents: int) -> None:
        modules = {point: f"{point}.encoder" for point in hookpoints}
        super().__init__(model, modules, num_latents)

    def latents(self, point: str, read: Any, written: Any) -> tuple[Tensor, Tensor]:
        return _plain(*written)


@dataclass(frozen=True)
class Encoder:
    """The encoding half of a coder: ReLU of an affine map, then the k largest, the maximum of each
    of k groups, or all above thresholds.

    It repeats `sparsify.SparseCoder.encode` value for value (a test holds them together), because
    importing sparsify takes longer than caching a family of the default experiment.
    """

    weight_LD: Tensor
    bias_L: Tensor
    b_dec_D: Tensor
    k: int
    activation: Literal["topk", "groupmax", "threshold"]
    transcode: bool
    """It reads the input of its module and does not centre by `b_dec_D`."""
    threshold_L: Tensor | None = None
    """What each latent has to exceed, where that is what chooses."""

    @property
    def num_latents(self) -> int:
        return self.weight_LD.shape[0]

    def __call__(self, x_D: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices (..., K) of the active latents of `x_D` (..., D), unsorted.

        K is k, or the largest number of any token; those with fewer are padded with value 0.
        """
        # With it comes transformers, which a reader of tokens does without.
        from clearnets.models import sparse_ops

        x_ND = x_D.flatten(0, -2)
        if not self.transcode:
            x_ND = x_ND - self.b_dec_D
        acts_NK, indices_NK = sparse_ops.encode(
            x_ND,
            self.weight_LD,
            self.bias_L,
            k=self.k,
            selection=self.activation,
            threshold_L=self.threshold_L,
        )
        shape = (*x_D.shape[:-1], acts_NK.shape[-1])
        return acts_NK.view(shape), indices_NK.view(shape)


def load_encoder(folder: Path, device: torch.device | str = "cpu") -> Encoder:
    """Return the encoder of a coder in sparsify's folder format (`cfg.json`, `sae.safetensors`).

    Raises:
        UserError: a file is missing or damaged.
    """
    cfg = read_json(folder / "cfg.json")
    path, own = folder / "sae.safetensors", {}
    try:
        weights = load_file(path, device=str(device))
        if "selection" in cfg:
            path = folder / "threshold.safetensors"
            own = load_file(path, device=str(device))
    except (FileNotFoundError, SafetensorError):
        state = "unreadable" if path.exists() else "missing"
        raise UserError(f"{path} is {state}; {remake(path)}") from None
    return Encoder(
        weight_LD=weights["encoder.weight"].float(),
        bias_L=weights["encoder.bias"].float(),
        b_dec_D=weights["b_dec"].float(),
        k=cfg["k"],
        activation="threshold" if own else cfg.get("activation", "topk"),
        transcode=cfg["transcode"],
        threshold_L=own.get("threshold"),
    )


class CoderReader(ModelReader):
    """The latents of coders: SAEs read the output of their module, transcoders its input."""

    def __init__(self, model: nn.Module, encoders: Mapping[str, Encoder]) -> None:
        widths = {encoder.num_latents for encoder in encoders.values()}
        assert len(widths) == 1, "the coders of one family have one width"
        super().__init__(model, {point: point for point in encoders}, widths.pop())
        self._encoders = dict(encoders)

    def latents(self, point: str, read: Any, written: Any) -> tuple[Tensor, Tensor]:
        encoder = self._encoders[point]
        return encoder(read if encoder.transcode else written)


class NeuronReader(ModelReader):
    """The k largest neurons by magnitude, each sign a one-sided latent.

    Neurons are what a feedforward's last linear map reads: the post-activation, times the linear
    branch where the feedforward is gated. Neuron i is latent i where it is positive and latent
    i + W where it is negative, so there are 2W latents; values are magnitudes.
    """

    def __init__(
        self, model: nn.Module, projections: Mapping[str, str], *, width: int, k: int
    ) -> None:
        """Take by hookpoint the name of the last map of that layer's feedforward."""
        super().__init__(model, projections, 2 * width)
        self._width, self._k = width, k

    def latents(self, point: str, read: Any, written: Any) -> tuple[Tensor, Tensor]:
        from clearnets.models.top_k import top_k

        post_NW = read.flatten(0, -2)
        acts_NK, neurons_NK = top_k(post_NW.abs(), self._k)
        negative_NK = post_NW.gather(-1, neurons_NK) < 0
        indices_NK = neurons_NK + self._width * negative_NK
        shape = (*read.shape[:-1], self._k)
        return _plain(acts_NK.view(shape), indices_NK.view(shape))


class TokenReader(LatentReader):
    """A control without a model: latent t is active, with value 1, on every token of id t."""

    def __init__(self, vocab_size: int) -> None:
        self.num_latents = vocab_size
        self.hookpoints = (TOKENS,)

    def _read(self, input_ids_BS: Tensor) -> Latents:
        indices_BS1 = input_ids_BS.long().unsqueeze(-1)
        return {TOKENS: (torch.ones_like(indices_BS1, dtype=torch.float32), indices_BS1)}


class PlantedReader(LatentReader):
    """Latents that are made for a test of the scores, see `latents.planted`; all have value 1."""

    def __init__(self, planted: Planted) -> None:
        self.num_latents = planted.num_latents
        self.hookpoints = (TOKENS,)
        self._planted = planted

    def _read(self, input_ids_BS: Tensor) -> Latents:
        active_BSK = torch.from_numpy(self._planted(input_ids_BS.numpy(force=True)))
        return {TOKENS: _plain(active_BSK >= 0, active_BSK.clamp(min=0))}


@dataclass(frozen=True)
class Opened:
    """The model that families of one `model_state` read; none for those of tokens.

    Attributes:
        model: on its device, in eval mode.
        source: its checkpoint folder; None where its weights follow from the seed.
        device: where it is.
    """

    model: Any
    source: Path | None
    device: torch.device | str


def open_model(family: str, seed: int, device: torch.device | str = "cpu") -> Opened:
    """Return the model that a family reads, of the pair of one training seed.

    Raises:
        UserError: an unknown family, or a missing or damaged file.
    """
    spec = FAMILIES.get(family)
    if spec is None:
        raise UserError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    if spec.model is None:
        return Opened(None, None, device)
    from clearnets.models.loading import load
    from clearnets.models.matching import checkpoint_of
    from clearnets.models.untrained import untrained

    source: Path | None = checkpoint_of(spec, seed)
    if spec.kind != "native" and spec.untrained_model:
        model, source = untrained(source, seed), None
    else:
        model = load(source)
    nn.Module.to(model, device)
    return Opened(model, source, device)


def open_reader(
    family: str,
    seed: int,
    layers: Sequence[int] | None = None,
    opened: Opened | None = None,
    *,
    k: int,
) -> LatentReader:
    """Return the reader of one family for the pair of one training seed.

    Args:
        family: name of a family.
        seed: the training seed whose pair and coders are read.
        layers: numbers of layers to read; None means all that are read. Tokens have none.
        opened: its model, where other families share it; None loads it, to the CPU.
        k: active latents per token of neurons, which have none of their own.

    Raises:
        UserError: an unknown family, or a missing or damaged file.
    """
    opened = opened or open_model(family, seed)
    spec, model = FAMILIES[family], opened.model
    if model is None:
        return _open_tokens(spec)
    from clearnets.models import hookpoints

    every = dict(zip(hookpoints.numbers(model), hookpoints.names(model)))
    chosen = list(every) if layers is None else layers
    points = [every[layer] for layer in chosen]
    reader: LatentReader
    if spec.is_coder:
        folder = paths.coders(family, seed)
        reader = CoderReader(
            model, {point: load_encoder(folder / point, opened.device) for point in points}
        )
    elif spec.kind == "neurons":
        names, width = hookpoints.projections(model)
        reader = NeuronReader(
            model,
            {point: name for point, name in zip(every.values(), names) if point in points},
            width=width,
            k=k,
        )
    else:
        reader = NativeReader(model, points, num_latents=model.config.num_latents)
    reader.source = opened.source
    return reader


def _open_tokens(spec: FamilySpec) -> LatentReader:
    """Return the reader of a family that reads tokens alone."""
    if spec.planted is None:
        return TokenReader(read_json(paths.data() / "meta.json")["vocab_size"])
    store = open_tokens(paths.data())
    tokens_RS = np.asarray(store.split("explain"))
    return PlantedReader(Planted.of(spec.planted, tokens_RS, store.counted(tokens_RS)))


def open_directions(
    null: str, seed: int, rows_RS: np.ndarray, counted_RS: np.ndarray, opened: Opened
) -> LatentReader:
    """Return a reader of random directions in the input of a sparse model's feedforwards, as many
    as it has latents, of which as many are chosen per token in the same way.

    What an untrained SAE or transcoder is to the dense model's coders: Gaussian directions, centred
    on the mean input at the counted tokens of `rows_RS`.

    Args:
        null: their name in `clearnets.families.DIRECTIONS`.
        seed: the training seed whose pair is read; it names the directions, too.
        rows_RS: rows of tokens.
        counted_RS: which of their positions count.
        opened: the sparse model.
    """
    from clearnets.models import hookpoints

    model, device = opened.model, opened.device
    size, selection = model.config, DIRECTIONS[null].selection
    assert selection == "groupmax" or selection == "topk", "sparse models choose so"
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
        # A product of two matrices: that of a matrix and a vector depends on the processor.
        bias_L = -(weight_LD @ mean_D[:, None])[:, 0]
        encoders[point] = Encoder(
            weight_LD, bias_L, torch.zeros_like(mean_D), size.k, selection, transcode=True
        )
    reader = CoderReader(model, encoders)
    reader.source = opened.source
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
