"""Show the progress of long steps: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

# Names a file that is to say how far the process is, where `clearnets repro` shows it.
PROGRESS = "CLEARNETS_PROGRESS"
# How a line begins that `clearnets repro` passes on from the output of a stage.
NOTE = "note: "


def note(line: str) -> None:
    """Tell the user something that is worth knowing and no error."""
    print(f"{NOTE}{line}", file=sys.stderr, flush=True)


class Progress:
    """A bar with rate and time left on a terminal, a line every `every` seconds elsewhere."""

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        *,
        every: float = 15.0,
        quiet: bool = False,
    ) -> None:
        self._label, self._total, self._unit, self._every = label, total, unit, every
        self._quiet = quiet
        self._done, self._start = 0, time.monotonic()
        self._last = self._start
        self._file = None if quiet else os.environ.get(PROGRESS)
        self._told = 0.0
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            from rich import progress as rich

            columns = (
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TextColumn("{task.fields[rate]}"),
                rich.TimeRemainingColumn(),
                rich.TextColumn("{task.fields[note]}"),
            )
            from rich.console import Console

            self._bar = rich.Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(label, total=total, rate="", note="")
            self._bar.start()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        return f"{self._done / seconds:,.0f} {self._unit}/s"

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more units; `note` is a short text beside the bar."""
        self._done += amount
        now = time.monotonic()
        if self._file and now - self._told >= 0.5:
            self._told = now
            self._tell(note)
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, rate=self._rate(), note=note)
        elif now - self._last >= self._every:
            self._last = now
            self._line(note)

    def _tell(self, note: str) -> None:
        """Write how far this is to the file, for `clearnets repro` to read."""
        found = {"done": self._done, "total": self._total, "unit": self._unit, "note": note}
        # Workers of a pool share the file: the last one that spoke is shown.
        part = f"{self._file}.{os.getpid()}.part"
        with suppress(OSError):
            with open(part, "w", encoding="utf-8") as file:
                json.dump(found, file)
            os.replace(part, str(self._file))

    def _line(self, note: str) -> None:
        if self._quiet:
            return
        total = f"/{self._total:,}" if self._total else ""
        left = ""
        if self._total and self._done:
            # More may be done than was foreseen.
            ahead = max(0, self._total - self._done)
            remaining = ahead * (time.monotonic() - self._start) / self._done
            left = f", {remaining:,.0f} s left"
        note = f", {note}" if note else ""
        line = f"{self._label}: {self._done:,}{total} {self._unit}, {self._rate()}{left}{note}"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Stop the bar, or print the last line."""
        if self._bar is not None:
            self._bar.stop()
        else:
            self._line("")


@contextmanager
def progress(
    label: str, total: int | None, unit: str = "it", *, quiet: bool = False
) -> Iterator[Progress]:
    """Yield a `Progress` that is closed at the end; a quiet one shows nothing."""
    bar = Progress(label, total, unit, quiet=quiet)
    try:
        yield bar
    finally:
        bar.close()


def track(items: Iterable[T], label: str, total: int, unit: str = "it") -> Iterator[T]:
    """Iterate with a progress bar."""
    with progress(label, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()
