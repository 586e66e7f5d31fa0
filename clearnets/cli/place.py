"""Choose where a command works: in the checkout, or in the worktree of an experiment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.cli import preview

if TYPE_CHECKING:
    from clearnets.config import Config, Family
    from clearnets.pipeline.artifacts import Unit
    from clearnets.pipeline.runtime import Runtime
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
        items: Sequence[str | None],
        layers: str | None,
        *,
        dry_run: bool,
        device: str = "auto",
    ) -> None:
        """Run a stage for some items in this place, or show what it would do.

        Args:
            items: of what the stage is run over, several if it can do some together; [None] where
                it runs once.
            layers: those to work on, as the user wrote them; None means all.
        """
        from clearnets.config import parse_layers
        from clearnets.pipeline import experiments, processes
        from clearnets.pipeline.runtime import Runtime

        chosen = {"layers": parse_layers(layers, self.config)} if stage.by_layer else {}
        selections = {item: stage.selection(self.config, item) | chosen for item in items}
        runtime = Runtime(device, self.config.threads)
        if device not in ("auto", "cpu"):
            runtime.torch_device()  # Refuses an unknown one, even where there is nothing to do.
        if dry_run:
            folder = experiments.worktree(self.experiment) if self.experiment else Path()
            preview.show(self.config, folder, stage, selections)
            return
        if self.experiment:
            with processes.main_first(runtime.torch_device):
                if processes.is_main():
                    experiments.enter(self.experiment, self.assignments, self.values)
                else:
                    os.chdir(experiments.worktree(self.experiment))
        self._work(stage, selections, chosen, runtime)

    def _work(
        self,
        stage: Stage,
        selections: dict[str | None, dict[str, Any]],
        chosen: dict[str, Any],
        runtime: Runtime,
    ) -> None:
        """Make what is stale, and say what was made and where it lies."""
        from clearnets.cli import outcome
        from clearnets.pipeline import processes, times
        from clearnets.pipeline.progress import PROGRESS

        made: list[Unit] = []
        fresh: list[Unit] = []
        for group in stage.groups(self.config, list(selections)):
            stale = []
            for item in group:
                units = stage.module.units(self.config, **selections[item])
                old = [unit for unit in units if not unit.fresh()]
                made += old
                fresh += [unit for unit in units if unit not in old]
                # Nothing is learnt of the time where all is fresh, or where a part was asked for.
                if old and selections[item] == stage.selection(self.config, item):
                    stale.append(stage.of_item(item))
            with times.timed(*stale, worth=processes.is_main() and bool(stale)):
                call = stage.call(self.config, group) | chosen
                stage.module.run(self.config, runtime=runtime, **call)
        # `clearnets repro` says it of all stages together.
        if processes.is_main() and PROGRESS not in os.environ:
            outcome.show(self.config, stage, made, fresh, self.experiment)


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
