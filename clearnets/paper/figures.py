"""Draw the paper's figures from committed tables, by the scripts in `paper/scripts/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clearnets import UserError
from clearnets.pipeline import artifacts
from clearnets.pipeline.artifacts import Unit
from clearnets.pipeline.folders import replaced

SCRIPT = Path("paper/scripts/draw.py")


def run(tables: Path, folder: Path) -> None:
    """Draw every figure of the tables of one experiment into `folder`, as PDF and SVG.

    The scripts run in a process of their own and import none of the package, as a reader would
    run them. The folder is replaced when all are drawn.

    Raises:
        UserError: the tables or the scripts are not there, or a script failed.
    """
    artifacts.check(tables)
    if not SCRIPT.exists():
        raise UserError(f"{SCRIPT} is missing; run in the project's folder")
    # A date in the environment would end up in the files.
    env = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    settings = artifacts.settings_of(tables)
    with replaced(Unit("figures", folder, settings, {"tables": tables})) as part:
        command = [sys.executable, str(SCRIPT), str(tables), str(part)]
        done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            again = f"{SCRIPT} {tables} FOLDER"
            raise UserError(f"{SCRIPT} failed ({last}); run `python {again}` to see")
