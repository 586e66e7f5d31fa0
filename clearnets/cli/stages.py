"""The stages of the pipeline: thin commands, each of a module in `clearnets.stages`."""

from __future__ import annotations

from typing import Annotated

import typer

from clearnets.cli.options import (
    CoderAux,
    Device,
    DryRun,
    Experiment,
    LatentAux,
    Layers,
    Mlp,
    Set,
    Threads,
)
from clearnets.cli.place import Place


def data(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Write the corpus as tokens: tokenizer, packed splits, concept labels.

    Example: [bold]clearnets data[/bold]
    """
    place = Place.of(experiment, assign)
    place.run("data", dry_run=dry_run, device=device, threads=threads)


def train(
    mlp: Mlp,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a transformer with dense or sparse feedforward layers.

    Example: [bold]clearnets train --mlp sparse[/bold]
    """
    from clearnets.config import parse_mlp

    place = Place.of(experiment, assign)
    mlp = parse_mlp(mlp, place.config)
    place.run("train", dry_run=dry_run, device=device, threads=threads, mlp=mlp)


def match(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Pair the sparse and the dense model at equal validation loss.

    Example: [bold]clearnets match[/bold]
    """
    Place.of(experiment, assign).run("match", dry_run=dry_run)


def sparsify(
    aux: CoderAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train SAEs or transcoders on the pair's dense model, one per layer.

    Example: [bold]clearnets sparsify --aux transcoder[/bold]
    """
    from clearnets.config import CODER_FAMILIES

    place = Place.of(experiment, assign)
    family = place.family(aux, CODER_FAMILIES)
    place.run("sparsify", dry_run=dry_run, device=device, threads=threads, family=family)


def evaluate(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Measure the pair and its coders on held-out text: losses, ablations, fvu, FLOPs.

    Example: [bold]clearnets evaluate[/bold]
    """
    place = Place.of(experiment, assign)
    place.run("evaluate", dry_run=dry_run, device=device, threads=threads)


def cache(
    aux: LatentAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Cache the activations of a family's latents in delphi's layout.

    Example: [bold]clearnets cache --aux native[/bold]
    """
    place = Place.of(experiment, assign)
    family = place.family(aux)
    place.run("cache", dry_run=dry_run, device=device, threads=threads, family=family)


def _on_layers(
    stage: str,
    aux: str,
    layers: str | None,
    experiment: str | None,
    assign: list[str] | None,
    dry_run: bool,
) -> None:
    from clearnets.config import parse_layers

    place = Place.of(experiment, assign)
    family = place.family(aux)
    chosen = parse_layers(layers, place.config)
    place.run(stage, dry_run=dry_run, family=family, layers=chosen)


def explain(
    aux: LatentAux,
    layers: Layers = None,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Explain a sample of a family's latents: when is each active?

    Example: [bold]clearnets explain --aux transcoder --layers 0-7[/bold]
    """
    _on_layers("explain", aux, layers, experiment, assign, dry_run)


def score(
    aux: LatentAux,
    layers: Layers = None,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Score the explanations of a family's latents on held-out text.

    Example: [bold]clearnets score --aux transcoder --layers 0-7[/bold]
    """
    _on_layers("score", aux, layers, experiment, assign, dry_run)


def embed(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Embed windows of text, where silent windows are to be similar in meaning to active ones.

    Example: [bold]clearnets embed[/bold]
    """
    place = Place.of(experiment, assign)
    place.run("embed", dry_run=dry_run, device=device, threads=threads)


def similarity(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Score explanations by meaning: are they similar to the windows in which a latent is active?

    Example: [bold]clearnets similarity[/bold]
    """
    place = Place.of(experiment, assign)
    place.run("similarity", dry_run=dry_run, device=device, threads=threads)


def overlap(
    aux: LatentAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Measure what it is worth to score explanations on windows that their explainer has seen.

    Example: [bold]clearnets overlap --aux native[/bold]
    """
    place = Place.of(experiment, assign)
    place.run("overlap", dry_run=dry_run, family=place.family(aux))


def concepts(
    aux: LatentAux,
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Measure how well single latents recover the corpus's known concepts.

    Example: [bold]clearnets concepts --aux native[/bold]
    """
    place = Place.of(experiment, assign)
    place.run("concepts", dry_run=dry_run, family=place.family(aux))


def generalize(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="grokking, digits, grid, mnist, cifar10 or checkpoints."
        ),
    ],
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Observe training runs through their checkpoints: when does a network generalize?

    Example: [bold]clearnets generalize grokking[/bold]
    """
    from clearnets.config import parse_task

    place = Place.of(experiment, assign)
    task = parse_task(task, place.config)
    place.run("generalize", dry_run=dry_run, device=device, threads=threads, task=task)


def qualify(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
    threads: Threads = 0,
) -> None:
    """Test the language model that judges: can it tell known concepts apart?

    Example: [bold]clearnets qualify[/bold]
    """
    Place.of(experiment, assign).run("qualify", dry_run=dry_run, threads=threads)


def collate(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Gather all results into small tidy tables in paper/results/.

    Example: [bold]clearnets collate[/bold]
    """
    Place.of(experiment, assign).run("collate", dry_run=dry_run)
