"""Labelled pictures: the embedded digits, Parquet files, or a dataset of the hub.

No picture is in both the training and the test set, or repeated in one of them: the first of equal
pictures is used. Nothing is augmented.

Shapes: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clearnets import UserError
from clearnets.config import Digits, HubPictures, LocalPictures
from clearnets.data import files, hub
from clearnets.pipeline.runtime import seed_for

if TYPE_CHECKING:
    import pyarrow as pa

SETS = ("train", "test")


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size with their classes.

    Attributes:
        pixels_NCHW: uint8.
        labels_N: int64, from 0.
    """

    pixels_NCHW: np.ndarray
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, rows: np.ndarray) -> Pictures:
        """Return the pictures at the given indices."""
        return Pictures(self.pixels_NCHW[rows], self.labels_N[rows])


@dataclass(frozen=True)
class Divided:
    """A training set and a test set.

    Attributes:
        train: the pool that training sets are drawn from.
        test: disjoint from it.
        repeats: how many repeated pictures were left out of the two.
    """

    train: Pictures
    test: Pictures
    repeats: int

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train.labels_N.max()) + 1


def load(source: Digits | LocalPictures | HubPictures) -> Divided:
    """Return the pictures that a config names.

    Raises:
        UserError: one line that names the source and the cure.
    """
    if isinstance(source, Digits):
        return _digits(source)
    is_local = isinstance(source, LocalPictures)
    where = f"pictures of {source.path}" if is_local else f"hub dataset {source.name}"
    train, test = (_decoded(_read(source, name), f"{where}, {name}") for name in SETS)
    if train.pixels_NCHW.shape[1:] != test.pixels_NCHW.shape[1:]:
        raise UserError(f"{where}: those of train and test differ in size; make them alike")
    divided = distinct(train, test)
    if not len(divided.test):
        raise UserError(f"{where}: every picture of test is in train too; give others to test on")
    unknown = np.setdiff1d(divided.test.labels_N, divided.train.labels_N)
    if len(unknown):
        raise UserError(f"{where}: label {unknown[0]} of test is not in train; correct it")
    return divided


def fingerprints(source: Digits | LocalPictures | HubPictures) -> dict[str, str]:
    """Return the SHA-256 of each file of local pictures, by its path below their folder."""
    if not isinstance(source, LocalPictures):
        return {}
    found = (file for name in SETS for file in _files(source, name))
    return files.hashes(Path(source.path), found)


def distinct(train: Pictures, test: Pictures) -> Divided:
    """Remove repeats from both sets, and the pictures of `train` from `test`."""
    seen: set[bytes] = set()
    parts = []
    for pictures in (train, test):
        rows = []
        for row, pixels_CHW in enumerate(pictures.pixels_NCHW):
            key = pixels_CHW.tobytes()
            if key not in seen:
                seen.add(key)
                rows.append(row)
        parts.append(pictures.take(np.array(rows, np.int64)))
    unique = sum(map(len, parts))
    return Divided(parts[0], parts[1], repeats=len(train) + len(test) - unique)


# Draws


def balanced(labels_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw the indices of `count` pictures, equally many of each class, up to one.

    A smaller draw with the same seed is the beginning of a larger one.

    Raises:
        UserError: there are fewer pictures.
    """
    if count > len(labels_N):
        raise UserError(f"{count} training pictures are asked for; there are {len(labels_N)}")
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(len(labels_N))
    rank_N = np.empty(len(labels_N), np.int64)
    for label in np.unique(labels_N):
        mine = order_N[labels_N[order_N] == label]
        rank_N[mine] = np.arange(len(mine))
    # All first ones of a class, then all second ones, each in the order of the permutation.
    return order_N[np.argsort(rank_N[order_N], kind="stable")][:count]


def with_noise(labels_N: np.ndarray, share: float, classes: int, seed: int) -> np.ndarray:
    """Replace a share of the labels by other classes, all equally likely.

    Returns:
        A copy in which exactly `round(share * N)` labels differ.
    """
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(labels_N))[: round(share * len(labels_N))]
    noisy_N = labels_N.copy()
    noisy_N[wrong] = (labels_N[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return noisy_N


def moments(pixels_NCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each channel's pixels, (C,)."""
    means, deviations = [], []
    for channel in range(pixels_NCHW.shape[1]):
        # From the counts of each value: exact, and without a float64 copy of all pixels.
        counts = np.bincount(pixels_NCHW[:, channel].reshape(-1), minlength=256)
        values = np.arange(len(counts))
        mean = (counts * values).sum() / counts.sum()
        means.append(mean)
        deviations.append(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum()))
    return np.array(means), np.array(deviations)


def standardized(pixels_NCHW: np.ndarray, mean_C: np.ndarray, std_C: np.ndarray) -> np.ndarray:
    """Return (pixels - mean) / deviation per channel, as float32.

    A constant channel is only centred.
    """
    scale_C = np.where(std_C > 0, std_C, 1)
    mean_C11, scale_C11 = (x[:, None, None].astype(np.float32) for x in (mean_C, scale_C))
    return (pixels_NCHW - mean_C11) / scale_C11


# The embedded digits


def _digits(source: Digits) -> Divided:
    from sklearn.datasets import load_digits

    pixels_NP, labels_N = load_digits(return_X_y=True)
    pixels_NCHW = np.asarray(pixels_NP, np.uint8).reshape(-1, 1, 8, 8)
    every = Pictures(pixels_NCHW, np.asarray(labels_N, np.int64))
    order_N = np.random.default_rng(seed_for(source.seed, "test")).permutation(len(every))
    if source.test >= len(every):
        raise UserError(f"there are {len(every)} digits; test on fewer than {source.test}")
    divided = distinct(every.take(order_N[source.test :]), every.take(order_N[: source.test]))
    assert divided.classes == 10
    return divided


# Files and the hub


def _files(source: LocalPictures, name: str) -> list[Path]:
    root = Path(source.path)
    if not root.is_dir():
        raise UserError(f"pictures {root}: no such folder; correct its path")
    if not any(root.rglob("*.parquet")):
        raise UserError(f"pictures {root}: no Parquet file in it; name a folder that holds some")
    splits = files.layout(root)
    found = [file for file in splits.get(name, []) if file.suffix == ".parquet"]
    if not found:
        there = ", ".join(sorted(splits))
        raise UserError(f"pictures {root}: no split {name!r}, only {there}; add {name}.parquet")
    return found


def _read(source: LocalPictures | HubPictures, name: str) -> Iterator[tuple[bytes, int]]:
    if isinstance(source, HubPictures):
        table = hub.load(source, name).with_format("arrow")[:]
        yield from _records(table, f"hub dataset {source.name}", source)
        return
    import pyarrow.parquet as pq

    for file in _files(source, name):
        with files.readable_parquet(file):
            table = pq.read_table(file)
        yield from _records(table, f"{file}", source)


def _records(
    table: pa.Table, where: str, source: LocalPictures | HubPictures
) -> Iterator[tuple[bytes, int]]:
    """Yield encoded pictures, in the table as datasets stores them, with their labels."""
    import pyarrow as pa

    for key, is_right, what in (
        ("image_column", pa.types.is_struct, "pictures"),
        ("label_column", pa.types.is_integer, "whole numbers"),
    ):
        column = getattr(source, key)
        if column not in table.column_names:
            listed = ", ".join(table.column_names)
            raise UserError(f"{where} has no column {column!r}; it has {listed}: set {key}")
        if not is_right(table.schema.field(column).type):
            raise UserError(f"{where}: {column!r} holds no {what}; set {key}")
    for image, label in zip(table[source.image_column], table[source.label_column]):
        yield image["bytes"].as_py(), label.as_py()


def _decoded(records: Iterable[tuple[bytes | None, int | None]], where: str) -> Pictures:
    """Decode pictures, grey ones to one channel, all others to three."""
    from PIL import Image, UnidentifiedImageError

    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for row, (data, label) in enumerate(records, 1):
        try:
            with Image.open(io.BytesIO(data or b"")) as image:
                grey = image.mode in ("1", "L")
                found = np.asarray(image.convert("L" if grey else "RGB"))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise UserError(
                f"{where}, row {row}: no readable picture ({error}); remove it"
            ) from None
        pixels_CHW = found[None] if grey else found.transpose(2, 0, 1)
        if pixels and pixels_CHW.shape != pixels[0].shape:
            raise UserError(
                f"{where}, row {row}: the picture has the shape {pixels_CHW.shape}, the first "
                f"{pixels[0].shape} (channels, rows, columns); make all alike"
            )
        if label is None or label < 0:
            raise UserError(f"{where}, row {row}: label {label} is not a class; remove the row")
        pixels.append(pixels_CHW)
        labels.append(label)
    if not pixels:
        raise UserError(f"{where}: there are no pictures; give some")
    return Pictures(np.stack(pixels), np.array(labels, np.int64))
