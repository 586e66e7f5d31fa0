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

    After a whole run it prints which claims hold here and which results are as committed, and keeps
    that in verdict.md.

    Example: [bold]clearnets repro --jobs 4[/bold]
    """
    from clearnets import config
    from clearnets.cli import verdict
    from clearnets.pipeline import processes
    from clearnets.pipeline.scheduler import cluster
    from clearnets.pipeline.scheduler import repro as module
    from clearnets.pipeline.stage import names_of

    check(jobs, scheduler)
    where = cluster.remote(scheduler) if scheduler else cluster.local(jobs or processes.cores())
    if not module.run(config.load, stages or [], lambda: where):
        raise typer.Exit(1)
    own = config.load()
    if not stages and "collate" in names_of(own):
        verdict.show(own.experiment, again=False)


def check(jobs: int, scheduler: str | None) -> None:
    """Refuse options that contradict each other.

    Raises:
        UserError: they do.
    """
    from clearnets import UserError

    if scheduler and jobs:
        raise UserError("--jobs is of workers here; with --scheduler, its workers set the number")
