"""Report a user's mistake, a full disk, a damaged result or Ctrl-C as one line."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

# Exit code of a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


def guarded(call: Callable[[], Any]) -> int:
    """Run `call` and return its exit code: 2, with one line, for what the user can cure."""
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
        message = _cause(error)
        if not message:
            raise
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


def _cause(error: Exception) -> str:
    """Return a line about what from outside has led to `error`; empty if nothing that is known."""
    if _no_space(error):
        return (
            "a file could not be written: the disk is full, or a quota or size limit is reached; "
            "free some space and run the same command to go on"
        )
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"a name is too long: {str(error.filename)!r:.60}...; choose a shorter one"
    if any(words in str(error) for words in ("while decoding a JSON", "for integer string")):
        return "a JSON text is nested too deeply, or has a number of too many digits; correct it"
    return next(_damaged_records(), "") or _place(error)


def _place(error: Exception) -> str:
    """Return a line about a file that cannot be used where it is; empty if that is not the cause.

    A work folder vanishes where another process, such as the orphan of a killed run, has completed
    it while this one waited.
    """
    from clearnets.pipeline import paths

    if not isinstance(error, OSError) or error.filename is None:
        return ""
    name, work = str(error.filename), str(paths.WORK)
    if isinstance(error, FileNotFoundError) and name.startswith(work):
        return f"another process has finished {name:.80}; run the same command again to go on"
    barred = (errno.EACCES, errno.EPERM, errno.EROFS)
    if error.errno in (*barred, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
        return f"{name:.160} cannot be used: {error.strerror}; put that right, or move it away"
    return ""


def _damaged_records() -> Iterator[str]:
    """Yield a line for each JSON file of a result that is not what its stage wrote."""
    from clearnets.pipeline import paths
    from clearnets.pipeline.artifacts import MANIFEST, sha256
    from clearnets.pipeline.stage import rerun

    for folder in (paths.ARTIFACTS, paths.WORK, paths.results(""), paths.FIGURES):
        for manifest in sorted(folder.rglob(MANIFEST)):
            try:
                files = json.loads(manifest.read_bytes())["files"]
                listed = {name: entry["sha256"] for name, entry in files.items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                bad = [manifest]
            else:
                named = ((manifest.parent / name, digest) for name, digest in listed.items())
                bad = [
                    path
                    for path, digest in named
                    if path.suffix == ".json" and path.exists() and sha256(path) != digest
                ]
            for path in bad:
                again = f"`{command}`" if (command := rerun(path)) else "the same command"
                yield f"{path} is not what its stage wrote; delete it and run {again}"


def _no_space(error: Exception) -> bool:
    """Return whether a full disk is the cause of `error`.

    Libraries that write in native code (safetensors, tokenizers, torch, numpy) say so only in the
    message, or not at all.
    """
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
