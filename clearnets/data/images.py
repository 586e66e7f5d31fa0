"""Labelled pictures: the embedded digits, Parquet files, or a dataset of the hub.

No picture is in both the training and the test set, or repeated in one of them: the first of equal
pictures is used. Nothing is augmented.

Shapes: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearnets import UserError
from clearnets.config import Digits, HubPictures, LocalPictures
from clearnets.data import files, hub
from clearnets.pipeline.artifacts import sha256
from clearnets.pipeline.runtime import seed_for

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
    if isinstance(source, LocalPictures):
        where = f"pictures of {source.path}"
        sets = [_decoded(_local(source, name), f"{where}, {name}") for name in SETS]
    else:
        where = f"hub dataset {source.name}"
        sets = [_decoded(_hub(source, name), f"{where}, {name}") for name in SETS]
    train, test = sets
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
    root = Path(source.path)
    return {
        file.relative_to(root).as_posix(): sha256(file)
        for name in SETS
        for file in _files(source, name)
    }


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


# Files


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


def _local(source: LocalPictures, name: str) -> Iterator[tuple[bytes, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in _files(source, name):
        with files.readable_parquet(file):
            table = pq.ParquetFile(file)
            _check_columns(f"{file}", table.schema_arrow.names, source)
            for batch in table.iter_batches(columns=[source.image_column, source.label_column]):
                images, labels = (
                    batch.column(batch.schema.get_field_index(column))
                    for column in (source.image_column, source.label_column)
                )
                if not (pa.types.is_struct(images.type) and pa.types.is_integer(labels.type)):
                    raise UserError(
                        f"{file}: {source.image_column!r} must hold pictures as datasets writes "
                        f"them and {source.label_column!r} whole numbers; correct the columns"
                    )
                for image, label in zip(images, labels):
                    yield image["bytes"].as_py(), label.as_py()


def _check_columns(where: str, names: Sequence[str], source: LocalPictures | HubPictures) -> None:
    for key in ("image_column", "label_column"):
        column = getattr(source, key)
        if column not in names:
            listed = ", ".join(names)
            raise UserError(f"{where} has no column {column!r}; it has {listed}: set {key}")


# The hub


def _hub(source: HubPictures, name: str) -> Iterator[tuple[bytes, int]]:
    import datasets

    dataset = hub.load(source, name)
    _check_columns(f"hub dataset {source.name}", dataset.column_names, source)
    image, label = source.image_column, source.label_column
    if not isinstance(dataset.features[image], datasets.Image):
        raise UserError(f"hub dataset {source.name}: {image!r} holds no pictures; set image_column")
    # Not decoded here: decoding is the same for all sources.
    for record in dataset.cast_column(image, datasets.Image(decode=False)):
        if not isinstance(record[label], int):
            raise UserError(
                f"hub dataset {source.name}: {label!r} holds no whole numbers; set label_column"
            )
        yield record[image]["bytes"], record[label]


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
