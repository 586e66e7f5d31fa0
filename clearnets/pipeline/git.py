"""Git, asked by its command."""

from __future__ import annotations

import subprocess
from pathlib import Path

from clearnets import UserError


def git(*words: str, at: Path | None = None) -> str:
    """What a git command prints, without the space around it.

    Args:
        at: the checkout; the working directory where None.

    Raises:
        UserError: it failed.
    """
    command = ["git", *(("-C", str(at)) if at else ()), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`git {' '.join(words)}` failed: {reason}")
    return done.stdout.strip()
