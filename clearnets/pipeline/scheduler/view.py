"""Show a run of the pipeline: one view on a terminal, one plain line a stage elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.pipeline.console import print_table

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class Ran:
    """A command that has ended.

    Attributes:
        names: of its stages.
        seconds: by the clock.
        processor: seconds of processor time.
    """

    names: tuple[str, ...]
    seconds: float
    processor: float


@dataclass(frozen=True)
class _Shown:
    """A running command: since when, its file of progress, and the seconds that are expected."""

    since: float
    progress: Path
    seconds: float


@dataclass
class View:
    """What a run shows.

    Attributes:
        where: the workers, in words.
        total: how many stages the run concerns.
        fresh: how many of them had nothing to do.
        left: seconds that the rest takes; None until that is known.
    """

    where: str
    total: int
    fresh: int = 0
    left: float | None = None
    _running: dict[tuple[str, ...], _Shown] = field(default_factory=dict)
    _ran: list[Ran] = field(default_factory=list)
    _failed: list[str] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)
    _live: Any = None

    @contextmanager
    def shown(self) -> Iterator[View]:
        """Draw the view inside, on a terminal."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        with Live(
            console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True
        ) as self._live:
            yield self
        self._live = None

    def say(self, line: str) -> None:
        """Print a line above the view."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def started(self, names: tuple[str, ...], progress: Path, seconds: float) -> None:
        """Show a command as running.

        Args:
            progress: the file in which it says how far it is.
            seconds: what it is expected to take, shown where it does not say.
        """
        self._running[names] = _Shown(time.monotonic(), progress, seconds)

    def ended(self, ran: Ran) -> None:
        """Count a command's stages as done."""
        self._running.pop(ran.names, None)
        self._ran.append(ran)
        self.say(f"{self._count()} {' '.join(ran.names)}  {words_of(ran.seconds)}")

    def restored(self, name: str) -> None:
        """Count a stage as done whose outputs came from DVC's cache of runs."""
        self._ran.append(Ran((name,), 0.0, 0.0))
        self.say(f"{self._count()} {name}  restored from an earlier run")

    def again(self, names: tuple[str, ...]) -> None:
        """Tell that a command of several stages has failed, and that each is tried by itself."""
        self._running.pop(names, None)
        self.say(f"{self._count()} {' '.join(names)}  failed together, now one by one")

    def failed(self, names: tuple[str, ...], reason: str, skipped: list[str]) -> None:
        """Tell that a command has failed, and what therefore cannot run."""
        self._running.pop(names, None)
        self._failed += [*names, *skipped]
        self.say(f"{self._count()} {' '.join(names)}  FAILED: {reason}")
        if skipped:
            self.say(f"  not run, as they need it: {' '.join(skipped)}")

    def _count(self) -> str:
        done = self.fresh + sum(len(ran.names) for ran in self._ran)
        width = len(str(self.total))
        left = f", {words_of(self.left)} left" if self.left and self._live is None else ""
        return f"[{done:{width}}/{self.total}{left}]"

    def _drawn(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = self.fresh + sum(len(ran.names) for ran in self._ran)
        took = time.monotonic() - self._start
        left = "" if self.left is None else f"about {words_of(self.left)} left · "
        head = f"{done} of {self.total} stages done · {words_of(took)} so far · {left}{self.where}"
        table = Table.grid(padding=(0, 2))
        for names, shown in list(self._running.items()):
            elapsed = time.monotonic() - shown.since
            found = _read_progress(shown.progress)
            part = elapsed / max(shown.seconds, 0.1)
            if total := found.get("total"):
                part = found["done"] / total
            words = f"{found['done']:,}/{total:,} {found['unit']}" if total else ""
            table.add_row(
                Text(_shortened(names)),
                ProgressBar(total=1.0, completed=min(part, 1.0), width=24),
                Text(words, style="dim"),
                Text(words_of(elapsed)),
                Text(found.get("note", ""), style="dim"),
            )
        return Group(Text(head, style="bold"), table)

    def report(self, places: dict[str, str]) -> None:
        """Print what took how long, and where the results are.

        Args:
            places: by what it is, a path.
        """
        if self._ran:
            by_stage: dict[str, list[float]] = {}
            for ran in self._ran:
                for name in ran.names:
                    row = by_stage.setdefault(name.partition("@")[0], [0.0, 0.0, 0.0])
                    share = 1 / len(ran.names)
                    for column, value in enumerate((1, ran.seconds * share, ran.processor * share)):
                        row[column] += value
            rows = [
                (name, f"{count:.0f}", words_of(seconds), words_of(processor))
                for name, (count, seconds, processor) in by_stage.items()
            ]
            total = sum(ran.processor for ran in self._ran)
            runs = f"{sum(len(ran.names) for ran in self._ran)}"
            wall = words_of(time.monotonic() - self._start)
            print_table(
                ("stage", "runs", "time", "processor time"),
                [*rows, ("all, by the clock", runs, wall, words_of(total))],
            )
        for what, path in places.items():
            print(f"{what}: {path}")


def _shortened(names: tuple[str, ...]) -> str:
    """Return the names of a command's stages as one: `cache@sae,transcoder`."""
    stage = names[0].partition("@")[0]
    items = [name.partition("@")[2] for name in names]
    return f"{stage}@{','.join(items)}" if items[0] else stage


def _read_progress(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def words_of(seconds: float) -> str:
    """Return a time in words.

    >>> words_of(8.24), words_of(75), words_of(4000)
    ('8.2 s', '1 min 15 s', '1 h 06 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
