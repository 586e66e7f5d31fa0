"""The command that brings the pipeline up to date on all cores, or on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from clearnets.cli.options import Jobs, Scheduler


def repro(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STAGE]...",
            help="Stages as DVC names them, e.g. cache@sae, with all that they need. Default: all.",
        ),
    ] = None,
    jobs: Jobs = 0,
    scheduler: Scheduler = None,
) -> None:
    """Run all stale stages, side by side; the results are those of `dvc repro`.

    Example: [bold]clearnets repro --jobs 4[/bold]
    """
    from clearnets import config
    from clearnets.pipeline import processes
    from clearnets.pipeline.scheduler import cluster
    from clearnets.pipeline.scheduler import repro as module

    check(jobs, scheduler)
    where = cluster.remote(scheduler) if scheduler else cluster.local(jobs or processes.cores())
    raise typer.Exit(not module.run(config.load, stages or [], lambda: where))


def check(jobs: int, scheduler: str | None) -> None:
    """Refuse options that contradict each other.

    Raises:
        UserError: they do.
    """
    from clearnets import UserError

    if scheduler and jobs:
        raise UserError("--jobs is of workers here; with --scheduler, its workers set the number")
