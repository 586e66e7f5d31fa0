"""Say what a stage's command has done: where its results lie, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clearnets import UserError
from clearnets.pipeline.console import first_of
from clearnets.pipeline.stage import Stage, followers

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.artifacts import Unit


def show(
    config: Config, stage: Stage, made: list[Unit], fresh: list[Unit], experiment: str | None
) -> None:
    """Print what was made, what was up to date before, and the next command.

    Args:
        made, fresh: the units of the command.
        experiment: its name, where its worktree is the working directory.
    """
    from clearnets.pipeline import experiments

    place = experiments.worktree(experiment) if experiment else Path()
    # A stage without units writes its files anew each time.
    written = [] if made or fresh else [path for path in stage.outputs if "{" not in path]
    for word, places in (
        ("up to date", [unit.out for unit in fresh]),
        ("made", [unit.out for unit in made] + written),
    ):
        if places:
            print(f"{word}: {first_of([str(place / path) for path in places])}")
    if made:
        there = f" --experiment {experiment}" if experiment else ""
        command = _next(config, stage)
        rest = f"clearnets exp {experiment}" if experiment else "clearnets repro"
        one = f"`clearnets {command}{there}`, or all that is left: " if command else ""
        print(f"next: {one}`{rest}`")


def _next(config: Config, stage: Stage) -> str | None:
    """Return the command, of stages that read from this one, can run and are not up to date, from
    which most others read; None if there is none."""
    ready = list(_ready(config, stage))
    if not ready:
        return None
    other, item = max(ready, key=lambda one: len(list(followers(config, one[0]))))
    return other.command(item)


def _ready(config: Config, stage: Stage) -> Iterator[tuple[Stage, str | None]]:
    for other, item in followers(config, stage):
        try:
            units = other.module.units(config, **other.selection(config, item))
        except UserError:  # It reads something from outside that is not there.
            continue
        ready = all(path.exists() for unit in units for path in unit.inputs.values())
        if ready and not (units and all(unit.fresh() for unit in units)):
            yield other, item
