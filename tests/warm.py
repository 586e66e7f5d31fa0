"""Commands that start at once: forks of a process that has imported the libraries.

A stage at the tests' size computes for less than a second, behind several seconds of imports.
`commands` makes a folder of `python`, `clearnets` and `dvc`, which do what the real ones do. They
ask one server for a fork of itself that has imported no code of clearnets: so each command runs the
code of its own `PYTHONPATH`, in a process, a folder and an environment of its own.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

# What is no module and no script, such as `-c`, goes to the real interpreter.
CLIENT = """\
#!{python} -ISS
import json, os, socket, sys
words = {words} + sys.argv[1:]
if words[0] != "-m" and not words[0].endswith(".py"):
    os.execv({python!r}, [{python!r}, *words])
asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    code = server.recv(1)
sys.exit(code[0] if code else 137)
"""
COMMANDS = {"python": [], "clearnets": ["-m", "clearnets"], "dvc": ["-m", "dvc"]}
LIBRARIES = (
    *("dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.commands.status", "dvc.stage"),
    *("dvc.cli.parser", "dvc.repo.reproduce", "dvc.repo.status", "dvc.output", "dvc.dependency"),
    *("networkx", "dulwich.repo", "scmrepo.git", "dvc_render", "ruamel.yaml", "wcwidth"),
    *("pydantic.main", "pydantic.fields", "pydantic.types", "pydantic.functional_validators"),
    *("numpy", "pandas", "scipy.stats", "sklearn.metrics", "sklearn.datasets", "pydantic", "typer"),
    *("rich.progress", "torch", "transformers", "sparsify", "datasets", "schedulefree"),
    *("sentence_transformers", "transformers.trainer", "transformers.models.gpt_neox"),
    *("matplotlib.pyplot", "matplotlib.backends.backend_pdf", "fontTools.subset"),
)


@contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """Make the commands in `folder`; they work until the end of the block."""
    address = str(folder / "server")
    for name, words in COMMANDS.items():
        path = folder / name
        path.write_text(CLIENT.format(python=sys.executable, words=words, address=address))
        path.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, address], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline(), "the server did not start"
        yield folder
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def serve(address: str) -> None:
    """Fork for each request, without end."""
    # Libraries print while they are imported.
    ready = os.dup(1)
    os.dup2(2, 1)
    # Sets the environment in which the libraries are to be imported.
    importlib.import_module("clearnets")
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "clearnets"]:
        del sys.modules[name]
    # Their times are counted among those of the server's own caller.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_reap()))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        os.write(ready, b"ready\n")
        os.close(ready)
        while True:
            client, _ = server.accept()
            if not os.fork():
                server.close()
                _answer(client, Path(address).with_name("python"))
            client.close()
            _reap()


def _reap() -> None:
    """Wait for the forks that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(client: socket.socket, python: Path) -> NoReturn:
    """Run what a client asks for in this process, and end with it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(client, 8, 3)
    asked = bytearray()
    while len(asked) < int.from_bytes(size, "big"):
        asked += client.recv(1 << 20)
    words, folder, environment = json.loads(asked)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = str(python)
    code = _run(words)
    with suppress(OSError):
        client.sendall(bytes([code]))
    os._exit(0)


def _run(words: list[str]) -> int:
    """Run `-m MODULE WORD...` or `SCRIPT WORD...`; return the exit code."""
    module = words[0] == "-m"
    name, *rest = words[module:]
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = [name, *rest]
    sys.path[0] = os.getcwd() if module else str(Path(name).absolute().parent)
    sys.path[1:1] = [path for path in own if path]
    importlib.invalidate_caches()
    try:
        if module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    return code & 255


if __name__ == "__main__":
    serve(sys.argv[1])
