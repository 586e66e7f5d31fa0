"""Where commands run: workers on this machine, or those of a Dask scheduler that is there."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from clearnets import UserError
from clearnets.pipeline import environment, processes
from clearnets.pipeline.scheduler import worker

if TYPE_CHECKING:
    from distributed import Client, Future

GPU = "GPU"
_CONNECT_SECONDS = 15
_WORKER_SECONDS = 120


@dataclass(frozen=True)
class Cluster:
    """A connection to workers.

    Attributes:
        client: of the scheduler.
        words: what it is, for people.
        cores: of this machine, which its own workers share; None where they are elsewhere.
        run: names the run of the pipeline.
    """

    client: Client
    words: str
    cores: int | None
    run: str

    def slots(self) -> int:
        """Return how many commands the workers run at a time."""
        return sum(found["nthreads"] for found in self._workers().values())

    def gpus(self) -> int:
        """Return how many of the workers' commands may hold a GPU at a time."""
        return int(sum(found["resources"].get(GPU, 0) for found in self._workers().values()))

    def _workers(self) -> dict[str, Any]:
        return self.client.scheduler_info(n_workers=-1)["workers"]

    def submit(self, job: worker.Job, *, gpu: bool) -> Future:
        """Start a command on a worker that is free. If that dies, another worker starts it anew.

        Args:
            gpu: whether to wait for a worker with a free GPU.
        """
        resources = {GPU: 1} if gpu else None
        job = replace(job, run=self.run, expected=worker.identity(job.folder))
        return self.client.submit(worker.execute, job, pure=False, resources=resources)


@contextmanager
def local(jobs: int, preload: Sequence[str] = worker.PRELOAD) -> Iterator[Cluster]:
    """Start as many workers as commands run at a time; they end with the block.

    The first of them get one of this machine's GPUs each, as long as there are any.

    Args:
        preload: modules that commands find imported.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    _hush()
    # Before Dask sets OMP_NUM_THREADS here, for its workers.
    cores = processes.cores()
    # Whoever can talk to a worker can run code: only this process has the keys.
    security = Security.temporary()
    gpus = _gpus()
    common = {
        "security": security,
        "protocol": "tls",
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
    }
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                **common,
                "nthreads": 1,
                "resources": {GPU: 1} if number < len(gpus) else {},
                "env": {"CUDA_VISIBLE_DEVICES": gpus[number] if number < len(gpus) else ""},
                # Commands are processes of their own, of whose memory a worker knows nothing.
                "memory_limit": 0,
            },
        }
        for number in range(jobs)
    }
    settings = {
        "distributed.comm.timeouts.connect": "30s",
        # Dask would look a hundred times a second at what each of its threads does.
        "distributed.worker.profile.enabled": False,
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    }
    scheduler = {"cls": Scheduler, "options": {**common, "host": "127.0.0.1"}}
    with (
        dask.config.set(settings),
        SpecCluster(
            workers=workers,
            scheduler=scheduler,
            security=security,
            silence_logs=logging.CRITICAL,  # pyright: ignore[reportArgumentType]
        ) as made,
        Client(made) as client,
    ):
        run = uuid4().hex
        client.run(worker.warm_up, run, os.getcwd(), preload)
        words = f"{jobs} worker{'s' if jobs > 1 else ''} here"
        yield Cluster(client, words, cores, run)


def _gpus() -> list[str]:
    """Return the numbers of the GPUs that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        # Torch, too, reads up to the first that is none.
        return list(takewhile(lambda name: name and name != "-1", allowed.split(",")))
    if version("torch").endswith("+cpu"):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    # Parts of a GPU are listed below it.
    whole = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number, _ in enumerate(whole)]


@contextmanager
def remote(address: str) -> Iterator[Cluster]:
    """Connect to a scheduler that is there, and check its workers.

    Raises:
        UserError: none answers, it has no worker, or a worker has other code or libraries, or does
            not see this folder.
    """
    from distributed import Client

    _hush()
    try:
        client = Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        reason = "" if isinstance(error, OSError) else f" ({error})"
        raise UserError(
            f"no Dask scheduler answers at {address}{reason}; start one with `dask scheduler`, or "
            "leave --scheduler out to run here"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError:
            raise UserError(
                f"the scheduler at {address} has no worker; start some in this environment with "
                f"`dask worker {address} --nworkers -1 --nthreads 1`"
            ) from None
        check_workers(client, os.getcwd())
        count = len(client.scheduler_info(n_workers=-1)["workers"])
        words = f"{count} worker{'s' if count > 1 else ''} of {address}"
        run = uuid4().hex
        with _stopping(client, run):
            yield Cluster(client, words, None, run)


@contextmanager
def _stopping(client: Client, run: str) -> Iterator[None]:
    """End the commands of a run with the block."""
    try:
        yield
    finally:
        with suppress(Exception):  # The scheduler may be gone, and its workers with it.
            client.run(worker.stop, run)


def check_workers(client: Client, folder: str) -> None:
    """Compare what all workers compute with to what this process does.

    Raises:
        UserError: one differs, or does not see `folder`.
    """
    try:
        found: Any = client.run(worker.probe, folder)
    except Exception as error:
        raise UserError(
            f"a worker cannot run clearnets ({error}); start it in this environment"
        ) from None
    expected = worker.identity(folder)
    for address, answer in found.items():
        if differing := environment.differences(expected, answer["identity"]):
            raise UserError(
                f"the worker at {address} has {differing}; start it in this checkout's environment"
            )
        if not answer["sees"]:
            raise UserError(
                f"the worker at {address} does not see {folder}; workers need the same file system"
            )


def _hush() -> None:
    """Let Dask log nothing: what concerns the user is told by this package."""
    for name in ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
