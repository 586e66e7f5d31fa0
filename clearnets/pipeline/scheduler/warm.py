"""A process that has imported what stages compute with, and forks a child for each command.

Importing torch takes seconds, which a fork does not. A fork also starts clean: what one command
sets in its process no other sees. The process reads a command as a line of JSON from its input and
answers with a line of JSON. When its input ends, because the worker that started it is gone, it
kills the running command and ends. Its arguments are the modules to import.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

_POLL_SECONDS = 0.05
# The number of the file that answers go to.
ANSWERS = 9


def main() -> None:
    """Serve commands until the input ends."""
    # Answers alone go to the output: what is imported may print.
    os.dup2(1, ANSWERS)
    os.dup2(2, 1)
    if sys.platform == "linux":
        for name in sys.argv[1:]:
            import_module(name)
    buffer = b""
    while True:
        line, found, rest = buffer.partition(b"\n")
        if found:
            buffer = rest
            answer = json.dumps(_run(json.loads(line)))
            os.write(ANSWERS, answer.encode() + b"\n")
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return
        buffer += data


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a child and return its exit code and what it used."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = _wait(*_start(request))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "code": code,
        "seconds": time.monotonic() - start,
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def _start(request: dict[str, Any]) -> tuple[int, Callable[[], int | None]]:
    """Start the command in a process group of its own.

    Returns:
        The group's number, and what gives the exit code when there is one.
    """
    words, environment = request["words"], request["environment"]
    if sys.platform != "linux" or words[0] != "clearnets":
        if words[0] == "clearnets":
            words = [sys.executable, "-m", *words]
        with open(request["log"], "ab") as log:
            process = subprocess.Popen(
                words,
                cwd=request["folder"],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        return process.pid, process.poll
    child = os.fork()
    if child == 0:
        _become(request)
    with suppress(OSError):  # The child does it, too: whoever comes first.
        os.setpgid(child, child)
    return child, partial(_poll, child)


def _poll(child: int) -> int | None:
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _become(request: dict[str, Any]) -> None:
    """Be the command, in the forked child; does not return."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.close(ANSWERS)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(number, target)
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        sys.argv = request["words"]
        runpy.run_module("clearnets", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(group: int, poll: Callable[[], int | None]) -> int:
    """Return the exit code of a command; kill it, and end, if the input ends first."""
    while True:
        code = poll()
        if code is not None:
            return code
        ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
        # Nothing is sent while a command runs, so this is the end.
        if ready:
            os.killpg(group, signal.SIGKILL)
            while poll() is None:
                time.sleep(_POLL_SECONDS)
            os._exit(1)


if __name__ == "__main__":
    main()
