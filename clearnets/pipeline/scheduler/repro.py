"""`clearnets repro`: run all stale stages of DVC's graph, as many at a time as there are workers.

Of the stages that can run, that with the longest way to the end goes first. Stages that can read
one model in one pass (`Stage.together`) are given to one command.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.pipeline import paths, times
from clearnets.pipeline.progress import NOTE, PROGRESS
from clearnets.pipeline.scheduler import estimate
from clearnets.pipeline.scheduler.dvc_stages import Stages
from clearnets.pipeline.scheduler.view import Ran, View
from clearnets.pipeline.scheduler.worker import Job, Outcome
from clearnets.pipeline.stage import Stage, items_of

if TYPE_CHECKING:
    from clearnets.config import Config
    from clearnets.pipeline.scheduler.cluster import Cluster

_LOCK = paths.WORK.parent / "repro.lock"
_POLL_SECONDS = 0.2
_ESTIMATE_SECONDS = 1.0
_COUNT_SECONDS = 1.0
# A stage that waits for others of its kind lets all that need not wait go first.
_WAITING = -1e9


def run(
    load: Callable[[], Config],
    targets: Sequence[str],
    connect: Callable[[], AbstractContextManager[Cluster]],
) -> bool:
    """Bring `targets` up to date, all stages where there are none; return whether none failed.

    Args:
        load: reads the parameters.
        targets: stages, as DVC names them.
        connect: gives the workers; called only if a stage is stale.

    Raises:
        UserError: no such stage, another run in this checkout, or no workers.
    """
    from clearnets.pipeline.dvc import PLAN

    with _alone():
        stages = Stages(targets)
        if PLAN in stages.upstream and stages.stale(PLAN):
            _plan(stages, PLAN)
            stages = Stages(targets)
        config = load()
        with ExitStack() as stack:
            return _Run.of(config, stages, lambda: stack.enter_context(connect())).to_the_end()


def _plan(stages: Stages, name: str) -> None:
    """Run the stage that writes `dvc.yaml` here, before that is read."""
    from clearnets.pipeline.commands import run_here

    locks = stages.begin(name)
    if locks is None:
        return
    with locks:
        run_here(stages.command(name))
    stages.finish(name)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other runs out of this checkout.

    Raises:
        UserError: there is one.
    """
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"another `clearnets repro` (process {lock.read().strip()}) runs in this "
                "checkout; wait for it, or stop it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@dataclass(frozen=True)
class _Started:
    """A running command of one or more stages."""

    names: tuple[str, ...]
    future: Any
    log: Path
    locks: ExitStack
    since: float
    gpu: bool


@dataclass
class _Run:
    """One run: what is left, what runs, and what is shown.

    Attributes:
        waits: by stage that has not started, the stages that it waits for.
        ready: stale stages that wait for none.
        alone: stages that share no command, since one that they shared has failed.
    """

    config: Config
    stages: Stages
    connect: Callable[[], Cluster]
    known: dict[str, tuple[Stage, str | None]]
    seconds: dict[str, float]
    ways: dict[str, float]
    view: View
    waits: dict[str, set[str]]
    cluster: Cluster | None = None
    ready: list[str] = field(default_factory=list)
    running: list[_Started] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    slots: int = 1
    gpus: int = 0
    counted: float = float("-inf")
    estimated: float = float("-inf")

    @classmethod
    def of(cls, config: Config, stages: Stages, connect: Callable[[], Cluster]) -> _Run:
        recorded = times.recorded(config.experiment)
        known = {**(recorded.seconds if recorded else {}), **times.here()}
        seconds = estimate.expected(stages.upstream, known)
        ways = estimate.ways_to_end(stages.upstream, seconds)
        named = {stage.of_item(item): (stage, item) for stage, item in items_of(config)}
        waits = {name: set(before) for name, before in stages.upstream.items()}
        view = View("", len(waits))
        return cls(config, stages, connect, named, seconds, ways, view, waits)

    def to_the_end(self) -> bool:
        """Run all; return whether no stage failed."""
        with self.view.shown():
            try:
                while self.waits or self.ready or self.running:
                    self._look()
                    self._start()
                    self._collect()
            finally:
                # All of them, even where a full disk lets one fail: DVC hangs at the end of a
                # process that still has one.
                with ExitStack() as left:
                    for started in self.running:
                        left.push(started.locks)
        self._report()
        return not self.failed

    def _look(self) -> None:
        """Find out which stages that wait for none are stale; the others are done."""
        for name in [name for name, before in self.waits.items() if not before]:
            del self.waits[name]
            try:
                stale = self.stages.stale(name)
            except UserError as fault:
                self._fail((name,), str(fault))
                continue
            if stale:
                self.ready.append(name)
            else:
                self._done(name)
                self.view.fresh += 1

    def _done(self, name: str) -> None:
        for before in self.waits.values():
            before.discard(name)

    def _start(self) -> None:
        """Give commands to free workers."""
        while self.ready:
            if self.cluster is None:
                self.cluster = self.connect()
                self.view.where = self.cluster.words
            free = self._slots() - len(self.running)
            chosen = self._choose() if free > 0 else ()
            if not chosen:
                return
            self.ready = [name for name in self.ready if name not in chosen]
            self._launch(chosen)

    def _slots(self) -> int:
        """Return how many commands run at a time; workers may come and go."""
        now = time.monotonic()
        if self.cluster and now - self.counted > _COUNT_SECONDS:
            self.slots, self.gpus, self.counted = self.cluster.slots(), self.cluster.gpus(), now
        return self.slots

    def _choose(self) -> tuple[str, ...]:
        """Return the stages of the next command: the most urgent, and those that can join it."""
        groups: dict[Any, list[str]] = {}
        busy = sum(started.gpu for started in self.running)
        full = busy > 0 and busy >= self.gpus
        for name in self.ready:
            if full and self._wants_gpu(name):
                continue
            groups.setdefault(self._group(name), []).append(name)
        expected = {self._group(name) for name in self.waits}

        def urgency(group: Any) -> float:
            way = max(self.ways[name] for name in groups[group])
            return way + (_WAITING if group in expected else 0.0)

        return tuple(groups[max(groups, key=urgency)]) if groups else ()

    def _wants_gpu(self, name: str) -> bool:
        """Return whether a stage waits for a GPU: it can compute on one, and a worker has one."""
        stage, _ = self.known.get(name, (None, None))
        return bool(stage and stage.on_device and self.gpus)

    def _group(self, name: str) -> Any:
        """Return what stages that one command can run have in common."""
        stage, item = self.known.get(name, (None, None))
        if stage is None or item is None or stage.together is None or name in self.alone:
            return name
        return stage.name, stage.together(self.config, item)

    def _launch(self, names: tuple[str, ...]) -> None:
        todo: list[str] = []
        with ExitStack() as locks:
            for name in names:
                try:
                    lock = self.stages.begin(name)
                except UserError as fault:
                    self._fail((name,), str(fault))
                    continue
                if lock is None:
                    self.view.restored(name)
                    self._done(name)
                else:
                    todo.append(name)
                    locks.push(lock)
            if todo:
                self._submit(tuple(todo), locks)

    def _submit(self, names: tuple[str, ...], locks: ExitStack) -> None:
        """Start the command of stages, and take over their locks."""
        assert self.cluster is not None
        log = _log(names[0])
        progress = log.with_suffix(".progress")
        for old in (log, progress):
            old.unlink(missing_ok=True)
        job = Job(
            words=self._words(names),
            folder=os.getcwd(),
            log=str(log.absolute()),
            environment={
                PROGRESS: str(progress.absolute()),
                "OMP_NUM_THREADS": str(self._share()),
            },
        )
        gpu = self._wants_gpu(names[0])
        future = self.cluster.submit(job, gpu=gpu)
        held = locks.pop_all()
        self.running.append(_Started(names, future, log, held, time.monotonic(), gpu))
        expected = sum(self.seconds[name] for name in names)
        self.view.started(names, progress, expected)

    def _words(self, names: Sequence[str]) -> list[str]:
        """Return the command of stages; of several, that of the first with all their items."""
        command = self.stages.command(names[0])
        words = shlex.split(command)
        if words[0] != "clearnets":
            return ["sh", "-c", command]
        for name in names[1:]:
            stage, item = self.known[name]
            assert stage.over
            words += [stage.over.option, str(item)]
        return words

    def _share(self) -> int:
        """Return how many worker processes a command may use: its share of the cores."""
        assert self.cluster is not None
        if self.cluster.cores is None:
            return 1
        at_once = min(self._slots(), len(self.running) + 1 + len(self.ready))
        return max(1, self.cluster.cores // at_once)

    def _collect(self) -> None:
        """Wait a moment, and record the commands that have ended."""
        if not self.running:
            if self.ready:  # There is no worker.
                time.sleep(_POLL_SECONDS)
            return
        if not any(started.future.done() for started in self.running):
            time.sleep(_POLL_SECONDS)
        self._estimate()
        for started in [started for started in self.running if started.future.done()]:
            self.running.remove(started)
            with started.locks:
                self._finish(started)

    def _finish(self, started: _Started) -> None:
        """Record what a command has made, or that it has failed."""
        reason = _why_failed(started)
        if reason and len(started.names) > 1:
            # Which of its stages has failed? Each by itself goes on with what is finished.
            self.alone |= set(started.names)
            self.ready += started.names
            self.view.again(started.names)
            return
        if reason:
            self._fail(started.names, reason)
            return
        made = []
        for name in started.names:
            try:
                self.stages.finish(name)
            except UserError as fault:
                self._fail((name,), str(fault))
            else:
                made.append(name)
                self._done(name)
        outcome: Outcome = started.future.result()
        if made:
            self.view.ended(Ran(tuple(made), outcome.seconds, outcome.processor))
            for line in _notes(started.log):
                self.view.say(line)

    def _fail(self, names: tuple[str, ...], reason: str) -> None:
        """Give up what needs a stage that has failed."""
        lost = set(names)
        for name, before in self.stages.upstream.items():
            if before & lost:
                lost.add(name)
        skipped = [name for name in self.waits if name in lost]
        for name in skipped:
            del self.waits[name]
        self.failed |= lost
        self.view.failed(names, reason, skipped)

    def _estimate(self) -> None:
        now = time.monotonic()
        if now - self.estimated < _ESTIMATE_SECONDS:
            return
        self.estimated = now
        # A command counts as its first stage, which takes as long as all of them.
        first = {name: job.names[0] for job in self.running for name in job.names}
        since = {job.names[0]: now - job.since for job in self.running}
        seconds = dict(self.seconds)
        for job in self.running:
            seconds[job.names[0]] = sum(self.seconds[name] for name in job.names)
        left = {**self.waits, **{name: set[str]() for name in (*self.ready, *since)}}
        ordered = {
            name: {first.get(before, before) for before in left[name]} & left.keys()
            for name in self.stages.upstream
            if name in left
        }
        self.view.left = estimate.seconds_left(ordered, seconds, since, self._slots())

    def _report(self) -> None:
        places = {
            "figures": paths.FIGURES,
            "tables": paths.results(self.config.experiment),
            "paper": paths.PAPER,
            "browser": paths.browser() / "index.html",
        }
        there = {what: str(path) for what, path in places.items() if path.exists()}
        if self.view.fresh == self.view.total:
            print(f"all {self.view.total} stages are up to date")
        self.view.report(there if not self.failed else {})


def _why_failed(started: _Started) -> str:
    """Return why a command has failed; empty if it has not."""
    if started.future.status != "finished":
        try:
            error = started.future.exception(timeout=1)
        except Exception as lost:  # The scheduler is gone, and the result with it.
            error = lost
        words = " ".join(str(error or "the scheduler is gone").split())
        return words if isinstance(error, UserError) else f"its worker was lost ({words})"
    outcome: Outcome = started.future.result()
    if not outcome.code:
        return ""
    return f"{_last_line(started.log, outcome.code)} (all it said: {started.log})"


def _log(name: str) -> Path:
    path = paths.LOGS / "repro" / f"{name.replace('@', '-')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _lines(log: Path) -> list[str]:
    """Return what a command has written so far."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return []


def _notes(log: Path) -> list[str]:
    """Return what a command wants its user to know."""
    return [line for line in _lines(log) if line.startswith(NOTE)]


def _last_line(log: Path, code: int) -> str:
    """Return the error of a command that has failed: the last line that it wrote, if it could."""
    if code < 0:
        return f"signal {-code}"
    lines = _lines(log)
    if lines:
        return lines[-1].removeprefix("clearnets: ")
    return f"exit code {code} without a word, as where the disk is full"
