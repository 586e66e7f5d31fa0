"""Write a deposit: a folder or tar file with all artifacts of a run and the source that made them.

The folder is a DVC remote, so that a clone that points at it gets the artifacts without training.
Its layout:

    README.md        how to use it
    LICENSE          of the project
    CITATION.cff
    MANIFEST.json    every output of every stage: its hash, its size, and where it is
    ro-crate-metadata.json    the same for archives, in RO-Crate's vocabulary
    SHA256SUMS       of all other files; `sha256sum -c SHA256SUMS` checks them
    source.bundle    the repository with its history; `git clone source.bundle` reads it
    files/md5/       the artifacts under their hashes, DVC's layout
"""

from __future__ import annotations

import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clearnets import UserError, config
from clearnets.pipeline.artifacts import sha256, write_json, write_text
from clearnets.pipeline.commands import git
from clearnets.pipeline.folders import made_whole
from clearnets.provenance import crate, dvc_cache, lockfile

SUMS = "SHA256SUMS"
SOURCE = "source.bundle"
CITATION = "CITATION.cff"
COPIED = ("LICENSE", CITATION)

README = """\
# {title}

What `dvc repro` made of commit {commit}, with the source: {outputs} outputs of {stages} stages.

```
sha256sum -c SHA256SUMS
git clone -b {branch} source.bundle clearnets
cd clearnets
make env                           # or: pip install -e . -c requirements.txt
source .venv/bin/activate
dvc remote add --local -d deposit "$(realpath ..)"
dvc pull{pull}
dvc status
clearnets verify
```

{left_out}No artifact is a pickle. `MANIFEST.json` says which stage wrote each, with DVC's hash; a
folder's hash is that of the list of its files. `ro-crate-metadata.json` says the same to programs.

## Licences

{licences}
"""


def run(out: Path, *, without: Sequence[str] = ()) -> int:
    """Write the deposit.

    Args:
        out: the new folder, or the new file where its name ends with `.tar`.
        without: stages whose outputs are left out, without a matrix's item: `cache`.

    Returns:
        Its size in bytes.

    Raises:
        UserError: the checkout is not as committed, an artifact is missing, no such stage, or there
            is no room.
    """
    if out.exists():
        raise UserError(f"{out} is already there; name a new one or remove it")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder; make it first")
    steps = lockfile.read_lock()
    known = dict.fromkeys(map(_kind, steps))
    for name in without:
        if name not in known:
            raise UserError(f"--without {name}: no such stage; there are: {', '.join(known)}")
    commit, branch = _commit()
    try:
        if out.suffix == ".tar":
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.") as temporary:
                folder, part = Path(temporary, out.stem), Path(temporary, out.name)
                _fill(folder, steps, without, commit, branch)
                _pack(folder, part)
                part.rename(out)
        else:
            with made_whole(out) as folder:
                _fill(folder, steps, without, commit, branch)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    return sum(file.stat().st_size for file in (out, *out.rglob("*")) if file.is_file())


def _kind(step: lockfile.Step) -> str:
    """Return a stage's name without its item."""
    return step.name.partition("@")[0]


def _fill(
    folder: Path, steps: Sequence[lockfile.Step], without: Sequence[str], commit: str, branch: str
) -> None:
    folder.mkdir(exist_ok=True)
    included = [step for step in steps if _kind(step) not in without]
    cached = _push(included, folder)
    outputs = []
    for step in steps:
        for made in step.writes:
            place = "git" if made.path not in cached else "deposit"
            if made.path in cached and step not in included:
                place = "left out"
            entry = {"path": made.path, "md5": made.md5, "size": made.size, "files": made.files}
            outputs.append({"stage": step.name, **entry, "place": place})
    # One thread packs the same bytes each time.
    source = str(folder.resolve() / SOURCE)
    git("-c", "pack.threads=1", "bundle", "create", "-q", source, "HEAD", branch)
    for name in COPIED:
        shutil.copyfile(name, folder / name)
    params = config.read_yaml(config.PARAMS)
    manifest = {"commit": commit, "experiment": params["experiment"], "outputs": outputs}
    write_json(folder / "MANIFEST.json", manifest)
    text = README.format(
        title=params["experiment"],
        commit=commit,
        branch=branch,
        outputs=len(outputs),
        stages=len(steps),
        pull=" --allow-missing" if without else "",
        left_out=f"Left out: the outputs of {', '.join(without)}.\n" if without else "",
        licences="\n".join(_licences(params)),
    )
    write_text(folder / "README.md", text)
    described = crate.metadata(
        config.read_yaml(Path(CITATION)),
        steps,
        experiment=params["experiment"],
        commit=commit,
        date=git("log", "-1", "--format=%cs", commit),
        source=SOURCE,
        files={
            "README.md": "How to use the deposit",
            "LICENSE": "The licence of the source and of what was made with it",
            CITATION: "How to cite it",
            "MANIFEST.json": "Every output of every stage, with its hash",
            SUMS: "Hashes of all other files",
        },
    )
    write_json(folder / crate.NAME, described)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sums = (f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    write_text(folder / SUMS, "".join(sums))


def _push(steps: Sequence[lockfile.Step], folder: Path) -> set[str]:
    """Copy the outputs of these stages that DVC caches into the folder.

    Returns:
        The paths of all outputs that DVC caches, of these stages or not.

    Raises:
        UserError: DVC's cache lacks some.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    # What the cache lacks is said below, in one line.
    logging.getLogger("dvc_data").setLevel(logging.ERROR)
    remote = {"remote": {"deposit": {"url": str(folder.resolve())}}}
    with Repo(config=remote) as repo:
        cached = {out.def_path: out.stage.addressing for out in repo.index.outs if out.use_cache}
        stages = sorted(set(cached.values()) & {step.name for step in steps})
        try:
            if stages:
                repo.push(targets=stages, remote="deposit")
        except DvcException as error:
            raise UserError(f"DVC cannot copy the artifacts: {error}") from None
    for step in steps:
        for made in step.writes:
            if made.path in cached and not dvc_cache.is_complete(made.md5, folder):
                raise UserError(
                    f"DVC's cache lacks {made.path}; run `dvc repro`, or leave it out by "
                    f"`--without {_kind(step)}`"
                )
    return set(cached)


def _licences(params: dict[str, Any]) -> Iterable[str]:
    """Yield a line for each work of others in the artifacts."""
    yield "- The source, the embedded corpus and what was trained on it: see `LICENSE`."
    data, model = params.get("data", {}), params.get("model", {})
    existing = params.get("coders", {}).get("existing", {})
    others = {
        "the corpus": data.get("corpus", {}),
        "the tokenizer": data.get("tokenizer", {}),
        "the model": model,
        "the sparse model": model.get("sparse") or {},
        **{f"coders of {name}": of or {} for name, of in existing.items()},
    }
    for what, of in others.items():
        name = of.get("name") or of.get("path")
        if name:
            yield f"- What follows from {what} {name}: under the terms that its source states."
    if params.get("embed"):
        yield (
            "- Similarities of explanations and windows follow from the model of sentences "
            f"{params['embed']['model']}: under the terms that its source states."
        )
    pictures = (params.get("generalize") or {}).get("tasks") or {}
    if "digits" in pictures or "grid" in pictures:
        yield (
            "- Classifiers of digits: scikit-learn's copy of the UCI test set of Alpaydin and "
            "Kaynak (CC BY 4.0)."
        )


def _commit() -> tuple[str, str]:
    """Return the commit and branch that are checked out.

    Raises:
        UserError: there are none, or a tracked file is not as committed.
    """
    if git("status", "--porcelain", "--untracked-files=no"):
        raise UserError("tracked files differ from the last commit; commit or restore them first")
    branch = git("branch", "--show-current")
    if not branch:
        raise UserError("no branch is checked out; `git switch` to one first")
    return git("rev-parse", "HEAD"), branch


def _pack(folder: Path, out: Path) -> None:
    """Write the folder as one tar file, with the same bytes for the same content."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(out, "w") as archive:
        archive.add(folder, folder.name, recursive=False, filter=plain)
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder.parent), recursive=False, filter=plain)
