"""The commands of the pipeline's stages, made from their declarations."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearnets.cli import options
from clearnets.cli.place import Place
from clearnets.families import FAMILIES
from clearnets.pipeline.stage import (
    CIRCUITS,
    CODERS,
    EARLY,
    EXECUTED,
    LATENTS,
    MODELS,
    RESEEDED,
    STABLE,
    TASKS,
    TUNED,
    Over,
    Stage,
)

if TYPE_CHECKING:
    from clearnets.config import Config

# By what a stage is run over: the option or argument that names an item.
_ITEM: dict[Over, Any] = {
    MODELS: options.Mlp,
    TASKS: Annotated[str, typer.Argument(metavar="TASK", help="A task of generalize.tasks.")],
    TUNED: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="One of tune.models or tune.families.")
    ],
}
_FAMILIES = {
    CIRCUITS: [n for n, spec in FAMILIES.items() if spec.writes and spec.refits != "decoder"],
    CODERS: [name for name, spec in FAMILIES.items() if spec.is_coder],
    EARLY: [name for name, spec in FAMILIES.items() if spec.equal_loss],
    EXECUTED: [name for name, spec in FAMILIES.items() if spec.writes],
    RESEEDED: [
        name
        for name, spec in FAMILIES.items()
        if spec.is_coder and not (spec.joint or spec.untrained_model)
    ],
    STABLE: [name for name, spec in FAMILIES.items() if spec.model],
    LATENTS: list(FAMILIES),
}


def command(stage: Stage) -> Callable[..., None]:
    """Return the function that typer makes the command of a stage from."""
    arguments: dict[str, Any] = {"item": _hint(stage, stage.over)} if stage.over else {}
    chosen: dict[str, Any] = {"layers": (options.Layers, None)} if stage.by_layer else {}
    chosen |= {
        "experiment": (options.Experiment, None),
        "assign": (options.Set, None),
        "dry_run": (options.DryRun, False),
    }
    chosen |= {"device": (options.Device, "auto")} if stage.on_device else {}

    def run(
        *,
        item: str | list[str] | None = None,
        layers: str | None = None,
        experiment: str | None,
        assign: list[str] | None,
        **how: Any,
    ) -> None:
        place = Place.of(experiment, assign)
        given = [item] if isinstance(item, str) else item or []
        checked = [_checked(stage.over, one, place.config) for one in given if stage.over]
        place.run(stage, list(dict.fromkeys(checked)) or [None], layers, **how)

    hints = arguments | {name: hint for name, (hint, _) in chosen.items()}
    defaults = {name: default for name, (_, default) in chosen.items()}
    parameters = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=defaults.get(name, Parameter.empty),
            annotation=hint,
        )
        for name, hint in hints.items()
    ]
    made: Any = run
    made.__name__ = stage.name
    made.__doc__ = f"{stage.does}\n\nExample: [bold]{stage.example}[/bold]"
    made.__signature__ = Signature(parameters)
    made.__annotations__ = hints
    return made


def _hint(stage: Stage, over: Over) -> Any:
    """Return what typer makes the option or argument of a stage's items from."""
    if over not in _FAMILIES:
        return _ITEM[over]
    option = options.aux(_FAMILIES[over], several=bool(stage.together))
    return Annotated[list[str], option] if stage.together else Annotated[str, option]


def _checked(over: Over, item: str, config: Config) -> str:
    """Return `item` if a stage that is run over such items takes it.

    Raises:
        UserError: there is no such item, or the experiment does not have it.
    """
    from clearnets.config import parse_family, parse_mlp, parse_subject, parse_task

    if over is MODELS:
        return parse_mlp(item, config)
    if over is TASKS:
        return parse_task(item, config)
    if over is TUNED:
        return parse_subject(item, config)
    return parse_family(item, config, "--aux", among=_FAMILIES[over])
