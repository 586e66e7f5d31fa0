"""Folders that a user asks for by name, outside the pipeline: there as a whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearnets.artifacts import UserError


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


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"{out} cannot be written ({error.strerror}); name a folder elsewhere")
