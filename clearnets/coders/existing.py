"""Load coders that others trained with sparsify, from a folder or the Hugging Face hub.

Of each hookpoint's folder only `cfg.json` and `sae.safetensors` are read. Nothing here but
`take_over` needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets import UserError
from clearnets.config import Existing
from clearnets.pipeline.artifacts import check_unchanged, sha256
from clearnets.pipeline.hub_client import detect_offline, is_id, one_line_errors

if TYPE_CHECKING:
    from sparsify import SparseCoder

    from clearnets.families import FamilySpec

CFG = "cfg.json"
WEIGHTS = "sae.safetensors"


def locate(source: Existing) -> Path:
    """Return the folder of the coders; those on the hub are downloaded to its cache.

    Raises:
        UserError: no such folder or hub id, or the hub is out of reach.
    """
    folder = Path(source.name)
    if folder.is_dir():
        if source.revision is not None:
            raise UserError(f"{source.name} is a folder; remove its revision, which is for hub ids")
        return folder
    if not is_id(source.name):
        raise UserError(f"coders.existing: there is no folder {source.name}")
    return _snapshot(source)


def _snapshot(source: Existing) -> Path:
    import huggingface_hub as hub

    wanted = [CFG, WEIGHTS, "config.json", f"*/{CFG}", f"*/{WEIGHTS}"]
    with (
        one_line_errors(source.name, source.revision, at="coders.existing", what="coders"),
        detect_offline() as offline,
    ):
        return Path(
            hub.snapshot_download(
                source.name,
                revision=source.revision,
                allow_patterns=wanted,
                local_files_only=offline,
            )
        )


def identity(source: Existing) -> dict[str, str]:
    """Return what identifies the coders: hashes of a folder's files, or a hub id's commit.

    Raises:
        UserError: as `locate`.
    """
    root = locate(source)
    if Path(source.name).is_dir():
        files = [folder / name for folder in _folders(root).values() for name in (CFG, WEIGHTS)]
        return {f.relative_to(root).as_posix(): sha256(f) for f in files if f.is_file()}
    # The hub's cache keeps a snapshot in a folder named by its commit.
    return {"commit": root.name}


def checked_identity(source: Existing, experiment: str) -> dict[str, str]:
    """Return `identity`, after a comparison with the recorded one if there is one.

    Raises:
        UserError: as `locate`; or the coders have changed since.
    """
    found = identity(source)
    check_unchanged(source.name, found, source.fingerprint, experiment=experiment)
    return found


def _folders(root: Path) -> dict[str, Path]:
    """Return the folders that hold a coder, by name."""
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{CFG}"))}


def take_over(
    source: Existing, family: FamilySpec, hookpoints: Sequence[str], *, d_in: int
) -> dict[str, SparseCoder]:
    """Return the coder of each hookpoint, in float32 on the CPU.

    Args:
        source: where they are.
        family: what they have to be: SAEs, transcoders or skip-transcoders.
        hookpoints: the modules, relative to the base model; a name on disk may have the base
            model's name before it.
        d_in: width of what the coders read and write.

    Raises:
        UserError: one is missing, damaged, of another kind or width, or they differ in size.
    """
    root = locate(source)
    there = _folders(root)
    if not there:
        raise UserError(f"{source.name} holds no coders, that is, no HOOKPOINT/{CFG}")
    coders = {}
    for point in hookpoints:
        names = [name for name in there if name == point or name.endswith(f".{point}")]
        if not names:
            listed = ", ".join(there)
            raise UserError(f"{source.name} has no coder for {point}; it has: {listed}")
        coders[point] = _load(there[names[0]], family, d_in, _of_the_run(root))
    sizes = {(coder.num_latents, coder.cfg.k) for coder in coders.values()}
    if len(sizes) > 1:
        listed = ", ".join(f"{latents} with k {k}" for latents, k in sorted(sizes))
        raise UserError(f"the coders of {source.name} differ in their latents: {listed}")
    return coders


def _load(folder: Path, family: FamilySpec, d_in: int, run: dict[str, Any]) -> SparseCoder:
    from safetensors import SafetensorError

    from clearnets.coders.library import coder_class

    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}; weights in any other format are not read")
    # Before transcoders had it in their own file, the kind stood in the run's.
    cfg = {key: run[key] for key in ("transcode",) if key in run} | _json(folder / CFG)
    kinds = {
        "transcode": family.transcode,
        "skip_connection": family.skip,
        "activation": family.selection,
    }
    for key, wanted in kinds.items():
        if cfg.get(key, wanted) != wanted:
            raise UserError(f"{folder} is no {family.name}: its {CFG} says {key} {cfg[key]}")
    if cfg.get("d_in") != d_in:
        raise UserError(f"{folder} reads width {cfg.get('d_in')}, the model's is {d_in}")
    try:
        coder = coder_class().load_from_disk(folder)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is damaged ({error}); restore it") from None
    except Exception as error:  # Whatever sparsify meets in a file that is not its own.
        line = " ".join(str(error).split())
        raise UserError(f"sparsify cannot load {folder}: {line:.160}") from None
    coder.cfg.transcode = kinds["transcode"]
    return coder.float()


def _of_the_run(root: Path) -> dict[str, Any]:
    return _json(root / "config.json") if (root / "config.json").is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); restore it") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no mapping; restore it")
    return values
