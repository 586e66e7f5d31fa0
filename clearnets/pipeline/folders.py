"""Create folders atomically that are written anew each time: a user's exports, and the paper's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearnets import UserError
from clearnets.pipeline.artifacts import Unit, seal


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
    """Yield a new folder to write into, which is renamed to `out` at the end of the block.

    An exception removes it.

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
    """Yield a new folder to write into, which replaces `unit.out` at the end of the block.

    It gets the unit's manifest. An exception leaves `unit.out` as it was.
    """
    part = unit.out.with_name(f".{unit.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        seal(part, unit.identity())
        shutil.rmtree(unit.out, ignore_errors=True)
        part.rename(unit.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"{out} cannot be written ({error.strerror}); name a folder elsewhere")
