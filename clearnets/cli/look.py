"""Commands that look at results: latents, where a file comes from, what is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearnets.cli.options import LATENTS, Experiment, Layers, Results, Seed
from clearnets.cli.place import Place, move_to_run
from clearnets.families import FAMILIES

if TYPE_CHECKING:
    from clearnets.provenance.lockfile import Fault, Step


def trace(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A result: figure, table, artifact.")],
    experiment: Results = None,
) -> None:
    """Show where a figure or table comes from: stages, hashes, parameters, commit.

    Example: [bold]clearnets trace paper/figures/scores.pdf[/bold]
    """
    from clearnets.provenance import lockfile, runs

    run = runs.of(path, experiment)
    chain = lockfile.trace(run.steps, run.recorded(path), run.here)
    for line in lockfile.format_chain(chain, path, run.origin):
        print(line)
    if absent := run.absent(chain):
        print(absent)


def verify(
    rerun: Annotated[
        int,
        typer.Option(
            "--rerun",
            min=0,
            metavar="N",
            help="Also make so many stages anew from their recorded inputs, in a place of their "
            "own, and compare the bytes; drawn at random from those that take a minute at most.",
        ),
    ] = 0,
    draw: Annotated[
        int | None,
        typer.Option(metavar="N", help="Draw the same stages as before. Default: by chance."),
    ] = None,
    experiment: Experiment = None,
) -> None:
    """Hash all results and tell which files are missing, changed by hand, or stale.

    Example: [bold]clearnets verify --rerun 3[/bold]
    """
    from clearnets import arithmetic, config
    from clearnets.pipeline import dvc, environment, times
    from clearnets.pipeline.stage import names_of
    from clearnets.provenance import lockfile
    from clearnets.provenance import verify as module

    move_to_run(experiment)
    steps, params = lockfile.read_lock(), config.read_yaml(config.PARAMS)
    own = config.load()
    found = list(lockfile.faults(steps, params, names_of(own)))
    found += lockfile.code_faults(steps, dvc.code_fingerprints(own))
    for line in module.format_report(steps, found, list(module.differences(steps, found))):
        print(line)
    made_with = times.made_with(params.get("experiment", ""))
    if made_with:
        print(f"a run here: {environment.format_differences(made_with, environment.here())}")
    print(module.format_place(arithmetic.departures()))
    agree = not rerun or _made_anew(steps, found, params.get("experiment", ""), rerun, draw)
    raise typer.Exit(not agree or any(fault.state != lockfile.MISSING for fault in found))


def _made_anew(
    steps: list[Step], found: list[Fault], experiment: str, count: int, draw: int | None
) -> bool:
    """Make some stages anew and say which have the recorded bytes; return whether all have.

    Raises:
        UserError: no stage can be made anew.
    """
    import secrets

    from clearnets import UserError
    from clearnets.pipeline import times
    from clearnets.provenance import rerun

    recorded = times.recorded(experiment)
    seconds = {**(recorded.seconds if recorded else {}), **times.here()}
    known = rerun.candidates(steps, found, seconds)
    if not known:
        raise UserError("no stage that is as recorded has its inputs here; run `dvc pull`")
    draw = secrets.randbelow(10**6) if draw is None else draw
    chosen = rerun.drawn(known, count, draw)
    print(f"made anew, {len(chosen)} of {len(known)} stages that can be, drawn by --draw {draw}:")
    agree = True
    for step in chosen:
        same, line = rerun.make(step, steps)
        print(line, flush=True)
        agree &= same
    return agree


def show(
    family: Annotated[
        str, typer.Argument(metavar="FAMILY", help=f"Its kind: {', '.join(FAMILIES)}.")
    ],
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
    from clearnets.browser import terminal as module

    place = Place.of(experiment)
    move_to_run(experiment)
    module.run(module.look(place.config, family, layer, latent, seed=seed), examples)


def judge(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Explanations that the page saved: NAME.jsonl.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the scores as a CSV.")
    ] = None,
    experiment: Experiment = None,
) -> None:
    """Score explanations that people wrote in the feature browser, beside the explainer's.

    The judges, and the held-out windows, are those of `score`. It fails where none has a score.

    Example: [bold]clearnets judge explanations-default.jsonl[/bold]
    """
    from clearnets.browser import written as module
    from clearnets.pipeline.stage import table

    config = Place.of(experiment).config
    lines = module.read(file, config)
    target = out.absolute() if out else None
    move_to_run(experiment)
    units = table()["score"].module.units
    found = module.judge(
        config, lines, lambda family: units(config, family=family, layers=config.model.layers)
    )
    if target:
        module.write(found, target)
    raise typer.Exit(not module.show(found, config))


def generate(
    prompt: Annotated[str, typer.Argument(help="How the story begins; it may be empty.")],
    aux: Annotated[str, LATENTS] = "native",
    layers: Layers = None,
    latents: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many latents of each layer to show.")
    ] = 2,
    tokens: Annotated[
        int, typer.Option(min=0, metavar="N", help="End the story after so many tokens.")
    ] = 80,
    temperature: Annotated[
        float, typer.Option(min=0, metavar="T", help="0 takes the likeliest token each time.")
    ] = 0.8,
    draw: Annotated[int, typer.Option(metavar="N", help="Another number gives another story.")] = 0,
    seed: Seed = None,
    experiment: Experiment = None,
) -> None:
    """Let a model write a story from a prompt, and show the latents that fire in it.

    The model is the one that the family of latents reads.

    Example: [bold]clearnets generate "One day a fox" --layers 2,5[/bold]
    """
    from clearnets.browser import story as module
    from clearnets.config import parse_layers

    place = Place.of(experiment)
    chosen = parse_layers(layers, place.config)
    move_to_run(experiment)
    writing = module.Writing(tokens, temperature, draw)
    told = module.tell(
        place.config, prompt, writing, family=aux, layers=chosen, latents=latents, seed=seed
    )
    module.run(told)


def circuit(
    family: Annotated[
        str, typer.Option("--aux", metavar="FAMILY", help="Kind of latent, as `circuits` takes it.")
    ],
    task: Annotated[str, typer.Option("--task", help="A task, such as wear.")],
    count: Annotated[
        int, typer.Option("--latents", min=1, metavar="N", help="How many latents.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Also write a graph for the viewer of circuit-tracer."
        ),
    ] = None,
    seed: Seed = None,
    experiment: Experiment = None,
) -> None:
    """Print the latents that make a model answer questions of one task, by their effects.

    Example: [bold]clearnets circuit --task wear --aux native[/bold]
    """
    from clearnets.browser import circuit as module
    from clearnets.pipeline.artifacts import write_json

    place = Place.of(experiment)
    target = out.absolute() if out else None
    move_to_run(experiment)
    found = module.find(place.config, family, task, count, seed=seed)
    for line in module.lines(found):
        print(line)
    if target:
        write_json(target, module.graph(found))


def status(
    experiment: Experiment = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write what the stages took here, and what they were made with, to "
            "experiments/times.json, for those who have not run them.",
        ),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail unless all are fresh.")] = False,
) -> None:
    """Tell which stages are fresh, stale or missing, and what `dvc repro` would take.

    Example: [bold]clearnets status[/bold]
    """
    from clearnets import UserError, config
    from clearnets.pipeline import dvc, times
    from clearnets.pipeline.stage import names_of
    from clearnets.provenance import lockfile
    from clearnets.provenance import status as module

    if record and experiment:
        raise UserError("--record is of params.yaml, here; leave --experiment out")
    move_to_run(experiment)
    own = config.load()
    if record:
        lacking = times.record(own.experiment, names_of(own))
        print(f"{times.RECORD}; never timed here: {', '.join(lacking) or 'none'}")
        return
    steps = lockfile.read_lock()
    found = module.dvc_faults(steps, dvc.code_fingerprints(own))
    standing = module.standings(steps, found, times.here(), module.in_cache(steps))
    for line in module.format_report(standing, times.recorded(own.experiment)):
        print(line)
    raise typer.Exit(check and any(one.state != module.FRESH for one in standing))
