"""Several processes of one command, as torchrun starts them.

All run the same code. The main one decides, locks, writes and speaks; the others follow it. The
group itself is accelerate's, which transformers' Trainer shares.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.pipeline.artifacts import Unit, Work, build_all, work_of

if TYPE_CHECKING:
    import torch

_DONE, _STOPPED = -1, -2


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
    if "LOCAL_RANK" not in os.environ:
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
