"""Choose where a command works: in the checkout, or in the worktree of an experiment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.cli import preview

if TYPE_CHECKING:
    from clearnets.config import Config, Family
    from clearnets.pipeline.stage import Stage


@dataclass(frozen=True)
class Place:
    """The checkout, or an experiment's worktree with its `values`."""

    config: Config
    values: dict[str, Any]
    experiment: str | None
    assignments: list[str]

    @classmethod
    def of(cls, experiment: str | None, assignments: list[str] | None = None) -> Place:
        """Load and check the parameters; nothing is written yet."""
        from clearnets import UserError, config
        from clearnets.pipeline import experiments

        if not experiment:
            if assignments:
                raise UserError("--set changes results, so it needs a place: add --experiment NAME")
            return cls(config.load(), {}, None, [])
        values = experiments.resolve(experiment, assignments or [])
        return cls(config.parse(values, experiment), values, experiment, assignments or [])

    def family(self, aux: str) -> Family:
        """Return what `--aux` names, if it is a family of the experiment.

        Raises:
            UserError: it is not.
        """
        from clearnets.config import parse_family

        return parse_family(aux, self.config, "--aux")

    def run(
        self,
        stage: Stage,
        item: str | None,
        layers: str | None,
        *,
        dry_run: bool,
        device: str = "auto",
    ) -> None:
        """Run a stage for one item in this place, or show what it would do.

        Args:
            item: one of what the stage is run over; None where it runs once.
            layers: those to work on, as the user wrote them; None means all.
        """
        from clearnets.config import parse_layers
        from clearnets.pipeline import experiments, processes, times
        from clearnets.pipeline.runtime import Runtime

        every = stage.selection(self.config, item)
        selection = dict(every)
        if stage.by_layer:
            selection["layers"] = parse_layers(layers, self.config)
        if dry_run:
            folder = experiments.worktree(self.experiment) if self.experiment else Path()
            preview.show(self.config, folder, stage, item, selection)
            return
        runtime = Runtime(device, self.config.threads)
        if self.experiment:
            with processes.main_first(runtime.torch_device):
                if processes.is_main():
                    experiments.enter(self.experiment, self.assignments, self.values)
                else:
                    os.chdir(experiments.worktree(self.experiment))
        # Nothing is learnt of the time where all is fresh, or where a part was asked for.
        stale = any(not unit.fresh() for unit in stage.module.units(self.config, **selection))
        worth = selection == every and processes.is_main() and stale
        with times.timed(stage.of_item(item), worth=worth):
            stage.module.run(self.config, runtime=runtime, **selection)


def move_to_run(experiment: str | None) -> None:
    """Go where `experiment` has run; stay in the checkout where none is named.

    Raises:
        UserError: there is no such experiment, or it has not run here.
    """
    from clearnets import UserError
    from clearnets.pipeline import experiments

    if not experiment:
        return
    folder = experiments.worktree(experiment)
    if not folder.is_dir():
        experiments.resolve(experiment, [])
        raise UserError(f"{experiment} has not run here; run `clearnets exp {experiment}` first")
    os.chdir(folder)
