"""Cache latent activations on disk in delphi's layout, batch by batch and always sparse.

Memory does not grow with the number of tokens. Each batch of rows becomes one shard in the work
folder: per hookpoint its active entries, sorted by latent, and how many each latent has. At the
end the counts give every latent its place in the final file, and the shards are copied there one
after the other (a counting sort on disk). A killed run goes on behind its last whole shard.

An entry is left out where its token is not counted (`TokenStore.counted`) and where its value is
not above zero **after rounding to float16**: zeros are not active, also those that float16 makes
(below 3e-8). A value beyond float16 (65504) is refused.

Shapes: B rows of a batch, S positions, N counted tokens of a batch, K active latents per token,
E entries, L latents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import numpy as safetensors
from safetensors import safe_open
from torch import Tensor

from clearnets import UserError
from clearnets.data.tokens import TokenStore
from clearnets.latents.readers import LatentReader, read_together
from clearnets.latents.store import STATS, ranges
from clearnets.pipeline.artifacts import Work, write_bytes, write_json
from clearnets.pipeline.runtime import progress

# The exponent of a float16 that is infinite or no number.
_INFINITE = np.uint16(0x7C00)


@dataclass(frozen=True)
class Entries:
    """Active entries of one hookpoint in one batch, sorted by (latent, row, position).

    Attributes:
        counts: (L,) uint32, entries of each latent.
        token: (E,) uint32, row * S + position, with rows counted from the batch's first.
        act: (E,) float16, above zero.
    """

    counts: np.ndarray
    token: np.ndarray
    act: np.ndarray


@dataclass(frozen=True)
class Target:
    """One set of latents that is cached.

    Attributes:
        reader: gives its latents.
        work: where to build: `out` becomes the unit, `state` holds the shards.
        config: what else goes into each `config.json`.
    """

    reader: LatentReader
    work: Work
    config: dict[str, Any]


def cache_split(
    targets: Sequence[Target],
    store: TokenStore,
    split: str,
    *,
    batch_size: int,
    latent_splits: int,
    label: str,
) -> None:
    """Cache one split for several sets of latents, with one forward pass of the model they share.

    Each set's files are the same as if it was cached alone. Writes per hookpoint
    `<first>_<last>.safetensors` for each range of latents and `config.json`, as delphi does, and
    one `stats.json`.

    Args:
        targets: what is cached, and where; it is resumed from the shards that are there.
        store: the tokens.
        split: name of the split.
        batch_size: rows per forward pass and shard.
        latent_splits: files per hookpoint.
        label: of the progress bar.

    Raises:
        UserError: an activation is not finite in float16.
    """
    tokens_RS = store.split(split)
    starts = range(0, len(tokens_RS), batch_size)
    with progress(label, tokens_RS.size, "tokens") as bar:
        for start in starts:
            batch_BS = np.asarray(tokens_RS[start : start + batch_size])
            open_ = [target for target in targets if not _shard(target, start).exists()]
            readers = [target.reader for target in open_]
            for target, entries in zip(open_, read_batch(readers, batch_BS, store)):
                write_bytes(_shard(target, start), _pack(entries))
            bar.advance(batch_BS.size)
    counted = sum(int(store.counted(part_BS).sum()) for _, part_BS in _batches(tokens_RS))
    for target in targets:
        shards = [(_shard(target, start), start) for start in starts]
        layers = {
            point: _write_point(target, point, shards, tokens_RS, latent_splits)
            for point in target.reader.hookpoints
        }
        stats = {"rows": len(tokens_RS), "tokens": counted, "hookpoints": layers}
        write_json(target.work.out / STATS, stats)


def _shard(target: Target, start: int) -> Path:
    return target.work.state / f"{start:09d}.safetensors"


def read_batch(
    readers: Sequence[LatentReader], tokens_BS: np.ndarray, store: TokenStore
) -> list[dict[str, Entries]]:
    """Return for each reader the entries of one batch, by hookpoint.

    Raises:
        UserError: an activation of a counted token is not finite in float16.
    """
    if not readers:
        return []
    token_N = np.flatnonzero(store.counted(tokens_BS)).astype(np.uint32)
    chosen_N = torch.from_numpy(token_N.astype(np.int64))
    found: list[dict[str, Entries]] = [{} for _ in readers]
    number = {id(reader): place for place, reader in enumerate(readers)}

    def take(reader: LatentReader, point: str, acts_BSK: Tensor, indices_BSK: Tensor) -> None:
        chosen = chosen_N.to(acts_BSK.device)
        acts_NK = acts_BSK.flatten(0, 1)[chosen]
        half_NK = acts_NK.half().cpu().numpy()
        if (half_NK.view(np.uint16) & _INFINITE == _INFINITE).any():
            raise UserError(_overflow(point, acts_NK))
        indices_NK = indices_BSK.flatten(0, 1)[chosen].cpu().numpy()
        found[number[id(reader)]][point] = sort_entries(
            token_N, half_NK, indices_NK, reader.num_latents
        )

    read_together(readers, torch.from_numpy(tokens_BS.astype(np.int64)), take)
    return found


def _overflow(point: str, acts_NK: Tensor) -> str:
    worst = acts_NK.nan_to_num(nan=torch.inf).abs().max().item()
    return (
        f"an activation of {point} is {worst:.4g} and does not fit in float16 (at most 65504); "
        "train with a lower learning rate or more regularisation, or scale the model's inputs down"
    )


def sort_entries(
    token_N: np.ndarray, half_NK: np.ndarray, indices_NK: np.ndarray, num_latents: int
) -> Entries:
    """Keep what is above zero and sort it by latent; tokens stay in order within a latent.

    Args:
        token_N: increasing token numbers, uint32.
        half_NK: values, float16.
        indices_NK: latents; an active one occurs once per token.
        num_latents: L.
    """
    # The bits of a float16 above zero are a positive integer, which is faster to compare.
    keep_NK = half_NK.view(np.int16) > 0
    act_E = half_NK[keep_NK]
    # numpy sorts 16-bit integers in linear time.
    small = num_latents <= 1 << 16
    latent_E = indices_NK[keep_NK].astype(np.uint16 if small else np.uint32)
    token_E = np.repeat(token_N, keep_NK.sum(axis=1))
    order_E = np.argsort(latent_E, kind="stable")
    counts_L = np.bincount(latent_E, minlength=num_latents).astype(np.uint32)
    assert len(counts_L) == num_latents, "a latent index lies beyond the last latent"
    return Entries(counts_L, token_E[order_E], act_E[order_E])


def _pack(entries: dict[str, Entries]) -> bytes:
    return safetensors.save(
        {
            f"{point}/{name}": getattr(part, name)
            for point, part in entries.items()
            for name in ("counts", "token", "act")
        }
    )


def _batches(rows_RS: np.ndarray, size: int = 256) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows_RS), size):
        yield start, np.asarray(rows_RS[start : start + size])


def _write_point(
    target: Target,
    point: str,
    shards: list[tuple[Path, int]],
    tokens_RS: np.ndarray,
    latent_splits: int,
) -> dict[str, int]:
    """Write the files of one hookpoint: delphi's locations, activations and tokens.

    Returns:
        How many entries and latents there are.
    """
    num_latents = target.reader.num_latents
    folder = target.work.out / point
    folder.mkdir(exist_ok=True)
    counts_L = np.zeros(num_latents, dtype=np.int64)
    for path, _ in shards:
        with safe_open(path, framework="numpy") as file:
            counts_L += file.get_tensor(f"{point}/counts")
    for first, last in ranges(num_latents, latent_splits):
        path = folder / f"{first}_{last}.safetensors"
        if not path.exists():
            _write_range(path, point, first, counts_L[first : last + 1], shards, tokens_RS)
    write_json(folder / "config.json", {**target.config, "num_latents": num_latents})
    active = int((counts_L > 0).sum())
    return {"entries": int(counts_L.sum()), "active_latents": active, "num_latents": num_latents}


def _write_range(
    path: Path,
    point: str,
    first: int,
    counts_l: np.ndarray,
    shards: list[tuple[Path, int]],
    tokens_RS: np.ndarray,
) -> None:
    """Write the file of as many latents from `first` on as there are `counts_l` of entries."""
    rows, ctx_len = tokens_RS.shape
    size_l = len(counts_l)
    place_l = np.concatenate([[0], np.cumsum(counts_l)])
    # delphi's rule: 16 bits where row and latent (counted from the file's first) fit.
    small = max(rows, ctx_len, size_l) <= 1 << 16
    location = np.dtype(np.uint16 if small else np.uint32)
    total = int(place_l[-1])

    def fill(arrays: dict[str, np.ndarray]) -> None:
        for start, part_BS in _batches(tokens_RS):
            arrays["tokens"][start : start + len(part_BS)] = part_BS
        next_l = place_l[:-1].copy()
        for shard, start_row in shards:
            with safe_open(shard, framework="numpy") as file:
                shard_counts_L = file.get_tensor(f"{point}/counts").astype(np.int64)
                low = int(shard_counts_L[:first].sum())
                here_l = shard_counts_L[first : first + size_l]
                size = int(here_l.sum())
                if not size:
                    continue
                token_E = file.get_slice(f"{point}/token")[low : low + size]
                act_E = file.get_slice(f"{point}/act")[low : low + size]
            # The shard's run of a latent goes behind what earlier shards left of that latent.
            shift_l = next_l - (np.cumsum(here_l) - here_l)
            place_E = np.repeat(shift_l, here_l) + np.arange(size)
            # numpy's division by one number is faster than its divmod.
            row_E = token_E // np.uint32(ctx_len)
            position_E = token_E - row_E * np.uint32(ctx_len)
            latent_E = np.repeat(np.arange(size_l, dtype=location), here_l)
            arrays["locations"][place_E, 0] = row_E + start_row
            arrays["locations"][place_E, 1] = position_E
            arrays["locations"][place_E, 2] = latent_E
            arrays["activations"][place_E] = act_E
            next_l += here_l

    shapes = {
        "tokens": (tokens_RS.dtype, (rows, ctx_len)),
        "locations": (location, (total, 3)),
        "activations": (np.dtype(np.float16), (total,)),
    }
    write_mapped(path, shapes, fill)


_SAFETENSORS_NAMES = {"uint16": "U16", "uint32": "U32", "float16": "F16"}


def write_mapped(
    path: Path,
    shapes: dict[str, tuple[np.dtype, tuple[int, ...]]],
    fill: Callable[[dict[str, np.ndarray]], None],
) -> None:
    """Write a safetensors file whose tensors are filled in place, through a memory map.

    safetensors itself writes only tensors that are in memory as a whole. The file appears under
    its name when it is complete.

    Args:
        path: the file.
        shapes: dtype and shape of each tensor.
        fill: gets the mapped arrays by name, all zeros, and fills them.
    """
    # Wider types first, as safetensors does, so that each tensor is aligned.
    names = sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        dtype, shape = shapes[name]
        begin, end = end, end + dtype.itemsize * int(np.prod(shape))
        kind = _SAFETENSORS_NAMES[dtype.name]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        # Real zeros, not a hole: on a full disk a write raises, but a mapped page kills.
        zeros = bytes(1 << 16)
        for start in range(0, end, len(zeros)):
            file.write(zeros[: end - start])
    if end:
        data = np.memmap(part, dtype=np.uint8, mode="r+", offset=8 + len(text), shape=(end,))
        arrays = {}
        for name, entry in header.items():
            begin, stop = entry["data_offsets"]
            dtype, shape = shapes[name]
            arrays[name] = data[begin:stop].view(dtype).reshape(shape)
        fill(arrays)
        data.flush()
    part.replace(path)
