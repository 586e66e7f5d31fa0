"""Print what a stage would do, for `--dry-run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.stage import Stage


def show(
    config: Config, folder: Path, stage: Stage, selections: dict[str | None, dict[str, Any]]
) -> None:
    """Print the parameters, and what a stage would read and write in `folder`.

    Args:
        selections: keyword arguments of the stage's `units` by item of what it is run over; None
            is the item where it runs once.
    """
    from ruamel.yaml import YAML

    from clearnets.pipeline import experiments

    YAML().dump(config.model_dump(mode="json"), sys.stdout)
    begun = folder.is_dir()
    if begun:
        os.chdir(folder)
    else:
        # Relative paths are named from a worktree that is not there yet.
        config = experiments.name_sources_from_here(config, folder)
    units = [
        unit for chosen in selections.values() for unit in stage.module.units(config, **chosen)
    ]
    print("\n# reads")
    for item in selections:
        for path in experiments.local_sources(config, stage.name, item):
            print(os.path.normpath(folder / path) if begun else path)
    for path in sorted({path for unit in units for path in unit.inputs.values()}):
        print(f"{folder / path}{'' if begun and path.exists() else '  (missing)'}")
    print("# writes")
    for unit in units:
        print(f"{folder / unit.out}{'  (up to date)' if begun and unit.fresh() else ''}")
    for path in stage.outputs:
        # What is no folder of units: metrics, and files.
        if path.endswith(".json"):
            for item in selections:
                print(folder / path.format(item=item))
    if begun and hasattr(stage.module, "estimate") and all(_there(unit) for unit in units):
        for chosen in selections.values():
            for line in stage.module.estimate(config, **chosen):
                print(f"# {line}")


def _there(unit: Any) -> bool:
    """Return whether the data and the cache that a unit is made from are there."""
    before = ("data", "cache")
    return all(unit.inputs[name].exists() for name in before if name in unit.inputs)
