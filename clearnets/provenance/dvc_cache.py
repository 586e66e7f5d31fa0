"""Where a recorded output can be had from: DVC's cache, or git.

Both know the files of a folder, of which `dvc.lock` has one hash. They are believed where they have
that hash.
"""

from __future__ import annotations

import configparser
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from clearnets.provenance.lockfile import Entry, md5_of_file, md5_of_listing

# The name of an output that is itself a file, in the list of its files.
ITSELF = ""


def stored(md5: str, folder: Path) -> Path:
    """Where a cache or a remote of DVC's keeps what has this hash, if it does."""
    return folder / "files/md5" / md5[:2] / md5[2:]


def whole(md5: str, folder: Path) -> bool:
    """Whether a file, or the list of a folder's files and all of them, are in a cache or remote."""
    path = stored(md5, folder)
    if not path.exists() or not md5.endswith(".dir"):
        return path.exists()
    return all(whole(file["md5"], folder) for file in json.loads(path.read_text(encoding="utf-8")))


def cache(root: Path = Path()) -> Path:
    """The folder of DVC's cache."""
    # A % in a path is a %.
    config = configparser.ConfigParser(interpolation=None)
    config.read([root / ".dvc/config", root / ".dvc/config.local"])
    # As DVC reads it, a relative folder is relative to the file that names it.
    return root / ".dvc" / config.get("cache", "dir", fallback="cache").strip()


def cached(md5: str, root: Path = Path()) -> Path:
    """Where DVC's cache keeps what has this hash, if it does."""
    return stored(md5, cache(root))


def damaged(md5: str, root: Path = Path()) -> bool:
    """Whether DVC's cache holds something else under this hash: a file that was changed in place is
    changed there, too, where it is a hard link."""
    path = cached(md5, root)
    return path.exists() and md5_of_file(path) != md5.removesuffix(".dir")


def in_cache(entry: Entry, root: Path = Path()) -> dict[str, str] | None:
    """MD5 of each file of an output by its path in it, from DVC's cache; None if it has none, or
    its list of them is damaged."""
    path = cached(entry.md5, root)
    if not path.exists() or (entry.is_folder and damaged(entry.md5, root)):
        return None
    if not entry.is_folder:
        return {ITSELF: entry.md5}
    return {file["relpath"]: file["md5"] for file in json.loads(path.read_text(encoding="utf-8"))}


def in_git(entry: Entry, root: Path = Path()) -> dict[str, str] | None:
    """The same from the last commit; None if the output is not there as recorded."""
    command = ["git", "archive", "--format=tar", "HEAD", "--", entry.path]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if done.returncode:
        return None
    files = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                name = member.name.removeprefix(entry.path).removeprefix("/")
                files[name] = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    there = md5_of_listing(files) if entry.is_folder else files.get(ITSELF)
    return files if there == entry.md5 else None
