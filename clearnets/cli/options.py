"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from clearnets.families import FAMILIES

Experiment = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The experiment of experiments/NAME.yaml, which has a place of its own. "
        "Default: params.yaml, here.",
    ),
]
Results = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the results in paper/results/NAME, from git. Default: those of params.yaml.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a parameter, e.g. train.epochs=2; written to the file of --experiment.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only print the parameters, what is read and what is written."),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N. Changes no parameter.")
]
Jobs = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Stages at a time; 0 runs as many as there are cores."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A Dask scheduler, e.g. tcp://node1:8786, whose workers run the stages. Default: "
        "workers here.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="N", help="The training seed of the models. Default: the first."),
]
Layers = Annotated[
    str | None,
    typer.Option(metavar="LAYERS", help="Layers to work on, e.g. 0-7 or 2,5. Default: all."),
]
Mlp = Annotated[
    str,
    typer.Option(
        "--mlp",
        metavar="MODE",
        help="Feedforward, one of `models`: dense, sparse (GroupMax), sparse_topk, ...",
    ),
]


def aux(families: Sequence[str], *, several: bool = False) -> Any:
    """Return the option `--aux`, which takes one of some families, or several of them."""
    names = f"Which kind of latents{', again for each' if several else ''}: {', '.join(families)}."
    return typer.Option("--aux", metavar="FAMILY", help=names)


LATENTS = aux(list(FAMILIES))
