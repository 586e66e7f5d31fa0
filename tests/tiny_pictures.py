"""Folders of small pictures, as datasets writes them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clearnets.config import LocalPictures


def local(folder: Path, **options) -> LocalPictures:
    """Settings that name a folder."""
    return LocalPictures(kind="local", path=str(folder), **options)


def pixels(count: int, seed: int, *, colours: bool = True) -> np.ndarray:
    """Pictures of 6 by 6 pixels of noise, uint8."""
    shape = (count, 6, 6, 3) if colours else (count, 6, 6)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(
    path: Path,
    pictures: Sequence[np.ndarray | bytes | None] | np.ndarray,
    labels: Iterable[int | None] | None = None,
    image: str = "image",
) -> None:
    """One Parquet file; what is no array is taken for encoded bytes."""
    labels = range(len(pictures)) if labels is None else labels
    column = [
        {"bytes": _png(picture) if isinstance(picture, np.ndarray) else picture, "path": None}
        for picture in pictures
    ]
    path.parent.mkdir(exist_ok=True)
    features = datasets.Features({image: datasets.Image(), "label": datasets.Value("int64")})
    table = pa.table({image: column, "label": list(labels)}, schema=features.arrow_schema)
    pq.write_table(table, path)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
