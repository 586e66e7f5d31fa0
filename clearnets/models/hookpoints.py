"""The modules of a model that are read: one per layer, plain tensor in and out.

Which module that is stands in the model's config (`hookpoints`, `*` for the layer's number,
relative to the base model); without an entry it is the feedforward. So do the numbers of the
layers that are read (`read_layers`); without an entry all are. Lists by layer are of these.

Shapes: B rows, S positions, D width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clearnets import UserError
from clearnets.models.pretrained import Kind, kind_of


def kind(model: Any) -> Kind:
    """Return the names of the parts of this kind of model."""
    return kind_of(model.config.model_type)


def pattern(model: Any) -> str:
    """Return the model's hookpoints, `*` for the layer's number."""
    return getattr(model.config, "hookpoints", None) or kind(model).feedforwards


def numbers(model: Any) -> list[int]:
    """Return the numbers of the layers that are read."""
    chosen = getattr(model.config, "read_layers", None)
    return list(range(len(layers(model))) if chosen is None else chosen)


def names(model: Any) -> list[str]:
    """Return the hookpoint of each layer that is read, relative to the base model."""
    return [pattern(model).replace("*", str(number)) for number in numbers(model)]


def layers(model: Any) -> Sequence[Any]:
    """Return the transformer's layers, all of them."""
    return getattr(model.base_model, kind(model).layers)


def modules(model: Any) -> list[Any]:
    """Return the module at each hookpoint."""
    return [model.base_model.get_submodule(name) for name in names(model)]


def projections(model: Any) -> tuple[list[str], int]:
    """Return by name the last linear map of the feedforward of each layer that is read, and how
    many neurons that reads."""
    where = kind(model)
    paths = [f"{where.layers}.{i}.{where.projection}" for i in numbers(model)]
    last: Any = model.base_model.get_submodule(paths[0])
    # transformers' Conv1D, which is GPT-2's linear map, names its widths otherwise.
    return paths, getattr(last, "in_features", None) or last.nx


@torch.no_grad()
def check(model: Any, tokens_BS: Tensor) -> None:
    """Refuse hookpoints that the stages cannot work with, by a run over a few tokens.

    Raises:
        UserError: there is no such module, it is not called with and gives no plain tensor, or
            its output is not what its layer adds last to the residual stream.
    """
    glob, fitting = pattern(model), kind(model).feedforwards
    prefix = f"{kind(model).layers}.*."
    if not _exists(model, glob.replace("*", "0")):
        there = [prefix + name for name, _ in layers(model)[0].named_modules() if name]
        raise UserError(f"hookpoints {glob} match no module; there are: {', '.join(there)}")
    plain = _Probe(model, tokens_BS)
    if not (isinstance(plain.read, Tensor) and isinstance(plain.written, Tensor)):
        raise UserError(f"hookpoints {glob} do not map a tensor to a tensor; choose {fitting}")
    stream = plain.stream
    if plain.written.shape == stream.shape:
        # Of the size of the stream itself, so that rounding is small beside it.
        change_BSD = stream.std() * torch.randn(
            stream.shape, generator=torch.Generator().manual_seed(0)
        ).to(stream)
        changed = _Probe(model, tokens_BS, change_BSD)
        if torch.allclose(changed.stream - stream, change_BSD, atol=1e-3 * float(stream.std())):
            return
    raise UserError(
        f"what hookpoints {glob} write is not the last that a layer adds to its residual stream, "
        f"so that no reconstruction can be put in its place; choose {fitting}"
    )


def _exists(model: Any, name: str) -> bool:
    try:
        model.base_model.get_submodule(name)
    except AttributeError:
        return False
    return True


class _Probe:
    """What the first hookpoint reads and writes, and the stream behind its layer."""

    def __init__(self, model: Any, tokens_BS: Tensor, change_BSD: Tensor | None = None) -> None:
        self.read: Any = None
        self.written: Any = None
        self.stream: Any = None

        def on_module(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            self.read, self.written = args[0] if args else None, output
            return None if change_BSD is None else output + change_BSD

        def on_layer(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self.stream = output[0] if kind(model).returns_tuple else output

        handles = [
            modules(model)[0].register_forward_hook(on_module),
            layers(model)[numbers(model)[0]].register_forward_hook(on_layer),
        ]
        try:
            model.base_model(tokens_BS, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
