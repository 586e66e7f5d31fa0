"""Looking at results: latents, where a file comes from, what is up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearnets.cli.options import FAMILIES, DryRun, Experiment, Results, Seed, Set
from clearnets.cli.place import Place, move_to_run

if TYPE_CHECKING:
    from clearnets.trail import Fault, Step


def browse(
    experiment: Experiment = None,
    assign: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Write a page to look at latents: one HTML file, opened without server or network.

    Example: [bold]clearnets browse[/bold]
    """
    Place.of(experiment, assign).run("browse", dry_run=dry_run)


def trace(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A result: figure, table, artifact.")],
    experiment: Results = None,
) -> None:
    """Show where a figure or table comes from: stages, hashes, parameters, commit.

    Example: [bold]clearnets trace paper/figures/scores.pdf[/bold]
    """
    from clearnets import paths, trail

    lock = paths.results(experiment) / trail.LOCK if experiment else trail.LOCK
    steps = trail.read_lock(lock)
    for line in trail.told(trail.trace(steps, path), path, trail.commit_of(lock)):
        print(line)


def verify() -> None:
    """Hash all results and tell what is missing, stale, or changed by hand.

    Example: [bold]clearnets verify[/bold]
    """
    from clearnets import trail

    steps, found = _faults(trail.md5_of_file)
    for line in trail.judged(steps, found):
        print(line)
    raise typer.Exit(any(fault.state != trail.MISSING for fault in found))


def _faults(of_file: Callable[[Path], str]) -> tuple[list[Step], list[Fault]]:
    """The steps of the recorded run, and what is not as recorded by the hashes `of_file` gives."""
    from clearnets import config, paths, trail

    steps = trail.read_lock()
    params, stages = config.read_yaml(paths.PARAMS), config.read_yaml(trail.PIPELINE)["stages"]
    return steps, list(trail.faults(steps, params, stages, trail.look(steps, of_file=of_file)))


def show(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help=f"Its kind: {FAMILIES}")],
    layer: Annotated[
        str,
        typer.Argument(
            metavar="LAYER", help="Its layer, from 0; `tokens` for token-unigram, which has none."
        ),
    ],
    latent: Annotated[
        int, typer.Argument(metavar="LATENT", help="Its number in the layer, from 0.")
    ],
    examples: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="How many of its strongest windows of text to print."
        ),
    ] = 5,
    seed: Seed = None,
    experiment: Experiment = None,
) -> None:
    """Print one latent: explanation, scores, where it is active, what it promotes.

    Example: [bold]clearnets show transcoder 3 37[/bold]
    """
    from clearnets import show as module

    place = Place.of(experiment)
    move_to_run(experiment)
    module.run(module.look(place.config, family, layer, latent, seed=seed), examples)


def status(experiment: Experiment = None) -> None:
    """Tell which stages are fresh, stale or missing, and what `dvc repro` would take.

    Example: [bold]clearnets status[/bold]
    """
    from clearnets import status as module
    from clearnets import times

    move_to_run(experiment)
    hashes = module.Hashes()
    steps, found = _faults(hashes)
    hashes.keep()
    standing = module.standings(steps, found, times.recorded(), module.in_cache(steps))
    for line in module.told(standing):
        print(line)
