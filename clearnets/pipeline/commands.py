"""Run git and DVC as commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clearnets import UserError


def git(*words: str, at: Path | None = None) -> str:
    """Return what a git command prints, without the space around it.

    Args:
        at: the checkout; the working directory where None.

    Raises:
        UserError: it failed.
    """
    return _output(["git", *(("-C", str(at)) if at else ()), *words], f"git {' '.join(words)}")


def dvc(*words: str) -> str:
    """Return what a DVC command prints, without the space around it.

    Raises:
        UserError: it failed.
    """
    return _output([sys.executable, "-m", "dvc", *words], f"dvc {' '.join(words)}")


def dvc_cache() -> Path:
    """Return the folder of DVC's cache, absolute.

    Raises:
        UserError: DVC does not say.
    """
    try:
        return Path(dvc("cache", "dir")).resolve()
    except UserError as error:
        raise UserError(f"{error}; correct .dvc/config.local") from None


def run_here(command: str) -> None:
    """Run a command of this package in a process of its own; what it prints is seen.

    Args:
        command: as the user would type it, `clearnets ...`.

    Raises:
        UserError: it failed; it has said why.
    """
    done = subprocess.run([sys.executable, "-m", *command.split()], check=False)
    if done.returncode:
        raise UserError(f"`{command}` failed")


def _output(command: Sequence[str], shown: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"`{shown}` cannot run: there is no {command[0]} on the PATH; install it"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`{shown}` failed: {reason}")
    return done.stdout.strip()
