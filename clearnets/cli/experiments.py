"""Commands for whole experiments: print the cost of one, or run it."""

from __future__ import annotations

from typing import Annotated

import typer

from clearnets.cli.options import DryRun, Experiment, Jobs, Scheduler, Set
from clearnets.cli.repro import check


def compute(
    experiment: Experiment = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Try a parameter; nothing is written."),
    ] = None,
) -> None:
    """Print what an experiment costs: parameters, FLOPs, and the coders' fair budget.

    Example: [bold]clearnets compute --set model.hidden_size=256[/bold]
    """
    from clearnets import config
    from clearnets.models import budget
    from clearnets.pipeline import experiments

    values = experiments.resolve(experiment, assign or [])
    parsed = config.parse(values, experiment or str(config.PARAMS))
    if experiment:
        # `resolve` names local sources as the worktree will see them.
        parsed = experiments.name_sources_from_here(parsed, experiments.worktree(experiment))
    for line in budget.report(parsed):
        print(line)


def exp(
    name: Annotated[str | None, typer.Argument(help="Its name; none lists them.")] = None,
    assign: Set = None,
    dry_run: DryRun = False,
    jobs: Jobs = 0,
    scheduler: Scheduler = None,
    new: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write experiments/NAME.yaml for the model of --base."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A pretrained model, or its id on the hub.")
    ] = None,
) -> None:
    """Run a whole experiment of experiments/ in a place of its own; or list them, or write one.

    Example: [bold]clearnets exp smoke[/bold]
    """
    from clearnets.pipeline import experiments

    if new is not None or base is not None:
        if name is not None or new is None or base is None:
            raise typer.BadParameter("a new experiment takes --new NAME and --base FOLDER")
        from clearnets.models import base_overlay

        print(
            f"{base_overlay.write(new, base)}: edit and commit it, then run `clearnets exp {new}`"
        )
    elif name is None:
        experiments.show_all()
    else:
        check(jobs, scheduler)
        options = f" --scheduler {scheduler}" if scheduler else f" --jobs {jobs}" if jobs else ""
        experiments.run(name, assign or [], dry_run=dry_run, options=options)
