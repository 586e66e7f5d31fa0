"""What goes wrong without being a bug, as one line: a mistake, a full disk, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

# Exit code of a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


def guarded(call: Callable[[], Any]) -> int:
    """Run `call`; a user's mistake or a full disk becomes one line and exit code 2."""
    from clearnets import processes
    from clearnets.artifacts import UserError

    code = 2
    try:
        return call() or 0
    except UserError as error:
        message = str(error)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Typer turns Ctrl-C into an exit.
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        message, code = "interrupted; run the same command again to go on", INTERRUPTED
    except Exception as error:
        if not _no_space(error):
            raise
        message = (
            "a file could not be written: the disk is full, or a quota or size limit is reached; "
            "free some space and run the same command to go on"
        )
    if code == 2:
        processes.let_main_speak()
    if code == 2 or processes.is_main():
        print(f"clearnets: {message}", file=sys.stderr)
    return code


def _no_space(error: Exception) -> bool:
    """Whether a full disk is behind `error`. Libraries that write in native code (safetensors,
    tokenizers, torch, numpy) say so in words only, or not at all."""
    import errno
    import re
    import shutil

    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in codes
    found = re.search(r"os error (\d+)", str(error))
    if found:
        return int(found[1]) in codes
    said = ("PytorchStreamWriter failed", "requested and", "items requested but")
    if any(words in str(error) for words in said):
        return True
    return shutil.disk_usage(".").free < 2**20
