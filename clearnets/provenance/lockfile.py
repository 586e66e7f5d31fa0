"""Read `dvc.lock`: trace a result to its sources, and compare files with recorded hashes.

DVC records in `dvc.lock`, for every stage of the last complete run, its command, its parameters and
the MD5 of all that it read and wrote. Files are hashed here, without DVC, whose own state trusts
time stamps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from clearnets import UserError
from clearnets.config import read_yaml, value_at
from clearnets.pipeline.commands import git
from clearnets.pipeline.paths import CODE, LOCK

# How the paths of source begin; all other paths are artifacts.
_SOURCE = (
    *("clearnets", "paper/scripts", "paper/clearnets.mplstyle"),
    *("paper/clearnets.typ", "paper/sections", "paper/typst", "paper/references.bib"),
    "paper/claims.yaml",
)

UNRECORDED, CHANGED, STALE, MISSING = "unrecorded", "changed", "stale", "missing"


@dataclass(frozen=True)
class Entry:
    """A file or folder that a stage read or wrote, as recorded.

    Attributes:
        path: relative to the project.
        md5: of a file; of a folder, of DVC's list of its files, followed by `.dir`.
        size: bytes.
        files: in a folder; 1 for a file.
    """

    path: str
    md5: str
    size: int
    files: int = 1

    @property
    def is_folder(self) -> bool:
        """Return whether it was a folder."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Step:
    """One stage of the recorded run.

    Attributes:
        name: of the stage and its item, e.g. `cache@sae`.
        command: as DVC ran it.
        reads, writes: files and folders.
        params: values by key of params.yaml.
        fingerprints: of its code, by key of `artifacts/code.json`.
    """

    name: str
    command: str
    reads: tuple[Entry, ...]
    writes: tuple[Entry, ...]
    params: Mapping[str, Any]
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def artifacts(self) -> tuple[Entry, ...]:
        """Return what it read that is no source: outputs of other stages."""
        return tuple(entry for entry in self.reads if not entry.path.startswith(_SOURCE))


@dataclass(frozen=True)
class Fault:
    """Something of a stage that is not as recorded.

    Attributes:
        step: the stage.
        path: a file, a folder or a parameter.
        state: UNRECORDED: the stage has not run. CHANGED: its own output differs from what it
            wrote. STALE: what it read differs from what it would read now. MISSING: not there.
    """

    step: str
    path: str
    state: str


def read_lock(path: Path = LOCK) -> list[Step]:
    """Return the steps of a recorded run, each after those that it reads from.

    Raises:
        UserError: there is no record.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro`, or restore it with git")
    steps = [_step(name, stage) for name, stage in read_yaml(path)["stages"].items()]
    return _in_order(steps)


def _step(name: str, stage: Mapping[str, Any]) -> Step:
    return Step(
        name=name,
        command=stage["cmd"],
        reads=tuple(map(_entry, stage.get("deps", ()))),
        writes=tuple(map(_entry, stage.get("outs", ()))),
        params=stage.get("params", {}).get("params.yaml", {}),
        fingerprints=stage.get("params", {}).get(CODE.as_posix(), {}),
    )


def _entry(entry: Mapping[str, Any]) -> Entry:
    return Entry(entry["path"], entry["md5"], entry["size"], entry.get("nfiles", 1))


def _in_order(steps: Sequence[Step]) -> list[Step]:
    by_name = {step.name: step for step in steps}
    graph = {step.name: [maker.name for maker in makers(step, steps)] for step in steps}
    return [by_name[name] for name in TopologicalSorter(graph).static_order()]


def makers(step: Step, steps: Sequence[Step]) -> list[Step]:
    """Return those of `steps` that wrote something which `step` read."""
    return [
        other
        for other in steps
        if other is not step
        and any(overlap(made.path, read.path) for made in other.writes for read in step.artifacts)
    ]


def overlap(one: str, other: str) -> bool:
    """Return whether one path is the other or lies in it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def trace(steps: Sequence[Step], path: str, here: Callable[[str], Path] = Path) -> list[Step]:
    """Return the stages that a result comes from, the one that wrote it first, the corpus last.

    Args:
        steps: of `read_lock`.
        path: a file or folder that a stage wrote, or that lies in such a folder.
        here: maps a path of the record to its place in this checkout.

    Raises:
        UserError: no stage wrote it.
    """
    wanted = PurePosixPath(path)
    last = [
        step
        for step in steps
        if any(wanted.is_relative_to(PurePosixPath(made.path)) for made in step.writes)
    ]
    # A folder that is here tells which files there are.
    known = any(here(made.path).is_dir() for step in last for made in step.writes)
    if not last or (known and not here(path).exists()):
        made = sorted({entry.path for step in steps for entry in step.writes})
        near = [name for name in made if PurePosixPath(name).is_relative_to(wanted)]
        some = ", ".join(str(here(name)) for name in near[:4])
        hint = f"name one of {some}" if near else "name a file that a stage wrote"
        raise UserError(f"no stage wrote {here(path)}; {hint}")
    return behind(last, steps)


def behind(last: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """Return some stages, and before them all that they come from, the corpus last."""
    chain = list(last)
    for step in reversed(steps):
        if step not in chain and any(makers(later, [step]) for later in chain):
            chain.append(step)
    return chain


def md5_of_file(path: Path) -> str:
    """Return the MD5 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def listing(folder: Path) -> dict[str, str]:
    """Return the MD5 of each file that DVC sees in a folder, by its path in it."""
    return {
        file.relative_to(folder).as_posix(): md5_of_file(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def md5_of_listing(files: Mapping[str, str]) -> str:
    """Return DVC's hash of a folder with these files."""
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def md5(path: Path) -> str | None:
    """Return DVC's hash of a file or folder; None where there is none."""
    if path.is_dir():
        return md5_of_listing(listing(path))
    return md5_of_file(path) if path.exists() else None


def faults(
    steps: Sequence[Step], params: Mapping[str, Any], expected: Iterable[str]
) -> Iterator[Fault]:
    """Hash all files of the record and yield what is not as recorded.

    Args:
        steps: of `read_lock`.
        params: the values of params.yaml.
        expected: names of the stages that a run has.
    """
    recorded = {step.name for step in steps}
    yield from (Fault(name, name, UNRECORDED) for name in expected if name not in recorded)
    paths = {entry.path for step in steps for entry in (*step.reads, *step.writes)}
    found = {path: md5(Path(path)) for path in sorted(paths)}
    missing = [made.path for step in steps for made in step.writes if found[made.path] is None]
    for step in steps:
        for entry in step.writes:
            if found[entry.path] != entry.md5:
                state = MISSING if found[entry.path] is None else CHANGED
                yield Fault(step.name, entry.path, state)
        for entry in step.reads:
            # A missing output is a fault of the stage that wrote it.
            lacks = any(overlap(entry.path, path) for path in missing)
            if found[entry.path] != entry.md5 and not lacks:
                yield Fault(step.name, entry.path, STALE)
        for key, value in step.params.items():
            if value_at(params, key) != value:
                yield Fault(step.name, f"params.yaml: {key}", STALE)


def code_faults(steps: Sequence[Step], code: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the stages whose code is not what they were run with.

    Args:
        steps: of `read_lock`.
        code: the fingerprints of the code that is there.
    """
    for step in steps:
        for key, recorded in step.fingerprints.items():
            if value_at(code, key) != recorded:
                yield Fault(step.name, f"code: {key}", STALE)


def format_chain(chain: Sequence[Step], path: str, origin: str) -> Iterator[str]:
    """Yield the chain of `trace` as lines of text, without metrics and empty folders.

    Args:
        chain: the stages, the one that wrote `path` first.
        path: what was traced.
        origin: where the record is from, in words.
    """
    yield f"{path}, {origin}"
    yield ""
    rows = [("stage", "wrote", "md5", "size", "from")]
    for step in chain:
        read = (entry.path.removeprefix("artifacts/") for entry in step.artifacts)
        sources = ", ".join(dict.fromkeys(read))
        made = [
            entry
            for entry in step.writes
            if entry.size and not entry.path.startswith("artifacts/metrics/")
        ]
        for number, entry in enumerate(made or step.writes[:1]):
            cells = (entry.path, entry.md5[:12], _bytes(entry.size))
            rows.append(("", *cells, "") if number else (step.name, *cells, sources))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, *wrote, size, sources in rows:
        cells = [cell.ljust(width) for cell, width in zip((name, *wrote), widths)]
        yield "  ".join([*cells, size.rjust(widths[3]), sources]).rstrip()
    yield ""
    yield "parameters"
    params = {key: value for step in chain for key, value in step.params.items()}
    for key, value in sorted(params.items()):
        within = any(key.startswith(f"{other}.") for other in params)
        if value is not None and not within:
            yield f"  {key}: {json.dumps(value, ensure_ascii=False)}"
    yield ""
    code = {key: value for step in chain for key, value in step.fingerprints.items()}
    if code:
        yield "code"
        yield from (f"  {key}: {value}" for key, value in sorted(code.items()))
    else:  # A run of before there were fingerprints.
        files = {entry for step in chain for entry in step.reads} - {
            entry for step in chain for entry in step.artifacts
        }
        yield f"code: {len(files)} files, each with its hash in the record"


def commit_of(path: Path) -> str | None:
    """Return the commit that last changed a file, and whether the file is modified since.

    None where git does not know the file.
    """
    try:
        commit = git("log", "-1", "--format=%h of %cs", "--", str(path))
        modified = git("status", "--porcelain", "--", str(path))
    except UserError:
        return None
    if not commit:
        return None
    return f"{commit} ({path} is modified since)" if modified else commit


def _bytes(size: float) -> str:
    unit = "B"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
