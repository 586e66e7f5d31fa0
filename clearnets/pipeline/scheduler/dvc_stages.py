"""DVC's stages, one at a time: is it stale, what to do before its command, and after it.

The same steps as in `dvc repro` (`dvc.stage.Stage.reproduce`), taken apart so that commands of
several stages can run in between. So `dvc.lock`, the cache of runs and `dvc status` are what
`dvc repro` leaves. Only one process calls DVC, so stages never wait for each other's locks; while
a command runs, its paths are locked as DVC does it, against other DVC commands.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from clearnets import UserError
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import write_bytes

_LOCK_SECONDS = 120.0
_BEFORE = paths.WORK.parent / "dvc.lock.before"
"""The record as it was before a change that has not ended."""


class Stages:
    """The stages of this checkout that a run concerns.

    Attributes:
        upstream: by name (`cache@sae`), the names of the stages that it reads from, in the order of
            a `dvc repro`.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        """Read `dvc.yaml`.

        Args:
            targets: stages whose results are wanted, with all that they read from; none means all.

        Raises:
            UserError: no such stage, or DVC cannot read the pipeline.
        """
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

        for name in ("dvc", "dvc_data", "dvc_objects"):  # Their lines and bars.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._repo: Any = Repo()
            with self._locked():
                _put_back()
                chosen = collect_stages(self._repo, targets or ["dvc.yaml"])
                graph = get_active_graph(self._repo.index.graph)
                planned = plan_repro(graph, chosen)
        except DvcException as error:
            cure = "`dvc stage list` lists the stages"
            if str(paths.LOCK) in str(error):
                cure = "delete it and run the same command: finished stages are restored"
            raise UserError(f"{error}; {cure}") from None
        self._stages = {stage.addressing: stage for stage in planned}
        self.upstream: dict[str, set[str]] = {
            name: {other.addressing for other in graph.successors(stage)}
            for name, stage in self._stages.items()
        }

    def command(self, name: str) -> str:
        """Return the command of a stage."""
        command = self._stages[name].cmd
        return " && ".join(command) if isinstance(command, list) else str(command)

    def stale(self, name: str) -> bool:
        """Return whether a stage has to run: its record, inputs or outputs have changed.

        Raises:
            UserError: another DVC command works on its paths, or DVC cannot tell.
        """
        with self._locked(), _in_one_line():
            stage = self._stages[name]
            return not stage.frozen and stage.changed()

    def begin(self, name: str) -> AbstractContextManager[Any] | None:
        """Lock the paths of a stale stage and remove its outputs, or restore an earlier run.

        Returns:
            What has to be closed when the command has ended; None if the cache of runs had the
            outputs, so that there is nothing to run.

        Raises:
            UserError: another DVC command works on these paths, or an input is missing.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        with self._locked(), _in_one_line(), ExitStack() as locks:
            locks.enter_context(self._paths(stage))
            for dep in stage.deps:
                if not dep.exists:
                    raise dep.DoesNotExistError(dep)
            stage.remove_outs(ignore_remove=False, force=False)
            try:
                # Before inputs are saved: this takes the recorded outputs for those of the inputs
                # that are there where it finds these as recorded.
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                stage.save_deps()
                return locks.pop_all()
            self._record(stage)
            return None

    def finish(self, name: str) -> None:
        """Record the outputs of a stage whose command has ended well.

        Raises:
            UserError: an output is missing, or cannot be stored.
        """
        from dvc.exceptions import DvcException

        try:
            with self._locked():
                self._record(self._stages[name])
        except DvcException as error:
            raise UserError(f"{name}: {error}") from None

    def _record(self, stage: Any) -> None:
        # Runs with outputs outside of DVC's cache cannot be restored from it.
        uncached = any(
            not out.use_cache for out in stage.outs if not (out.is_metric or out.is_plot)
        )
        stage.save(run_cache=not uncached)
        stage.commit()
        with _whole_record():
            stage.dump(update_pipeline=False)

    def _paths(self, stage: Any) -> AbstractContextManager[Any]:
        from dvc.rwlock import rwlock

        return rwlock(
            self._repo.tmp_dir,
            self._repo.fs,
            " ".join(sys.argv),
            [dep.fs_path for dep in stage.deps],
            [out.fs_path for out in stage.outs],
            self._repo.config["core"].get("hardlink_lock", False),
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold DVC's lock of the repository, for which other DVC commands may have to be waited.

        Raises:
            UserError: one holds it for minutes.
        """
        from dvc.lock import LockError

        start = time.monotonic()
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._repo.lock)
                    break
                except LockError:
                    if time.monotonic() - start > _LOCK_SECONDS:
                        raise UserError(
                            "another DVC command holds the lock of this checkout; wait for it, or "
                            "stop it"
                        ) from None
            yield


@contextmanager
def _whole_record() -> Iterator[None]:
    """Let DVC change its record, which it writes in place: a full disk leaves the earlier one."""
    write_bytes(_BEFORE, paths.LOCK.read_bytes() if paths.LOCK.exists() else b"")
    try:
        yield
    except BaseException:
        _put_back()
        raise
    _BEFORE.unlink()


def _put_back() -> None:
    """Put the record back, if a change of it has not ended."""
    if not _BEFORE.exists():
        return
    if _BEFORE.stat().st_size:
        _BEFORE.replace(paths.LOCK)
    else:
        paths.LOCK.unlink(missing_ok=True)
        _BEFORE.unlink()


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn DVC's errors into one line.

    Raises:
        UserError: another DVC command has locked a path, or an input is missing.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    try:
        yield
    except LockError as error:
        busy = str(error).split(",", 1)[0]
        raise UserError(f"{busy}: another DVC command works on it") from None
    except FileNotFoundError as error:
        raise UserError(f"missing input {error.filename}") from None
    except DvcException as error:
        raise UserError(" ".join(str(error).split())) from None
