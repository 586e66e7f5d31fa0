"""Several processes of one command, as torchrun starts them.

All run the same code. The main one decides, locks, writes and speaks; the others follow it. The
group itself is accelerate's, which transformers' Trainer shares. `launch` is torchrun from within:
its agent starts the processes, and the launching one waits for them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.pipeline.artifacts import Unit, Work, build_all, work_of

if TYPE_CHECKING:
    import torch

_DONE, _STOPPED = -1, -2
_LAUNCHER = "CLEARNETS_LAUNCHER"


def launched() -> bool:
    """True in a process that `launch` or torchrun has started."""
    return "LOCAL_RANK" in os.environ


def launch(number: int, words: Sequence[str]) -> int:
    """Run `clearnets` with these words in `number` processes on this machine, to their end.

    They die with this process, however it ends.

    Returns:
        The exit code of the first that failed; it has said why. 0 where none did.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The agent reports at length on processes that have said in a line what is wrong.
    logging.disable(logging.ERROR)
    os.environ[_LAUNCHER] = str(os.getpid())
    try:
        with TemporaryDirectory() as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=number,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
                run_id=str(uuid.uuid4()),
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                # Not SIGINT: Ctrl-C is an interrupt here, as it is in one process.
                signals_to_handle="SIGTERM,SIGHUP",
            )
            elastic_launch(config, sys.executable)("-u", "-m", "clearnets", *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    return 0


def follow_launcher() -> None:
    """End this process when the one that launched it is gone, which a SIGKILL does not tell."""
    launcher = int(os.environ.get(_LAUNCHER, "0"))
    if launched() and launcher:
        threading.Thread(target=_follow, args=(launcher,), daemon=True).start()


def _follow(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent() -> None:
    """In a worker of a pool: leave when the parent is gone, even killed, and leave Ctrl-C to it."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def each(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, workers: int, preload: str
) -> Iterator[Any]:
    """What `function` gives for each of the jobs, which are its arguments, in their order.

    Args:
        workers: jobs at a time, each in a process; with fewer than two of them, or jobs, here.
        preload: a module that is imported once, by a server whose forks the workers are.
    """
    workers = min(workers, len(jobs))
    if workers < 2:
        yield from (function(*job) for job in jobs)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        try:
            yield from pool.map(function, *zip(*jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def let_main_speak() -> None:
    """Wait, in another process than the main one, for that to fail alike: it ends them all."""
    if not is_main():
        time.sleep(5)


def count(*, here: bool = False) -> int:
    """Processes of this run, or those of them on this machine; 1 without torchrun."""
    if not launched():
        return 1
    return int(os.environ.get("LOCAL_WORLD_SIZE" if here else "WORLD_SIZE", "1"))


def is_main() -> bool:
    """True in the one process that writes and speaks."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def main_first(device: Callable[[], torch.device]) -> AbstractContextManager[None]:
    """The others enter the block after the main process has left it."""
    return _group(device()).main_process_first() if count() > 1 else nullcontext()


def build_together(
    units: Sequence[Unit], device: Callable[[], torch.device]
) -> Iterator[tuple[Unit, Work]]:
    """`build_all` in step: every process gets the units that the main one found stale.

    Only the main process locks, seals and places; the others are let go when it has. `device` is
    asked for where there are several processes: it takes torch, which takes seconds.

    Raises:
        UserError: in the main process, as in `build_all`; the others exit.
    """
    if count() == 1:
        yield from build_all(units)
        return
    group = _group(device())
    if is_main():
        try:
            for unit, work in build_all(units):
                _tell(units.index(unit), group.device)
                yield unit, work
        except UserError:
            _tell(_STOPPED, group.device)
            raise
        _tell(_DONE, group.device)
    else:
        while (told := _tell(_DONE, group.device)) >= 0:
            yield units[told], work_of(units[told])
        if told == _STOPPED:
            raise SystemExit(2)
    group.destroy_process_group()


def _group(device: torch.device) -> Any:
    from accelerate import PartialState

    return PartialState(cpu=device.type == "cpu")


def _tell(number: int, device: torch.device) -> int:
    """The main process's `number`, in every process."""
    import torch

    told = torch.tensor(number, device=device)
    torch.distributed.broadcast(told, src=0)
    return int(told)
