"""Capture the inputs and outputs of a model's modules with forward hooks.

Module names are relative to the base model (`layers.3.mlp`), as sparsify writes hookpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, overload

from torch import nn

from clearnets import UserError


@overload
@contextmanager
def capture(
    model: nn.Module, modules: Sequence[str], *, inputs: Literal[False] = False
) -> Iterator[dict[str, Any]]: ...
@overload
@contextmanager
def capture(
    model: nn.Module, modules: Sequence[str], *, inputs: Literal[True]
) -> Iterator[dict[str, tuple[Any, Any]]]: ...
@contextmanager
def capture(
    model: nn.Module, modules: Sequence[str], *, inputs: bool = False
) -> Iterator[dict[str, Any]]:
    """Record what named submodules give while the context is open.

    Args:
        model: a transformers model, or any module.
        modules: names relative to the base model (`layers.3.mlp`).
        inputs: record the pair (first positional input, output) instead of the output alone.

    Yields:
        By name, what the module gave when it was last called. The tensors are the model's own,
        not copies. The hooks are removed at the end whatever happens.

    Raises:
        UserError: the model has no such submodule.
    """
    base = getattr(model, "base_model", model)
    seen: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def record(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen[name] = (args[0], output) if inputs else output

        return record

    handles = []
    try:
        for name in modules:
            try:
                module = base.get_submodule(name)
            except AttributeError:
                kind = type(base).__name__
                raise UserError(f"{kind} has no module {name!r}; check the hookpoint") from None
            handles.append(module.register_forward_hook(hook(name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
