"""What runs in a Dask worker: one command at a time in each of its threads.

Every function here may run on another machine, of which the checkout is the same folder.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Libraries by whose version results may differ.
LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "transformers",
    "eai-sparsify",
    "distributed",
)

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
_idle: list[_Server] = []
"""Warm processes of this worker that run nothing."""


@dataclass(frozen=True)
class Job:
    """A command of the pipeline.

    Attributes:
        words: the command.
        folder: the checkout, absolute: where it runs.
        log: file for what it prints, absolute.
        environment: variables that are set for it.
    """

    words: Sequence[str]
    folder: str
    log: str
    environment: Mapping[str, str] = field(default_factory=dict)


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


def identity() -> dict[str, str]:
    """Return what this process computes with: the code of the package, Python and libraries."""
    from clearnets.pipeline import code
    from clearnets.pipeline.artifacts import fingerprint
    from clearnets.pipeline.stage import table

    return {
        "clearnets": fingerprint([code.fingerprint(name) for name in table()]),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return in words in what two identities differ; empty where in nothing."""
    return ", ".join(
        f"{name} {found.get(name, 'absent')} instead of {value}"
        for name, value in expected.items()
        if found.get(name) != value
    )


def probe(folder: str) -> dict[str, Any]:
    """Return this worker's identity, and whether it sees the checkout."""
    return {"identity": identity(), "sees": (Path(folder) / "dvc.yaml").exists()}


def execute(job: Job) -> Outcome:
    """Run a command in a warm process, and wait for it.

    Raises:
        RuntimeError: the process that ran it was killed.
    """
    with _lock:
        server = _idle.pop() if _idle else _Server(job.folder)
    try:
        outcome = Outcome(**server.ask(asdict(job)))
    except BrokenPipeError:
        raise RuntimeError("the process that runs its commands was killed") from None
    with _lock:
        _idle.append(server)
    return outcome


def warm_up(folder: str, preload: Sequence[str]) -> None:
    """Start a warm process, so that its imports are done when a command comes."""
    with _lock:
        _idle.append(_Server(folder, preload))


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

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and return the answer.

        Raises:
            BrokenPipeError: the process is gone.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BrokenPipeError
        return json.loads(answer)
