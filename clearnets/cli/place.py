"""Where a command works: the checkout, or the worktree of an experiment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.cli import preview

if TYPE_CHECKING:
    from clearnets.config import Config, Family


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

    def family(self, aux: str, known: tuple[Family, ...] | None = None) -> Family:
        """What `--aux` names, if it is one of `known` (None: any family) and in the experiment."""
        from clearnets.config import FAMILIES, parse_family

        return parse_family(aux, self.config, known or FAMILIES, "--aux")

    def run(
        self,
        stage: str,
        *,
        dry_run: bool,
        device: str = "auto",
        threads: int = 0,
        **selection: Any,
    ) -> None:
        """Run one stage module in this place, or show what it would do."""
        from importlib import import_module

        from clearnets.pipeline import experiments, processes, times
        from clearnets.pipeline.runtime import Runtime

        module = import_module(f"clearnets.stages.{stage}")
        part = selection.get("mlp") or selection.get("family") or selection.get("task")
        if dry_run:
            folder = experiments.place(self.experiment) if self.experiment else Path()
            preview.show(self.config, folder, module, selection, part)
            return
        runtime = Runtime(device, threads)
        if self.experiment:
            with processes.main_first(runtime.torch_device):
                if processes.is_main():
                    experiments.enter(self.experiment, self.assignments, self.values)
                else:
                    os.chdir(experiments.place(self.experiment))
        # Nothing is learnt of the time where all is fresh, or where a part was asked for.
        whole = selection.get("layers") in (None, self.config.model.layers)
        worth = whole and processes.is_main() and _any_stale(module, self.config, selection)
        with times.timed(f"{stage}@{part}" if part else stage, worth=worth):
            module.run(self.config, runtime=runtime, **selection)


def _any_stale(module: Any, config: Config, selection: dict[str, Any]) -> bool:
    return any(not unit.fresh() for unit in module.units(config, **selection))


def move_to_run(experiment: str | None) -> None:
    """Go where `experiment` has run; stay in the checkout where none is named.

    Raises:
        UserError: there is no such experiment, or it has not run here.
    """
    from clearnets import UserError
    from clearnets.pipeline import experiments

    if not experiment:
        return
    folder = experiments.place(experiment)
    if not folder.is_dir():
        experiments.resolve(experiment, [])
        raise UserError(f"{experiment} has not run here; run `clearnets exp {experiment}` first")
    os.chdir(folder)
