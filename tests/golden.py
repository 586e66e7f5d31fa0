"""Compare all outputs of the pipeline at smoke size, at an earlier revision and now, byte by byte.

`python tests/golden.py REVISION` proves that a refactor changes no result: it runs the pipeline
with the code of the revision and with that of the working tree, uncommitted changes and new files
included, on this machine (processors differ in the last digits), and lists the outputs that differ.
It exits with 1 if there are any. All families of `params.yaml` take part.

Nothing of the package is imported, and only `clearnets exp smoke` is called, so that everything
else may change between the two. Outputs stay in the cache folder under the hash of the tree of
files that made them, so that no code is run twice. Remove that folder after libraries have changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
OUTPUTS = (
    *("artifacts", "paper/results", "paper/figures", "paper/tables"),
    "paper/clearnets.pdf",
)
# What records how an output was made, and no output.
LEFT_OUT = ("manifest.json", ".gitignore")
CONTEXT = 40
"""Characters of a line that are shown before and after the first that differs."""


def git(*words: str, at: Path, index: Path | None = None) -> str:
    """Return what a git command prints in the checkout `at`.

    Args:
        index: the index file to use instead of the checkout's own.
    """
    environment = {**os.environ, **({"GIT_INDEX_FILE": str(index)} if index else {})}
    done = subprocess.run(
        ["git", *words], cwd=at, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"`git {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


def present_tree(checkout: Path) -> str:
    """Return the hash of the tree of the files that git does not ignore, committed or not."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        shutil.copyfile(checkout / git("rev-parse", "--git-path", "index", at=checkout), index)
        git("add", "-A", at=checkout, index=index)
        return git("write-tree", at=checkout, index=index)


def outputs_of(tree: str, cache: Path) -> Path:
    """Return the folder with the outputs of a tree's code; run the pipeline unless it is there."""
    made = cache / tree
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            clone, part = Path(folder, "clone"), Path(folder, "outputs")
            check_out(tree, clone)
            run_pipeline(clone, log=cache / f"{tree}.log")
            for name in OUTPUTS:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (clone / ".clearnets/exp/smoke" / name).rename(part / name)
            part.rename(made)
    return made


def check_out(tree: str, clone: Path) -> None:
    """Clone the repository and check out a commit of the tree."""
    author = ("-c", "user.name=golden", "-c", "user.email=golden@localhost")
    commit = git(*author, "commit-tree", tree, "-m", "The state that is run", at=ROOT)
    git("clone", "-q", "--shared", "--no-checkout", str(ROOT), str(clone), at=ROOT)
    git("checkout", "-q", "--detach", commit, at=clone)


def run_pipeline(clone: Path, log: Path) -> None:
    """Run the smoke experiment in a clone, with its code, all families and a single thread."""
    overlay = clone / "experiments/smoke.yaml"
    values = YAML().load(overlay)
    # Without its own lists, the experiment has the models and families of the default.
    for key in ("families", "models"):
        values.pop(key, None)
    YAML().dump(values, overlay)
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "clearnets", "exp", "smoke"]
    with log.open("w") as file:
        done = subprocess.run(
            command, cwd=clone, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        last = "\n".join(log.read_text().splitlines()[-15:])
        sys.exit(f"{last}\n`clearnets exp smoke` failed; its output is in {log}")


def differences(before: Path, after: Path, ignored: Sequence[str] = ()) -> Iterator[str]:
    """Yield one line for each output that is not the same in two folders.

    Args:
        ignored: patterns of paths, relative to the folders, that are not compared.
    """
    old, new = (_files(folder, ignored) for folder in (before, after))
    for name in sorted(old | new):
        if name not in new:
            yield f"{name}: is missing"
        elif name not in old:
            yield f"{name}: is new"
        elif (before / name).read_bytes() != (after / name).read_bytes():
            yield f"{name}: {_first_difference(before / name, after / name)}"


def _files(folder: Path, ignored: Sequence[str]) -> set[str]:
    files = {path for path in folder.rglob("*") if path.is_file() and path.name not in LEFT_OUT}
    names = {path.relative_to(folder).as_posix() for path in files}
    return {name for name in names if not any(fnmatch(name, pattern) for pattern in ignored)}


def _first_difference(before: Path, after: Path) -> str:
    """Return the first differing line of two texts, or the sizes of two binary files."""
    try:
        old, new = (path.read_text(encoding="utf-8").split("\n") for path in (before, after))
    except UnicodeDecodeError:
        return f"{before.stat().st_size} bytes became {after.stat().st_size}, of other content"
    pairs = enumerate(zip_longest(old, new, fillvalue=""), 1)
    number, lines = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    differing = (i for i, (one, other) in enumerate(zip(*lines)) if one != other)
    start = max(0, next(differing, min(map(len, lines))) - CONTEXT)
    shown = [line[start : start + 2 * CONTEXT] for line in lines]
    return f"line {number}: {shown[0]!r} became {shown[1]!r}"


def main() -> None:
    """Run both states, print the outputs that differ, and exit with 1 if any does."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("revision", help="the earlier state: a commit, branch or tag")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir(), "clearnets-golden"),
        help="where outputs are kept between calls (default: %(default)s)",
    )
    parser.add_argument(
        "--ignore",
        metavar="GLOB",
        action="append",
        default=[],
        help="outputs that are meant to differ, such as 'artifacts/train/*'; may be repeated",
    )
    asked = parser.parse_args()
    trees = (git("rev-parse", f"{asked.revision}^{{tree}}", at=ROOT), present_tree(ROOT))
    before, after = (outputs_of(tree, asked.cache.resolve()) for tree in trees)
    print(f"{asked.revision}: {before}\nthe working tree: {after}")
    found = list(differences(before, after, asked.ignore))
    print("\n".join(found) if found else "All outputs are the same.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
