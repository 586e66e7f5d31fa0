"""Folders that a user asks for by name, outside the pipeline: there as a whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def made_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; it takes the name `out` at the end, and is removed where
    the block does not come to its end."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
