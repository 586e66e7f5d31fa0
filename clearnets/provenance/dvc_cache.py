"""Look up recorded outputs in DVC's cache and in the last commit."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from clearnets.provenance.lockfile import Entry, md5_of_file, md5_of_listing

# In the listing of an output that is a single file, the name of that file.
SINGLE = ""


def object_path(md5: str, cache: Path) -> Path:
    """Return where a cache or remote of DVC stores the object with this hash."""
    return cache / "files/md5" / md5[:2] / md5[2:]


def is_complete(md5: str, cache: Path) -> bool:
    """Return whether a cache or remote holds a file, or a folder's listing and all its files."""
    path = object_path(md5, cache)
    if not path.exists() or not md5.endswith(".dir"):
        return path.exists()
    return all(is_complete(file["md5"], cache) for file in _read_listing(path))


def is_damaged(md5: str, cache: Path) -> bool:
    """Return whether the cached object has other content than its hash says.

    Where an output is a hard link, an edit in place also changes the cache.
    """
    path = object_path(md5, cache)
    return path.exists() and md5_of_file(path) != md5.removesuffix(".dir")


def cached_files(entry: Entry, cache: Path) -> dict[str, str] | None:
    """Return the MD5 of each file of an output by its path in it, from DVC's cache.

    None if the output is not cached, or the listing of its files is damaged.
    """
    path = object_path(entry.md5, cache)
    if not path.exists() or (entry.is_folder and is_damaged(entry.md5, cache)):
        return None
    if not entry.is_folder:
        return {SINGLE: entry.md5}
    return {file["relpath"]: file["md5"] for file in _read_listing(path)}


def committed_files(entry: Entry) -> dict[str, str] | None:
    """Return the same from the last commit; None if the output is not there as recorded."""
    command = ["git", "archive", "--format=tar", "HEAD", "--", entry.path]
    if not shutil.which("git"):
        return None
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        return None
    files = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                name = member.name.removeprefix(entry.path).removeprefix("/")
                files[name] = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    found = md5_of_listing(files) if entry.is_folder else files.get(SINGLE)
    return files if found == entry.md5 else None


def _read_listing(path: Path) -> list[dict[str, str]]:
    return json.loads(path.read_text(encoding="utf-8"))
