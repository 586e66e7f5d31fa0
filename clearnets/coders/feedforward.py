"""Read and replace the outputs of a transformer's feedforward layers.

Works on every causal model whose hookpoints (`models.hookpoints`) name a module per layer with a
plain tensor in and out, whose output is the last that the layer adds to the residual stream. A
layer is known by its place among those that are read, which are all of most models.

Shapes: B rows, S positions, N chosen positions of a batch, D width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clearnets.models.hookpoints import kind, layers, modules, numbers

PartialReplacement = Callable[[Tensor, Tensor], Tensor]
"""From a feedforward's input and output at the chosen positions (N, D) to the output to put in
its place there."""


@dataclass
class Reading:
    """What one forward pass went through, layer by layer."""

    inputs: list[Tensor] = field(default_factory=list)
    """Input of each feedforward, (B, S, D)."""
    outputs: list[Tensor] = field(default_factory=list)
    """Output of each feedforward, (B, S, D)."""
    residual: list[Tensor] = field(default_factory=list)
    """The residual stream behind each layer, (B, S, D)."""


def document_positions(tokens_BS: Tensor, bos: int) -> Tensor:
    """Return positions (B, S) that start anew with each document of a packed row.

    transformers keeps attention within documents where it is given such positions.
    """
    here_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
    start_BS = torch.where(tokens_BS == bos, here_S, 0).cummax(1).values
    return here_S - start_BS


@torch.no_grad()
def read(
    model: Any, tokens_BS: Tensor, positions_BS: Tensor | None = None
) -> tuple[Reading, Tensor]:
    """Run the base model; give what its feedforwards read and wrote, and its last hidden state.

    Positions count on from the row's first token where none are given.
    """
    reading = Reading()

    def on_mlp(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        reading.inputs.append(args[0])
        reading.outputs.append(output)

    def on_layer(_: nn.Module, __: tuple[Tensor, ...], output: Any) -> None:
        reading.residual.append(output[0] if isinstance(output, tuple) else output)

    handles = [module.register_forward_hook(on_mlp) for module in modules(model)]
    whole = layers(model)
    handles += [whole[number].register_forward_hook(on_layer) for number in numbers(model)]
    try:
        output = model.base_model(tokens_BS, position_ids=positions_BS, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return reading, output.last_hidden_state


@contextmanager
def replaced(
    model: Any, replacements: Mapping[int, PartialReplacement], where_BS: Tensor
) -> Iterator[None]:
    """Replace the output of these layers' feedforwards where `where_BS` is true, while open."""

    def hook(replacement: PartialReplacement) -> Callable[..., Tensor]:
        def on_mlp(_: nn.Module, args: tuple[Tensor, ...], output_BSD: Tensor) -> Tensor:
            changed_BSD = output_BSD.clone()
            changed_BSD[where_BS] = replacement(args[0][where_BS], output_BSD[where_BS])
            return changed_BSD

        return on_mlp

    at = modules(model)
    handles = [
        at[index].register_forward_hook(hook(replacement))
        for index, replacement in replacements.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Replay(nn.Module):
    """Stands for a layer below: gives a stored residual stream whatever it is given."""

    def __init__(self, residual_BSD: Tensor, *, in_tuple: bool) -> None:
        super().__init__()
        self._output = (residual_BSD,) if in_tuple else residual_BSD

    def forward(self, *_: Any, **__: Any) -> Any:
        return self._output


@torch.no_grad()
def run_above(
    model: Any, layer: int, residual_BSD: Tensor, tokens_BS: Tensor, **inputs: Any
) -> Tensor:
    """Return the last hidden state (B, S, D) for a residual stream `residual_BSD` behind `layer`.

    The model's layers up to that one are skipped. The tokens give positions and attention mask
    only, where `inputs` of the model do not.
    """
    base, whole = model.base_model, layers(model)
    replay = _Replay(residual_BSD, in_tuple=kind(model).returns_tuple)
    # As many layers as before: some kinds look up a layer's mask by its number.
    first = numbers(model)[layer] + 1
    partial = nn.ModuleList([*[replay] * first, *whole[first:]])
    try:
        setattr(base, kind(model).layers, partial)
        return base(tokens_BS, use_cache=False, **inputs).last_hidden_state
    finally:
        setattr(base, kind(model).layers, whole)
