"""Feed the command line bad inputs: each ends in one line, nothing half-written, no traceback."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import bad_cases
import disturbed
import smoke_checkout
from ruamel.yaml import YAML

from clearnets import cli
from clearnets.config import read_yaml

DRY = ["exp", "smoke", "--dry-run", "--set"]
KEYS, DAMAGED = 80, 3
"""How many keys of the parameters get a value of a wrong type, and how many files of what each
stage reads are damaged."""
READ_ONLY = r"""read_only() {
  unshare -Urm bash -c '
    mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"' - "$@"
}
"""


@dataclass
class Told:
    """What came of the inputs.

    Attributes:
        refused: inputs by kind that ended with a line and an exit code.
        harmless: inputs by kind that changed nothing: a legal value, a file that is not read.
        unnoticed: damaged files, as large as before, of which a stage made something else.
        faults: what must not be.
    """

    refused: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    unnoticed: int = 0
    faults: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        total = {"refused": self.refused.total(), "harmless": self.harmless.total()}
        kinds = {"kinds": dict(self.refused), "harmless kinds": dict(self.harmless)}
        return {**total, **kinds, "unnoticed": self.unnoticed, "faults": self.faults}


def disturb(made: Path, seed: int) -> dict[str, Any]:
    """Return how many inputs of each kind were refused, and what was wrong."""
    place = disturbed.copy(made, made.with_name("inputs"))
    told, draw = Told(), Random(seed)
    with chdir(place):
        for words in _command_lines(bad_cases.OPTIONS):
            _refused(told, "options", words, place)
        for assignment in bad_cases.PARAMETERS.strip().splitlines():
            _refused(told, "parameters", [*DRY, assignment], place)
        for assignment in _misfits(draw):
            _refused(told, "parameters", [*DRY, assignment], place, lenient=True)
        _files(told, place)
        _corpora(told, place)
        _artifacts(told, place, draw)
    return told.record()


def elsewhere(made: Path) -> dict[str, Any]:
    """Return in how many odd environments commands worked or were refused, and what was wrong."""
    told = Told()
    _environments(told, made)
    return told.record()


def _command_lines(text: str) -> Iterator[list[str]]:
    return map(shlex.split, text.strip().splitlines())


def _misfits(draw: Random) -> list[str]:
    """Return assignments of values that are of a wrong type to random keys."""

    def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    keys = [pair for pair in leaves(read_yaml(Path("params.yaml"))) if pair[0] != "experiment"]
    chosen = draw.sample(keys, min(KEYS, len(keys)))
    return [f"{key}={draw.choice(bad_cases.MISFITS[type(value)])}" for key, value in chosen]


def call(words: list[str]) -> tuple[int, str]:
    """Run a command line in this process; return its exit code and all that it says."""
    said = io.StringIO()
    with (
        patch.object(sys, "argv", ["clearnets", *words]),
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
        except BaseException:
            return 1, said.getvalue() + traceback.format_exc()
    raise AssertionError("the command line does not return")


def _wrong(code: int, said: str) -> str:
    """Return what is wrong with how a bad input was refused; empty if nothing is."""
    errors = [line for line in said.splitlines() if line.startswith("clearnets: ")]
    if "Traceback" in said:
        return f"traceback: {said.strip().splitlines()[-1]}"
    return "" if code == 2 and len(errors) == 1 else f"exit code {code}, {errors or said[-200:]}"


def _refused(
    told: Told,
    kind: str,
    words: list[str],
    place: Path,
    *,
    lenient: bool = False,
    note: str = "",
) -> None:
    """Run a command line that is to be refused; one that may be legal is where `lenient`."""
    before = _listing(place)
    code, said = call(words)
    if lenient and code == 0:
        told.harmless[kind] += 1
        return
    wrong = _wrong(code, said)
    if not wrong and _listing(place) != before:
        wrong = f"wrote {sorted(_listing(place) ^ before)[:3]}"
    if wrong:
        told.faults.append(f"{kind}: {shlex.join(words)} {note}: {wrong}")
    told.refused[kind] += 1


def _listing(place: Path) -> set[tuple[str, int, int]]:
    """Return names, sizes and times of all files, but for locks and what Python compiles."""
    found = set()
    for folder, _, names in os.walk(place):
        if "/.git/" not in f"{folder}/" and "__pycache__" not in folder and "/.dvc/" not in folder:
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                found.add((f"{folder}/{name}", status.st_size, status.st_mtime_ns))
    return {one for one in found if not one[0].endswith(".lock")}


def _files(told: Told, place: Path) -> None:
    """Replace params.yaml."""
    params = place / "params.yaml"
    before = params.read_bytes()
    for name, data in bad_cases.FILES.items():
        params.write_bytes(data)
        _refused(told, "parameters", ["match"], place, note=name)
    params.write_bytes(before)


def _corpora(told: Told, place: Path) -> None:
    """Point the parameters at files that hold no text, too little, or something else."""
    params, yaml = place / "params.yaml", YAML()
    before = params.read_bytes()
    shutil.move(place / "artifacts/data", place.with_name("data"))
    for name, data, more in bad_cases.CORPORA:
        if data is not None:
            (place / name).write_bytes(data)
        values = yaml.load(before)
        values["data"]["corpus"] = {"kind": "local", "path": name, **more}
        yaml.dump(values, params)
        _refused(told, "corpora", ["data"], place, note=name)
    params.write_bytes(before)
    shutil.move(place.with_name("data"), place / "artifacts/data")


def _damages(path: Path, draw: Random) -> tuple[str, Callable[[], object]]:
    """Return a way to damage a file, and its name."""
    data = path.read_bytes()
    ways: dict[str, Callable[[], object]] = {
        "missing": lambda: None,
        "empty": path.touch,
        "truncated": lambda: path.write_bytes(data[: len(data) // 2]),
        "longer": lambda: path.write_bytes(data + b"\0"),
        "folder": path.mkdir,
        "dangling": lambda: path.symlink_to("nowhere"),
        "garbage": lambda: path.write_bytes(draw.randbytes(len(data))),
    }
    if path.suffix == ".json":
        for text in ("[]", "{}", "null", '"text"', "3"):
            ways[text] = lambda text=text: path.write_text(text.ljust(len(data)))
    return draw.choice(list(ways.items()))


def _artifacts(told: Told, place: Path, draw: Random) -> None:
    """Damage files that stages read, and run each stage as if it had not been run."""
    stages = YAML(typ="safe").load((place / "dvc.lock").read_text())["stages"]
    for name, stage in stages.items():
        rooms = [place / dep["path"] for dep in stage.get("deps", [])]
        files = sorted(
            path for room in rooms if room.is_relative_to(place / "artifacts")
            for path in (room.rglob("*") if room.is_dir() else [room])
            if path.is_file() and path.name != ".gitignore"
        )  # fmt: skip
        outs = [place / out["path"] for out in stage["outs"]]
        for path in draw.sample(files, min(DAMAGED, len(files))):
            _damaged(told, name, shlex.split(stage["cmd"])[1:], path, outs, draw)


def _damaged(
    told: Told, name: str, words: list[str], path: Path, outs: list[Path], draw: Random
) -> None:
    """Damage a file, run a stage without its outputs, and put all back."""
    aside = Path("../aside")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for number, out in enumerate(outs):
        shutil.move(out, aside / str(number))
    shutil.move(path, aside / "file")
    shutil.copyfile(aside / "file", path)
    kind, damage = _damages(path, draw)
    path.unlink()
    damage()
    code, said = call(words)
    where = f"artifacts: {name}, {path.relative_to(Path.cwd())}, {kind}"
    if code == 0:
        same = all(_same(out, aside / str(number)) for number, out in enumerate(outs))
        told.harmless["artifacts"] += same
        told.unnoticed += not same
        if not same and kind != "garbage":
            told.faults.append(f"{where}: not noticed")
    else:
        told.refused["artifacts"] += 1
        if wrong := _wrong(code, said):
            told.faults.append(f"{where}: {wrong}")
        told.faults += [f"{where}: wrote {out}" for out in outs if out.is_file()]
    for fresh in (path, *outs):
        shutil.rmtree(fresh) if fresh.is_dir() else fresh.unlink(missing_ok=True)
    shutil.move(aside / "file", path)
    for number, out in enumerate(outs):
        shutil.move(aside / str(number), out)
    shutil.rmtree(".clearnets/work", ignore_errors=True)


def _same(first: Path, second: Path) -> bool:
    """Return whether two files, or all files of two folders, have the same bytes."""
    if first.is_file():
        return first.read_bytes() == second.read_bytes()
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    return first.is_dir() and all(
        (second / name).is_file() and _same(first / name, second / name) for name in names
    )


def _environments(told: Told, made: Path) -> None:
    """Run command lines in a copy of the finished checkout, each in an environment of its own."""
    place = made.with_name("elsewhere")
    fresh: set[tuple[str, int, int]] = set()
    for line, codes in bad_cases.ENVIRONMENTS:
        if not fresh or _listing(place) != fresh:
            shutil.rmtree(place, ignore_errors=True)
            fresh = _listing(disturbed.copy(made, place))
        environment = disturbed.environment(place, BIN=str(smoke_checkout.BIN))
        environment["PATH"] = os.pathsep.join((str(smoke_checkout.BIN), environment["PATH"]))
        done = subprocess.run(
            ["bash", "-c", READ_ONLY + line],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = done.stdout + done.stderr
        kind = told.harmless if done.returncode == 0 else told.refused
        kind["environments"] += 1
        if re.search("Traceback|Exception ignored", said) or done.returncode not in codes:
            last = said.strip().splitlines()[-1:]
            told.faults.append(f"environments: {line}: exit code {done.returncode}, {last}")
