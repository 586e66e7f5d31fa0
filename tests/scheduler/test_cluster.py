"""The smoke pipeline on a Dask scheduler and two workers, one of which is killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML
from smoke_checkout import clone, environment, make_smoke, out_hashes, run

VICTIM = "train-sparse"


@contextmanager
def started(*words: str, at: Path):
    """A process of Dask that ends with the block."""
    process = subprocess.Popen(
        (sys.executable, "-m", "dask", *words),
        cwd=at,
        env=environment(at),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_the_worker_of(stage: str, folder: Path, workers: list[subprocess.Popen]) -> None:
    """Wait until a stage says how far it is, and kill the worker that runs it."""
    log = folder / f".clearnets/logs/repro/{stage}.log"
    while not log.with_suffix(".progress").exists():
        time.sleep(0.05)
    for worker in workers:
        for process in psutil.Process(worker.pid).children(recursive=True):
            if str(log) in {file.path for file in process.open_files()}:
                worker.kill()
                return
    raise AssertionError(f"no worker runs {stage}")


@pytest.mark.nightly
def test_a_killed_worker_changes_no_byte(tmp_path):
    parallel, plain = clone(tmp_path / "parallel"), tmp_path / "plain"
    make_smoke(parallel)
    shutil.copytree(parallel, plain)
    address = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        file = ("--scheduler-file", str(address))
        stack.enter_context(
            started("scheduler", "--host", "127.0.0.1", "--port", "0", *file, at=parallel)
        )
        words = ("worker", *file, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        workers = [stack.enter_context(started(*words, at=parallel)) for _ in range(2)]
        while not address.exists():
            time.sleep(0.1)
        where = YAML(typ="safe").load(address)["address"]
        running = subprocess.Popen(
            (sys.executable, "-m", "clearnets", "repro", "--scheduler", where),
            cwd=parallel,
            env=environment(parallel),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        kill_the_worker_of(VICTIM, parallel, workers)
        told, _ = running.communicate()
        assert running.returncode == 0, told
        assert "train@sparse" in told
    run("dvc", "repro", "-q", at=plain)
    assert out_hashes(parallel / "dvc.lock") == out_hashes(plain / "dvc.lock")
    assert "up to date" in run("dvc", "status", at=parallel)
