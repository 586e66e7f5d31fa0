"""Kill the pipeline at random moments until it has been killed often enough, and let it end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import disturbed

POLL_SECONDS = 0.02
LOCK = re.compile(r"/\.clearnets/work/([^/]+)/[^/]+/lock$")
VICTIMS = {"stage": 6, "all": 3, "run": 2, "helper": 1}
"""What is killed, and how often: a process of a stage, all processes, the one that runs the stages,
or one that works for it."""


@dataclass
class Kills:
    """What was killed, and what was wrong at the end."""

    victims: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    laps: int = 0
    faults: list[str] = field(default_factory=list)

    def total(self) -> int:
        return self.victims.total()


def disturb(
    name: str, empty: Path, expected: dict[str, str], kills: int, draw: Random, deadline: float,
    targets: list[str],
) -> Kills:  # fmt: skip
    """Make all of `expected` from nothing, as often as there are kills left.

    Args:
        name: the command, of `disturbed.COMMANDS`.
        empty: a checkout in which nothing has run.
        expected: hashes of an undisturbed run's outputs.
        deadline: on the monotonic clock, from which nothing more is killed.
        targets: stages to make; all where there are none.
    """
    found = Kills()
    words = [*disturbed.COMMANDS[name], *targets]
    while not found.laps or (found.total() < kills and time.monotonic() < deadline):
        place = disturbed.copy(empty, empty.with_name(f"{name.replace(' ', '-')}-{found.laps}"))
        log = place.with_suffix(".log")
        code = -1
        while code != 0 and found.total() < kills and time.monotonic() < deadline:
            code = _killed_run(words, place, log, draw, found, kills)
        # Orphans of the last kill may still hold what they make.
        for _ in range(5):
            code = code and disturbed.run(words, place, log)
        found.faults += [f"exit code {code}: see {log}"] if code else []
        found.faults += disturbed.faults(place, expected, log)
        found.laps += 1
        print(f"{name}: {found.total()} kills, {len(found.faults)} faults", flush=True)
    return found


def _killed_run(
    words: list[str], at: Path, log: Path, draw: Random, found: Kills, kills: int
) -> int:
    """Run a command that is killed as long as it lives; return its exit code."""
    process = disturbed.start(words, at, log)
    found.runs += 1
    begun = time.monotonic()
    while process.poll() is None and found.total() < kills:
        if not _wait_for_moment(process, at, draw):
            break
        _kill(process.pid, at, draw, found)
    return process.wait(max(1.0, begun + disturbed.SECONDS - time.monotonic()))


def _wait_for_moment(process: subprocess.Popen[bytes], at: Path, draw: Random) -> bool:
    """Wait for a random moment: soon after a stage has begun its work, or any. Return whether the
    process still runs."""
    if draw.random() < 0.2:
        return _alive_after(process, draw.expovariate(1 / 2))
    passed = draw.choice([0, 0, 0, 1])
    seen: set[str] = set()
    while len(seen - {""}) <= passed:
        if not _alive_after(process, POLL_SECONDS):
            return False
        seen |= set(processes(at).values())
    return _alive_after(process, draw.expovariate(1 / 0.3))


def _alive_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is None


def _kill(run: int, at: Path, draw: Random, found: Kills) -> None:
    """Kill one of the processes of a folder, or all."""
    alive = processes(at)
    groups = {
        "stage": [pid for pid, stage in alive.items() if stage],
        "run": [run],
        "helper": [pid for pid, stage in alive.items() if not stage and pid != run],
        "all": list(alive),
    }
    names = [name for name, pids in groups.items() if pids]
    (victim,) = draw.choices(names, [VICTIMS[name] for name in names])
    pids = groups[victim] if victim == "all" else [draw.choice(groups[victim])]
    kill(pids)
    found.victims[victim] += 1
    hit = {alive[pid] for pid in pids if alive.get(pid)} or {"between stages"}
    found.stages.update(hit)


def kill(pids: Iterable[int]) -> None:
    """Kill processes; those that have ended are no fault."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(at: Path) -> dict[int, str]:
    """Return the processes of a folder, each with the stage whose unit it makes; empty if none."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if not Path(os.readlink(entry / "cwd")).is_relative_to(at):
                continue
            files = [os.readlink(file) for file in (entry / "fd").iterdir()]
            held = [lock[1] for lock in map(LOCK.search, files) if lock]
            found[int(entry.name)] = min(held, default="")
    return found
