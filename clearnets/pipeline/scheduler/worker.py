"""What runs in a Dask worker: one command at a time in each of its threads.

Every function here may run on another machine, of which the checkout is the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clearnets import UserError, arithmetic
from clearnets.pipeline import environment

# What commands import first. Each takes a tenth of a second or more, and starts no thread: a fork
# has only one.
PRELOAD = (
    "clearnets.cli.entry",
    "torch",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "schedulefree",
    "sparsify",
    "pandas",
    "scipy.stats",
)

_lock = threading.Lock()
_servers: dict[str, list[_Server]] = {}
"""By run, the warm processes of this worker."""


@dataclass(frozen=True)
class Job:
    """A command of the pipeline.

    Attributes:
        words: the command.
        folder: the checkout, absolute: where it runs.
        log: file for what it prints, absolute.
        environment: variables that are set for it.
        run: the run of the pipeline that it is a part of.
        expected: what a worker must compute with.
    """

    words: Sequence[str]
    folder: str
    log: str
    environment: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    expected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit code; negative where a signal ended it.
        seconds: by the clock.
        processor: seconds of all its processes.
    """

    code: int
    seconds: float
    processor: float


def identity(folder: str) -> dict[str, str]:
    """Return what a process here computes with: code, libraries, processor and its settings.

    Args:
        folder: the checkout, whose code commands run.
    """
    files = sorted(path for path in (Path(folder) / "clearnets").rglob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    _, flags = arithmetic.processor()
    known = "with" if {"avx2", "fma"} <= flags else "without"
    return {
        "clearnets": code,
        **environment.software(),
        "processor": f"{platform.machine()} {known} AVX2 and FMA",
        **{name: os.environ.get(name, "unset") for name in arithmetic.ENVIRONMENT},
    }


def probe(folder: str) -> dict[str, Any]:
    """Return this worker's identity, and whether it sees the checkout."""
    return {"identity": identity(folder), "sees": (Path(folder) / "dvc.yaml").exists()}


def execute(job: Job) -> Outcome:
    """Run a command in a warm process, and wait for it.

    Raises:
        UserError: this worker computes with something else than the job asks for.
        RuntimeError: the process that ran it was killed.
    """
    with _lock:
        own = _servers.setdefault(job.run, [])
        # A worker may have come after the run has begun.
        if not own and (differing := environment.differences(job.expected, identity(job.folder))):
            raise UserError(f"its worker has {differing}; start it in this checkout's environment")
        server = next((server for server in own if not server.busy), None)
        if server is None:
            server = _Server(job.folder)
            own.append(server)
        server.busy = True
    try:
        return Outcome(**server.ask(asdict(job)))
    except BrokenPipeError:
        with _lock:
            own.remove(server)
        raise RuntimeError("the process that runs its commands was killed") from None
    finally:
        server.busy = False


def warm_up(run: str, folder: str, preload: Sequence[str]) -> None:
    """Start a warm process, so that its imports are done when a command comes."""
    with _lock:
        _servers.setdefault(run, []).append(_Server(folder, preload))


def stop(run: str) -> None:
    """End the warm processes of a run, and with them the commands that they run."""
    with _lock:
        for server in _servers.pop(run, []):
            server.close()


class _Server:
    """A process of `clearnets.pipeline.scheduler.warm`."""

    def __init__(self, folder: str, preload: Sequence[str] = PRELOAD) -> None:
        # One thread: a process with several cannot fork. A command sets its own number.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clearnets.pipeline.scheduler.warm", *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **single},
            start_new_session=True,  # Ctrl-C in a terminal is for the one who started the run.
        )
        self.busy = False

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and return the answer.

        Raises:
            BrokenPipeError: the process is gone.
        """
        assert self._process.stdin
        assert self._process.stdout
        request = {**request, "words": list(request["words"])}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BrokenPipeError
        return json.loads(answer)

    def close(self) -> None:
        """Let the process end: it kills what it runs."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
