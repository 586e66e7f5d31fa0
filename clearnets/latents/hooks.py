"""Capture the inputs and outputs of a model's modules with forward hooks.

Module names are relative to the base model (`layers.3.mlp`), as sparsify writes hookpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    seen: dict[str, Any] = {}

    def record(name: str) -> Callable[[Any, Any], None]:
        def keep(read: Any, output: Any) -> None:
            seen[name] = (read, output) if inputs else output

        return keep

    with watch(model, {name: record(name) for name in modules}):
        yield seen


@contextmanager
def watch(model: nn.Module, modules: Mapping[str, Callable[[Any, Any], None]]) -> Iterator[None]:
    """Call functions with what named submodules take and give, while the context is open.

    Args:
        model: a transformers model, or any module.
        modules: by name relative to the base model, what is called with the first positional
            input (None without one) and the output. The hooks are removed at the end whatever
            happens.

    Raises:
        UserError: the model has no such submodule.
    """
    base = getattr(model, "base_model", model)

    def hook(function: Callable[[Any, Any], None]) -> Any:
        return lambda _module, args, output: function(args[0] if args else None, output)

    handles = []
    try:
        for name, function in modules.items():
            try:
                module = base.get_submodule(name)
            except AttributeError:
                kind = type(base).__name__
                raise UserError(f"{kind} has no module {name!r}; check the hookpoint") from None
            handles.append(module.register_forward_hook(hook(function)))
        yield
    finally:
        for handle in handles:
            handle.remove()
