"""What `--dry-run` prints of a stage."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearnets.config import Config


def show(
    config: Config, folder: Path, module: Any, selection: dict[str, Any], part: str | None
) -> None:
    """Print the parameters, and what a stage would read and write in `folder`.

    Args:
        module: the stage's.
        part: the feedforward, family or task that the stage works on, where it has such parts.
    """
    from ruamel.yaml import YAML

    from clearnets.config import STAGES_WITH_METRICS
    from clearnets.pipeline import experiments, paths

    YAML().dump(config.model_dump(mode="json"), sys.stdout)
    begun = folder.is_dir()
    if begun:
        os.chdir(folder)
    else:
        # Relative paths are named from a worktree that is not there yet.
        config = experiments.seen_from_checkout(config, folder)
    made = module.units(config, **selection)
    reads = sorted({path for unit in made for path in unit.inputs.values()})
    print("\n# reads")
    stage = made[0].stage if made else ""
    for path in experiments.local_sources(config, stage, part):
        print(os.path.normpath(folder / path) if begun else path)
    for path in reads:
        print(f"{folder / path}{'' if begun and path.exists() else '  (missing)'}")
    print("# writes")
    for unit in made:
        print(f"{folder / unit.out}{'  (up to date)' if begun and unit.fresh() else ''}")
    if stage in STAGES_WITH_METRICS:
        print(folder / paths.metrics(f"{stage}-{part}" if part else stage))
    if begun and hasattr(module, "estimate") and all(_there(unit) for unit in made):
        for line in module.estimate(config, **selection):
            print(f"# {line}")


def _there(unit: Any) -> bool:
    """Whether what a unit is made from is there, but for what a stage before it may still make."""
    before = ("data", "cache")
    return all(unit.inputs[name].exists() for name in before if name in unit.inputs)
