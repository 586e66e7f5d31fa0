"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

FAMILIES = (
    "native (the sparse model's own latents), transcoder, sae, skip-transcoder, neurons; or a "
    "control: random-native, random-transcoder, random-sae, step0-transcoder, step0-sae, "
    "token-unigram."
)

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
Threads = Annotated[
    int, typer.Option(min=0, metavar="N", help="CPU threads; 0 takes all there are.")
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
        metavar="MODE",
        help="Feedforward: dense, sparse (GroupMax), sparse_topk or sparse_low_rank.",
    ),
]
CoderAux = Annotated[
    str,
    typer.Option(
        "--aux",
        metavar="FAMILY",
        help="Which coders: sae, transcoder, skip-transcoder; untrained: random-sae, "
        "random-transcoder; or trained on the untrained model: step0-sae, step0-transcoder.",
    ),
]
LatentAux = Annotated[
    str, typer.Option("--aux", metavar="FAMILY", help=f"Which kind of latents: {FAMILIES}")
]
