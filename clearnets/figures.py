"""The paper's figures, drawn by the scripts in `paper/scripts/` from committed tables alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clearnets import artifacts, paths
from clearnets.artifacts import UserError
from clearnets.config import Config

SCRIPT = Path("paper/scripts/draw.py")


def run(config: Config) -> None:
    """Draw every figure of the experiment into `paper/figures/`, as PDF and SVG.

    The scripts run in a process of their own and import none of the package, as a reader would
    run them.

    Raises:
        UserError: the tables or the scripts are not there.
    """
    tables = paths.results(config.experiment)
    artifacts.check(tables)
    if not SCRIPT.exists():
        raise UserError(f"{SCRIPT} is missing; run in the project's folder")
    # A date in the environment would end up in the files.
    env = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, str(SCRIPT), str(tables), str(paths.FIGURES)]
    subprocess.run(command, check=True, env=env)
