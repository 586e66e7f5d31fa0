"""Make stages of a run anew from their recorded inputs, in a place of its own, and compare bytes.

Hashes tell that files are those of the record. This tells that the record is that of a run: the
same inputs, parameters and code give the same outputs.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import clearnets
from clearnets.config import PARAMS
from clearnets.pipeline import paths
from clearnets.pipeline.console import first_of
from clearnets.pipeline.dvc import PLAN
from clearnets.provenance import lockfile
from clearnets.provenance.lockfile import Entry, Fault, Step, overlap

# A stage that took longer than this is not drawn.
LONGEST = 60.0
SAME = "the same bytes"


def candidates(
    steps: Sequence[Step], found: Iterable[Fault], seconds: Mapping[str, float]
) -> list[Step]:
    """Return the stages that can be made anew: as recorded, with all inputs here, and not long.

    Args:
        steps: of `lockfile.read_lock`.
        found: of `lockfile.faults` and `lockfile.code_faults`.
        seconds: what stages took; one that is not known counts as short.
    """
    faults = list(found)
    wrong = {fault.step for fault in faults}
    absent = [fault.path for fault in faults if fault.state == lockfile.MISSING]
    return [
        step
        for step in steps
        if step.name not in wrong
        and step.name != PLAN
        and seconds.get(step.name, 0.0) <= LONGEST
        and not any(overlap(read.path, path) for read in step.reads for path in absent)
        # What it writes must not get into what it reads, which is linked.
        and not any(overlap(made.path, read.path) for made in step.writes for read in step.reads)
    ]


def drawn(steps: Sequence[Step], count: int, draw: int) -> list[Step]:
    """Return `count` of the stages at random, or all where there are fewer; by `draw` alone."""
    chosen = random.Random(draw).sample(sorted(step.name for step in steps), min(count, len(steps)))
    return [step for step in steps if step.name in chosen]


def make(step: Step, steps: Sequence[Step]) -> tuple[bool, str]:
    """Make a stage anew and compare what it writes with the record.

    What the makers of its inputs read is there, too: a pair names checkpoints of both models, and a
    stage that reads one of them looks whether the other is there.

    Args:
        steps: of `lockfile.read_lock`.

    Returns:
        Whether its outputs have the recorded bytes, and a line that says so or what differs.
    """
    paths.WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.WORK, prefix="rerun-") as temporary:
        place = Path(temporary)
        inputs = {read.path for one in lockfile.behind([step], steps) for read in one.reads}
        _link([*inputs, str(PARAMS)], place)
        start = time.monotonic()
        code, said = _run(step.command, place)
        took = f"{time.monotonic() - start:.0f} s"
        if code:
            return False, f"{step.name}: FAILED: {said}"
        differing = [path for made in step.writes for path in _differing(made, place)]
    if differing:
        return False, f"{step.name}: OTHER BYTES: {first_of(differing)}"
    files = sum(made.files for made in step.writes)
    return True, f"{step.name}: {SAME}, {files:,} file{'s' if files > 1 else ''} in {took}"


def _link(inputs: Iterable[str], place: Path) -> None:
    """Link files and folders of the checkout into another folder, by their paths."""
    for path in sorted(inputs):
        target = place / path
        if Path(path).exists() and not target.exists():  # A folder that holds it may be linked.
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(path).resolve())


def _run(command: str | Sequence[str], place: Path) -> tuple[int, str]:
    """Run a stage's command with this Python and package; return its code and its last line."""
    script = command if isinstance(command, str) else " && ".join(command)
    first = {
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": str(Path(clearnets.__file__).parents[1]),
    }
    environment = {
        name: os.pathsep.join(filter(None, (folder, os.environ.get(name))))
        for name, folder in first.items()
    }
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=place,
        env=os.environ | environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return done.returncode, last.removeprefix("clearnets: ")


def _differing(made: Entry, place: Path) -> list[str]:
    """Return the paths of one output that have other bytes in `place` than recorded."""
    there = place / made.path
    if lockfile.md5(there) == made.md5:
        return []
    if not (there.is_dir() and Path(made.path).is_dir()):
        return [made.path]
    ours, theirs = lockfile.listing(Path(made.path)), lockfile.listing(there)
    names = sorted({*ours, *theirs})
    return [f"{made.path}/{name}" for name in names if ours.get(name) != theirs.get(name)]
