"""Read and write artifacts, which are complete or absent, and are trusted by what made them.

Every result is a *unit*: a folder with a `manifest.json` that holds the resolved settings, the
hashes of the inputs, and the size and SHA-256 of each file. A unit is built in a work folder
`.clearnets/work/<stage>/<fingerprint>/`, which survives a kill, and is renamed into place when it
is complete. Whether a unit is fresh is decided by its fingerprint (settings + input hashes),
never by its existence. Nothing here depends on the time or the machine, so that the same unit
built twice has the same bytes.

A stage's units are put in place together, after the last is complete: DVC deletes all outputs of
a stage before it reruns it, so what a killed stage had finished must still be in the work folder.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clearnets import UserError
from clearnets.pipeline import code
from clearnets.pipeline.paths import WORK
from clearnets.pipeline.stage import rerun

MANIFEST = "manifest.json"
# How long to wait for a process that holds a unit: one that was killed takes a moment to end.
_LOCK_SECONDS = 3.0


def fingerprint(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(
    name: str, found: Mapping[str, str], recorded: str | None, *, experiment: str
) -> None:
    """Compare what came from outside with the fingerprint that `clearnets exp` recorded, if any.

    Raises:
        UserError: `name` has changed since.
    """
    if recorded not in (None, fingerprint(found)):
        command = f"clearnets exp {experiment}"
        raise UserError(f"{name} has changed since it was recorded; run `{command}`")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a reader never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline. Key order is the caller's."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole JSONL file or nothing."""
    write_text(path, "".join(f"{to_line(record)}\n" for record in records))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV with floats to nine digits and empty cells for None and missing keys.

    Raises:
        ValueError: a row has a key that is no column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    known = frozenset(columns)
    for row in rows:
        if not known.issuperset(row):
            raise ValueError(f"{path} has no columns {sorted(set(row) - known)}")
        values = map(row.get, columns)
        writer.writerow([f"{v:.9g}" if isinstance(v, float) else v for v in values])
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """Read a JSON file; a broken one is a `UserError` that names the stage to run again."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(missing(path)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); {remake(path)}") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return all records of a JSONL file."""
    if not path.exists():
        raise UserError(missing(path))
    records = []
    # As bytes: text would also be split at line separators that JSON strings may hold.
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            records.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"{path}, line {number}, is not JSON; {remake(path)}") from None
    return records


def to_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of a JSONL file, without its end."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class JsonlWriter:
    """Appends records to a JSONL file and knows those that an earlier, killed run left there.

    A torn last line is cut off on opening, so after a kill `done` holds whole records only and
    the caller continues behind them.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.done: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        self._file = path.open("r+b" if path.exists() else "wb")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; it is on its way to the disk when this returns."""
        self._file.write(to_line(record).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


@dataclass(frozen=True)
class Work:
    """Where an unfinished unit lives: `out` becomes the unit, `state` is dropped at the end."""

    out: Path
    state: Path


@dataclass(frozen=True)
class Unit:
    """One complete-or-absent result folder.

    Attributes:
        stage: name of the pipeline stage, for the work folder and the manifest.
        out: the folder that the unit becomes.
        settings: every parameter that changes its bytes (JSON values).
        inputs: by name, the units (folders) that it is made from.
    """

    stage: str
    out: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path]

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the unit's bytes: stage, settings, input hashes."""
        hashes = {name: manifest_hash(path) for name, path in sorted(self.inputs.items())}
        return {"stage": self.stage, "settings": dict(self.settings), "inputs": hashes}

    def fresh(self) -> bool:
        """Return whether `out` is complete and was made from these settings and inputs."""
        manifest = self.out / MANIFEST
        if not manifest.exists() or any(not (p / MANIFEST).exists() for p in self.inputs.values()):
            return False
        recorded = read_json(manifest)
        return recorded.get("fingerprint") == fingerprint(self.identity()) and not any(
            _damage(self.out, recorded)
        )


@dataclass(frozen=True)
class _Building:
    """A stale unit and its work folder."""

    unit: Unit
    folder: Path
    identity: Mapping[str, Any]

    @classmethod
    def of(cls, unit: Unit) -> _Building:
        identity = unit.identity()
        family = code.family_identity(unit.settings.get("family"))
        computed = {"code": code.fingerprint(unit.stage), "family": family}
        key = fingerprint({**identity, "out": str(unit.out), **computed})
        return cls(unit, WORK / unit.stage / key, identity)

    @property
    def work(self) -> Work:
        return Work(self.folder / "out", self.folder / "state")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the work folder, which is made with its parts.

        Raises:
            UserError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            _hold(lock, self.unit)
            for part in (self.work.out, self.work.state):
                part.mkdir(exist_ok=True)
            yield

    def sealed(self) -> bool:
        """Return whether the work is complete and only has to be put in its place.

        Complete but damaged work is removed, so that the stage does not resume from it.
        """
        manifest = self.work.out / MANIFEST
        if not manifest.exists():
            return False
        if not any(_damage(self.work.out, read_json(manifest))):
            return True
        for part in (self.work.out, self.work.state):
            shutil.rmtree(part)
            part.mkdir()
        return False

    def place(self) -> None:
        """Move the result to the unit's place and remove the work folder."""
        old = self.folder / "old"
        shutil.rmtree(old, ignore_errors=True)
        self.unit.out.parent.mkdir(parents=True, exist_ok=True)
        if self.unit.out.exists():
            self.unit.out.rename(old)
        self.work.out.rename(self.unit.out)
        self.drop()

    def drop(self) -> None:
        """Remove the work folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def drop_if_empty(self) -> None:
        """Remove the work folder of a stage that stopped before it wrote a file."""
        parts = (self.work.out, self.work.state)
        if not any(path.is_file() for part in parts for path in part.rglob("*")):
            self.drop()


def _hold(lock: IO[str], unit: Unit) -> None:
    """Lock a unit's work folder; wait a little for a process that is being killed."""
    start = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() - start > _LOCK_SECONDS:
                message = f"another process is making {unit.out}; wait for it or stop it"
                raise UserError(message) from None
            time.sleep(0.1)


def work_of(unit: Unit) -> Work:
    """Return where a unit is built, for the other processes of the one that builds it."""
    return _Building.of(unit).work


def build_all(units: Iterable[Unit]) -> Iterator[tuple[Unit, Work]]:
    """Yield the stale ones of a stage's `units`, each with its work folder.

    The consumer fills `work.out`. After the last one, all are put in place. An exception, or a
    kill, leaves work folders as they are for the next run, complete units among them, and the old
    units untouched.

    Raises:
        UserError: an input is missing or damaged, or another process builds the same unit.
    """
    for stale in build_groups([unit] for unit in units):
        yield from stale


def build_groups(groups: Iterable[Sequence[Unit]]) -> Iterator[list[tuple[Unit, Work]]]:
    """Yield the stale units of each group, unless there are none: they are filled in one pass.

    Otherwise as `build_all`.
    """
    with ExitStack() as locks:
        built = []
        for units in groups:
            stale = []
            for unit in units:
                for path in unit.inputs.values():
                    check(path)
                building = _Building.of(unit)
                if unit.fresh():
                    building.drop()
                    continue
                locks.enter_context(building.locked())
                built.append(building)
                if not building.sealed():
                    stale.append(building)
            if not stale:
                continue
            try:
                yield [(building.unit, building.work) for building in stale]
            except GeneratorExit:
                for building in stale:
                    building.drop_if_empty()
                raise
            for building in stale:
                seal(building.work.out, building.identity)
        for building in built:
            building.place()


def seal(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write the manifest of a complete folder: its unit's identity, and its files' hashes."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    whole = {**identity, "fingerprint": fingerprint(identity), "files": files}
    write_json(folder / MANIFEST, whole)


def _damage(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for name, entry in manifest.get("files", {}).items():
        path = folder / name
        size = path.stat().st_size if path.exists() else None
        if size is None:
            yield f"{path} is missing"
        elif size != entry["size"]:
            yield f"{path} has {size} bytes instead of {entry['size']}"


def check(folder: Path) -> None:
    """Raise `UserError` unless the unit at `folder` is there with every file at its full size."""
    if not (folder / MANIFEST).exists():
        raise UserError(missing(folder))
    for fault in _damage(folder, read_json(folder / MANIFEST)):
        raise UserError(f"{fault}; {remake(folder)}")


def manifest_hash(folder: Path) -> str:
    """Return a hash of a unit's whole content, by its manifest."""
    return sha256(folder / MANIFEST)[:16]


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the settings that the unit at `folder` was made with."""
    return read_json(folder / MANIFEST)["settings"]


def publish(source: Path, target: Path) -> None:
    """Copy a small result file to its tracked place, unless it is there already."""
    data = source.read_bytes()
    if not target.exists() or target.read_bytes() != data:
        write_bytes(target, data)


def missing(path: Path) -> str:
    """Return a line about a path that is not there, with the command that makes it, if any."""
    command = rerun(path)
    return f"{path} is missing; run `{command}` first" if command else f"{path} is missing"


def remake(path: Path) -> str:
    """Return how to restore a broken file or folder, as the rest of a line."""
    command = rerun(path)
    return f"delete it and run `{command}`" if command else "restore it"
