"""Let the disk be full at random writes: a file system in memory that has too little room.

The mount is in a namespace of this process's own, so that it needs no rights and ends with it:
`unshare -Urm python full_disk.py`, with the arguments of `fill` as JSON in its input.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import disturbed

KILOBYTES = (4, 6000)
"""The least and the most room that is left."""
ENOUGH = "4g"
TORN = re.compile("dvc.lock.*corrupted|dvc.lock' is invalid")
SAID = re.compile(r"disk is full|No space left|disk full|os error 28|Errno 28", re.I)


def disturb(**asked: Any) -> dict[str, Any]:
    """Return what came of it, or why it could not be tried. Takes the arguments of `fill`."""
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, __file__],
        input=json.dumps(asked, default=str),
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        return {"skipped": "no namespaces here", "faults": []}
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def room(disk: Path, draw: Random) -> int:
    """Leave a random room on a disk; return how many kilobytes."""
    least, most = KILOBYTES
    left = round(least * (most / least) ** draw.random())
    # Whole pages.
    size = shutil.disk_usage(disk).used // 1024 + left + 4
    _mount(f"remount,size={size}k", disk)
    return left


def _mount(options: str, disk: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "torture", str(disk)], check=True)


def fill(
    empty: str,
    expected: dict[str, str],
    tries: int,
    seed: int,
    seconds: float,
    targets: list[str],
) -> dict[str, Any]:
    """Make all of `expected` on a disk with too little room, with more, and so on.

    Args:
        empty: a checkout in which nothing has run.
        expected: hashes of an undisturbed run's outputs.
        tries: runs on a full disk.
        seconds: after which the disk is full no more.
        targets: stages to make; all where there are none.
    """
    disk, draw, deadline = Path(empty).with_name("disk"), Random(seed), time.monotonic() + seconds
    disk.mkdir()
    _mount(f"size={ENOUGH}", disk)
    found: list[str] = []
    said, counts = Counter[str](), Counter[str]()
    log = disk.with_suffix(".log")
    while counts["full"] < tries and time.monotonic() < deadline:
        counts["laps"] += 1
        place = disturbed.copy(Path(empty), disk / "place")
        code = 1
        while code and counts["full"] < tries and time.monotonic() < deadline:
            name = draw.choice(list(disturbed.COMMANDS))
            before = log.stat().st_size if log.exists() else 0
            left = room(disk, draw)
            code = disturbed.run([*disturbed.COMMANDS[name], *targets], place, log)
            _mount(f"remount,size={ENOUGH}", disk)
            text = log.read_text(errors="replace")[before:]
            counts["full"] += bool(code)
            if code and TORN.search(text):
                # `dvc repro` writes its record in place: the cure of docs/troubleshooting.md.
                counts["torn records"] += 1
                (place / "dvc.lock").unlink()
            elif code and not SAID.search(text):
                found.append(f"{name}, {left} kB left: {text.strip().splitlines()[-1:]}")
            said[name] += bool(code)
        if code:  # The last one may be torn, too.
            (place / "dvc.lock").unlink(missing_ok=True)
        for _ in range(3):
            words = [*disturbed.COMMANDS["dvc repro"], *targets]
            code = code and disturbed.run(words, place, log)
        found += disturbed.faults(place, expected, log)
        shutil.rmtree(place)
    return {**counts, "commands": dict(said), "faults": found}


if __name__ == "__main__":
    # Commands of the parent do not see this file system.
    with disturbed.commands():
        print(json.dumps(fill(**json.load(sys.stdin))))
