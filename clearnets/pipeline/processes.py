"""Run one command in several processes, as torchrun starts them, and jobs in a pool of workers.

All run the same code. The main one decides, locks, writes and speaks; the others follow it. The
group itself is accelerate's.
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
    """End this worker of a pool when its parent is gone, even killed; leave Ctrl-C to that."""
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
    """Yield what `function` returns for each of the jobs, which are its arguments, in order.

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
    """Block until the main process fails too, so that all processes end with one error."""
    if not is_main():
        time.sleep(5)


def count(*, here: bool = False) -> int:
    """Return the number of processes of this run, or those on this machine; 1 without torchrun."""
    if "LOCAL_RANK" not in os.environ:
        return 1
    return int(os.environ.get("LOCAL_WORLD_SIZE" if here else "WORLD_SIZE", "1"))


def cores() -> int:
    """Return how many workers this process may have at a time, each on a core; none of our results
    depends on it.

    They are the cores that its affinity allows, or OMP_NUM_THREADS if that is fewer, divided
    among torchrun's processes on this machine.
    """
    # macOS has no affinity.
    has_affinity = hasattr(os, "sched_getaffinity")
    there = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    # OpenMP allows a list, of nested levels. torchrun sets it for each of its processes.
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    share = there // count(here=True)
    return max(1, min(share, int(asked)) if asked.isdecimal() else share)


def is_main() -> bool:
    """Return whether this is the one process that writes and prints."""
    return rank() == 0


def rank() -> int:
    """Return the number of this process among those of the run; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def main_first(device: Callable[[], torch.device]) -> AbstractContextManager[None]:
    """Let the other processes enter the block after the main process has left it."""
    return _group(device()).main_process_first() if count() > 1 else nullcontext()


def build_together(
    units: Sequence[Unit], device: Callable[[], torch.device]
) -> Iterator[tuple[Unit, Work]]:
    """Run `build_all` in every process on the units that the main one found stale.

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
                _broadcast(units.index(unit), group.device)
                yield unit, work
        except UserError:
            _broadcast(_STOPPED, group.device)
            raise
        _broadcast(_DONE, group.device)
    else:
        while (number := _broadcast(_DONE, group.device)) >= 0:
            yield units[number], work_of(units[number])
        if number == _STOPPED:
            raise SystemExit(2)
    group.destroy_process_group()


def _group(device: torch.device) -> Any:
    from accelerate import PartialState

    return PartialState(cpu=device.type == "cpu")


def summed(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of the processes' values."""
    total = values.clone()
    if count() > 1:
        from torch import distributed

        distributed.all_reduce(total)
    return total


def _broadcast(number: int, device: torch.device) -> int:
    """Return the main process's `number` in every process."""
    import torch

    value = torch.tensor(number, device=device)
    torch.distributed.broadcast(value, src=0)
    return int(value)
