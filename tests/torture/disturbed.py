"""Checkouts of the smoke experiment that faults are let loose on, and what must hold of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
import smoke_checkout
import warm

COMMANDS = {
    "dvc repro": [str(smoke_checkout.BIN / "dvc"), "repro"],
    "clearnets repro": [str(smoke_checkout.BIN / "clearnets"), "repro", "--jobs", "2"],
}
SECONDS = 900
"""What takes longer hangs."""
LOGS = ".clearnets/logs/repro/*.log"


@contextmanager
def commands() -> Iterator[None]:
    """Let stages and `python` start at once: forks of a process with the libraries."""
    with tempfile.TemporaryDirectory() as folder, warm.commands(Path(folder)):
        path = os.pathsep.join((folder, str(smoke_checkout.BIN), os.environ["PATH"]))
        with patch.dict(os.environ, {"PATH": path}):
            yield


def commit() -> str:
    """Return the commit that is tried, with a plus sign if there are changes beside it."""
    words = ("git", "-C", str(smoke_checkout.ROOT))
    head = subprocess.run([*words, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run([*words, "diff", "--quiet", "HEAD"], check=False).returncode
    return head.stdout.strip() + "+" * changed


def template(folder: Path) -> Path:
    """A checkout in which nothing has run."""
    folder.mkdir()
    smoke_checkout.clone(folder)
    smoke_checkout.make_smoke(folder)
    return folder


def copy(source: Path, folder: Path) -> Path:
    """A checkout as `source` is."""
    shutil.copytree(source, folder, symlinks=True)
    return folder


def start(words: list[str], at: Path, log: Path, **more: str) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; all that it says is appended to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            words,
            cwd=at,
            env={**smoke_checkout.with_source(at), **more},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def run(words: list[str], at: Path, log: Path, **more: str) -> int:
    """Run a command and return its exit code."""
    return start(words, at, log, **more).wait(SECONDS)


def hashes(at: Path) -> dict[str, str]:
    """Return the hashes of all outputs, as DVC records them."""
    return smoke_checkout.out_hashes(at / "dvc.lock")


def faults(at: Path, expected: dict[str, str], log: Path) -> list[str]:
    """Return what must not be, once all is made: other bytes, leftovers of writing, tracebacks."""
    found, made = list(tracebacks(at, log)), hashes(at)
    differing = {path for path, md5 in expected.items() if made.get(path) != md5}
    found += [f"{path}: other bytes" for path in sorted(differing)]
    work = at / ".clearnets/work"
    found += [f"{path}: left over" for path in work.rglob("*") if path.is_file()]
    parts = [*(at / "artifacts").rglob("*.part"), *(at / "paper").rglob("*.part")]
    return found + [f"{path}: half-written" for path in parts]


def tracebacks(at: Path, log: Path) -> list[str]:
    """Return the last line of each traceback in what commands and their stages have said."""
    texts = [(path, path.read_text(errors="replace")) for path in [log, *at.glob(LOGS)]]
    return [
        f"{path.name}: {error}"
        for path, text in texts
        for error in re.findall(r"^Traceback \(most.*\n(?:[ \t].*\n|\n)*(.*)", text, re.M)
    ]
