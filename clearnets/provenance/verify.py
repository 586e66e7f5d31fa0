"""Which files of a run's outputs are not as recorded, and what brings each back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearnets.pipeline.artifacts import MANIFEST, read_json, sha256
from clearnets.pipeline.console import first_of
from clearnets.provenance import dvc_cache as kept
from clearnets.provenance.lockfile import (
    CHANGED,
    MISSING,
    STALE,
    UNRECORDED,
    Entry,
    Fault,
    Step,
    listing,
    overlap,
)

EXTRA = "extra"
GIT, CACHE, DAMAGED, NOWHERE = "git", "cache", "damaged", "nowhere"
# Files of one output that are named before the others are counted.
SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """A file of an output that is not as recorded; the output where its files are not known.

    Attributes:
        step: the stage that wrote the output.
        output: a file or folder.
        path: of the file.
        state: CHANGED; MISSING; EXTRA: the stage did not write it.
        kept: where it can be had from: GIT; CACHE; DAMAGED: DVC's cache holds it, and it is changed
            there, too; NOWHERE.
        md5: as recorded; empty where it is not known.
    """

    step: str
    output: str
    path: str
    state: str
    kept: str
    md5: str = ""


def differences(
    steps: Sequence[Step], found: Sequence[Fault], root: Path = Path()
) -> Iterator[Difference]:
    """The files behind what `trail.faults` found of outputs."""
    outputs = {made.path: made for step in steps for made in step.writes}
    for fault in found:
        if fault.state in (CHANGED, MISSING):
            yield from _of_output(fault, outputs[fault.path], root)


def _of_output(fault: Fault, entry: Entry, root: Path) -> Iterator[Difference]:
    recorded, where = kept.in_cache(entry, root), CACHE
    if recorded is None:
        recorded, where = kept.in_git(entry, root), GIT
    if recorded is None:
        where = NOWHERE
    if fault.state == MISSING:
        if where == CACHE and not kept.whole(entry.md5, kept.cache(root)):
            where = NOWHERE
        yield Difference(fault.step, entry.path, entry.path, MISSING, where)
    elif not entry.is_folder or not (root / entry.path).is_dir():
        yield _one(fault.step, entry.path, entry.path, CHANGED, where, entry.md5, root)
    elif recorded is None:
        states = dict(_by_manifests(root / entry.path)) or {"": CHANGED}
        for name, state in sorted(states.items()):
            path = (Path(entry.path) / name).as_posix()
            yield Difference(fault.step, entry.path, path, state, NOWHERE)
    else:
        for name, state in _by_listing(recorded, listing(root / entry.path)):
            path, md5 = f"{entry.path}/{name}", recorded.get(name, "")
            yield _one(fault.step, entry.path, path, state, where, md5, root)


def _one(
    step: str, output: str, path: str, state: str, where: str, md5: str, root: Path
) -> Difference:
    if where == CACHE and md5:
        if not kept.cached(md5, root).exists():
            where = NOWHERE
        elif kept.damaged(md5, root):
            where = DAMAGED
    return Difference(step, output, path, state, where, md5)


def _by_listing(recorded: Mapping[str, str], there: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted({*recorded, *there}):
        if name not in there:
            yield name, MISSING
        elif name not in recorded:
            yield name, EXTRA
        elif there[name] != recorded[name]:
            yield name, CHANGED


def _by_manifests(folder: Path) -> Iterator[tuple[str, str]]:
    """What the manifests of the units in a folder tell of their files; a unit that is missing as a
    whole, and an output without manifests, are not seen."""
    for manifest in folder.rglob(MANIFEST):
        unit = manifest.parent
        within = unit.relative_to(folder)
        try:
            files = read_json(manifest)["files"]
        except (ValueError, KeyError, TypeError):
            yield (within / MANIFEST).as_posix(), CHANGED
            continue
        there = {path.relative_to(unit).as_posix(): path for path in unit.rglob("*")}
        for name, entry in files.items():
            if name not in there:
                yield (within / name).as_posix(), MISSING
            elif sha256(there[name]) != entry["sha256"]:
                yield (within / name).as_posix(), CHANGED
        for name in there.keys() - files.keys() - {MANIFEST}:
            if there[name].is_file():
                yield (within / name).as_posix(), EXTRA


def told(
    steps: Sequence[Step],
    found: Sequence[Fault],
    differing: Sequence[Difference],
    root: Path = Path(),
) -> Iterator[str]:
    """What is not as recorded, as lines of text, each kind with its cure."""
    new = dict.fromkeys(fault.path for fault in found if fault.state == UNRECORDED)
    if new:
        yield from (f"{UNRECORDED}: {name}" for name in new)
        yield "`dvc repro` runs what has not run"
        yield ""
    if differing:
        yield from _named(differing)
        yield from _cures(differing, root)
        behind = {
            fault.step for fault in found if fault.state == STALE and _within(fault.path, differing)
        }
        if behind:
            yield f"stale until then, as they read these: {first_of(sorted(behind))}"
        yield ""
    stale: dict[str, list[str]] = {}
    for fault in found:
        if fault.state == STALE and not _within(fault.path, differing):
            stale.setdefault(fault.path, []).append(fault.step)
    if stale:
        for path, readers in stale.items():
            # A key of params.yaml is a parameter, params.yaml itself a file that a stage reads.
            what = path.replace("params.yaml: ", "parameter ")
            yield f"{STALE}: {what}, changed since {first_of(readers)} read it"
        yield "`dvc repro` makes anew what was made from them"
        yield ""
    yield _summary(steps, found, differing)


def _within(path: str, differing: Iterable[Difference]) -> bool:
    return any(overlap(path, one.output) for one in differing)


def _named(differing: Sequence[Difference]) -> Iterator[str]:
    """A line for each, of many in one place the first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in differing:
        whole = one.path == one.output
        place = one.path.rpartition("/")[0] if whole else one.output
        groups.setdefault((one.state, place), []).append(one.path)
    for (state, place), paths in sorted(groups.items()):
        yield from (f"{state}: {path}" for path in paths[:SHOWN])
        if len(paths) > SHOWN:
            yield f"{state}: and {len(paths) - SHOWN:,} more in {place}"


def _cures(differing: Sequence[Difference], root: Path) -> Iterator[str]:
    """What brings back what can be had from each place."""

    def of(*places: str) -> list[Difference]:
        return [one for one in differing if one.kept in places]

    def outputs(part: Iterable[Difference]) -> str:
        return " ".join(dict.fromkeys(one.output for one in part))

    if cache := of(CACHE):
        # Forced, it asks nothing about files that it does not know.
        yield f"restore from DVC's cache: `dvc checkout --force {outputs(cache)}`"
    if lost := [one for one in of(GIT) if one.state != EXTRA]:
        yield f"restore from git: `git checkout HEAD -- {outputs(lost)}`"
    if others := [one for one in of(GIT, NOWHERE) if one.state == EXTRA]:
        yield f"remove what is extra: `rm {' '.join(one.path for one in others[:SHOWN])}`" + (
            " and the others" if len(others) > SHOWN else ""
        )
    if broken := of(DAMAGED):
        files = dict.fromkeys(str(kept.cached(one.md5, root)) for one in broken)
        yield f"changed in DVC's cache, too: `rm -f {' '.join(files)}`, then `dvc repro`"
    if [one for one in of(NOWHERE) if one.state != EXTRA]:
        yield (
            "neither in DVC's cache nor as recorded in the last commit: `dvc pull` brings what a "
            "remote has, `dvc repro` makes it"
        )


def _summary(steps: Sequence[Step], found: Sequence[Fault], differing: Sequence[Difference]) -> str:
    by_state = {state: set() for state in (UNRECORDED, CHANGED, MISSING, EXTRA, STALE)}
    for fault in found:
        if fault.state in (UNRECORDED, STALE):
            by_state[fault.state].add(fault.step)
    for one in differing:
        by_state[one.state].add(one.step)
    wrong = {fault.step for fault in found}
    names = {step.name for step in steps} | wrong
    others = ", ".join(f"{len(of)} {state}" for state, of in by_state.items() if of)
    intact = len(names) - len(wrong)
    return f"{intact} of {len(names)} stages as recorded" + (f"; {others}" if others else "")
