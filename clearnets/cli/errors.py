"""Report a user's mistake, a full disk or Ctrl-C as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

# Exit code of a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


def guarded(call: Callable[[], Any]) -> int:
    """Run `call` and return its exit code: 2, with one line, for a mistake or a full disk."""
    import typer

    from clearnets import UserError
    from clearnets.pipeline import processes

    code = 2
    try:
        code = int(call() or 0)
        # Typer turns Ctrl-C into an exit.
        if code != INTERRUPTED:
            return code
        message = "interrupted; run the same command again to go on"
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:
        message = _usage(error)
        if not message:
            return error.exit_code
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


def _usage(error: typer.TyperException) -> str:
    """Return an error of the command line as one line; empty where the help has been printed."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    return f"{message[0].lower()}{message[1:]}; see `{context.command_path} --help`"


def _no_space(error: Exception) -> bool:
    """Return whether a full disk is the cause of `error`.

    Libraries that write in native code (safetensors, tokenizers, torch, numpy) say so only in the
    message, or not at all.
    """
    import errno
    import re
    import shutil

    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in codes
    found = re.search(r"os error (\d+)", str(error))
    if found:
        return int(found[1]) in codes
    messages = ("PytorchStreamWriter failed", "requested and", "items requested but")
    if any(message in str(error) for message in messages):
        return True
    return shutil.disk_usage(".").free < 2**20
