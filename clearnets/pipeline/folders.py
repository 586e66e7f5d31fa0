"""Folders that are there as a whole, or not at all, and that no stage skips as fresh: those that a
user asks for by name, and the paper's, which are written anew each time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearnets import UserError
from clearnets.pipeline.artifacts import MANIFEST, Unit, fingerprint, sha256, write_json


def check_new(out: Path) -> None:
    """Raise `UserError` where there is something at `out`, or where nobody may look."""
    try:
        there = out.exists()
    except OSError as error:
        raise _unwritable(out, error) from None
    if there:
        raise UserError(f"{out} is there already; name a folder that is not, or delete it")


@contextmanager
def made_whole(out: Path) -> Iterator[Path]:
    """A new folder beside `out` to write into; it takes the name `out` at the end, and is removed
    where the block does not come to its end.

    Raises:
        UserError: there can be no folder at this place.
    """
    check_new(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        try:
            part.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(out, error) from None
        yield part
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def replaced(unit: Unit) -> Iterator[Path]:
    """A new folder to write into. At the end it gets the unit's manifest, as every artifact has,
    and takes the place of `unit.out`, which stays as it was where the block does not come that far.
    """
    part = unit.out.with_name(f".{unit.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        files = {
            path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(part.iterdir())
        }
        identity = unit.identity()
        whole = {**identity, "fingerprint": fingerprint(identity), "files": files}
        write_json(part / MANIFEST, whole)
        shutil.rmtree(unit.out, ignore_errors=True)
        part.rename(unit.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"{out} cannot be written ({error.strerror}); name a folder elsewhere")
