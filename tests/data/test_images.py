"""Pictures: read as datasets reads them, divided without overlap, drawn and mislabelled exactly."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tiny_pictures import local, pixels, write

from clearnets import UserError
from clearnets.config import Digits, HubPictures, LocalPictures
from clearnets.data import images

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("datasets_cache")

SAMPLES = Path(os.environ.get("CLEARNETS_TEST_DATA", "absent")).resolve()


@pytest.fixture
def folder(tmp_path):
    """Seven coloured pictures to train on and four to test on."""
    write(tmp_path / "pictures" / "train.parquet", pixels(7, seed=1))
    write(tmp_path / "pictures" / "test.parquet", pixels(4, seed=2))
    return tmp_path / "pictures"


def error(source):
    with pytest.raises(UserError) as caught:
        images.load(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_sets(divided):
    return [{p.tobytes() for p in part.pixels_NCHW} for part in (divided.train, divided.test)]


def test_a_folder_is_read_as_datasets_reads_it(folder):
    found = images.load(local(folder))
    for name, part in (("train", found.train), ("test", found.test)):
        for row, record in enumerate(datasets.load_dataset(str(folder), split=name)):
            wanted = np.asarray(record["image"]).transpose(2, 0, 1)
            np.testing.assert_array_equal(part.pixels_NCHW[row], wanted)
            assert part.labels_N[row] == record["label"]
    assert (len(found.train), len(found.test), found.classes, found.repeats) == (7, 4, 7, 0)


def test_a_dataset_by_id_gives_what_its_folder_gives(folder):
    # A folder stands for the hub: datasets loads both by the same code.
    by_id = images.load(HubPictures(kind="hub", name=str(folder)))
    for ours, theirs in zip(
        (by_id.train, by_id.test),
        (images.load(local(folder)).train, images.load(local(folder)).test),
    ):
        np.testing.assert_array_equal(ours.pixels_NCHW, theirs.pixels_NCHW)
        np.testing.assert_array_equal(ours.labels_N, theirs.labels_N)


def test_grey_pictures_have_one_channel(tmp_path):
    grey = pixels(3, seed=1, colours=False)
    write(tmp_path / "grey" / "train.parquet", grey, image="img")
    write(tmp_path / "grey" / "test.parquet", pixels(2, seed=2, colours=False), image="img")
    found = images.load(local(tmp_path / "grey", image_column="img"))
    np.testing.assert_array_equal(found.train.pixels_NCHW[:, 0], grey)


def test_no_picture_is_in_both_sets_and_none_twice(tmp_path):
    some = pixels(6, seed=1)
    write(tmp_path / "p" / "train.parquet", [*some[:4], some[0]], labels=[0, 1, 2, 3, 9])
    write(
        tmp_path / "p" / "test.parquet", [some[3], some[4], some[5], some[4]], labels=[0, 1, 2, 3]
    )
    found = images.load(local(tmp_path / "p"))
    np.testing.assert_array_equal(found.train.pixels_NCHW, some[:4].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found.test.pixels_NCHW, some[4:].transpose(0, 3, 1, 2))
    assert (found.train.labels_N.tolist(), found.test.labels_N.tolist()) == ([0, 1, 2, 3], [1, 2])
    assert found.repeats == 3


def test_the_embedded_digits():
    found = images.load(Digits(kind="digits", test=300))
    every = {p.astype(np.uint8).tobytes(): t for p, t in zip(*load_digits(return_X_y=True))}
    train, test = as_sets(found)
    assert not train & test
    assert train | test == set(every)
    assert len(found.test) == len(test) == 300 - (1797 - len(every) - (1497 - len(train)))
    for part in (found.train, found.test):
        assert [every[p.tobytes()] for p in part.pixels_NCHW] == part.labels_N.tolist()
    other = images.load(Digits(kind="digits", test=300, seed=1))
    assert as_sets(other) != [train, test]
    assert "test on fewer than 1797" in error(Digits(kind="digits", test=1797))


def test_a_training_set_is_balanced_and_a_part_of_a_larger_one():
    labels = np.random.default_rng(0).choice(10, 500, p=[0.19, *[0.09] * 9])
    small, large = (images.balanced(labels, n, seed=3) for n in (47, 200))
    assert small.tolist() == large[:47].tolist()
    assert len(set(large.tolist())) == 200
    assert sorted(Counter(labels[small].tolist()).values()) == [4] * 3 + [5] * 7
    assert set(images.balanced(labels, 500, seed=3).tolist()) == set(range(500))
    assert small.tolist() != images.balanced(labels, 47, seed=4).tolist()
    with pytest.raises(UserError, match="501 training pictures are asked for; there are 500"):
        images.balanced(labels, 501, seed=3)


@pytest.mark.parametrize(("share", "wrong"), [(0.0, 0), (0.1, 30), (0.333, 100), (1.0, 300)])
def test_label_noise_has_the_exact_share(share, wrong):
    labels = np.arange(300) % 10
    noisy = images.with_noise(labels, share, 10, seed=5)
    assert (noisy != labels).sum() == wrong
    assert set(noisy.tolist()) <= set(range(10))
    assert noisy.tolist() == images.with_noise(labels, share, 10, seed=5).tolist()
    assert labels.tolist() == (np.arange(300) % 10).tolist()


def test_wrong_labels_are_all_as_likely():
    noisy = images.with_noise(np.full(9000, 4), 1.0, 10, seed=0)
    counts = Counter(noisy.tolist())
    assert set(counts) == set(range(10)) - {4}
    # Each is binomial with a deviation of 30.
    assert all(abs(count - 1000) < 4 * 30 for count in counts.values())


def test_pixels_are_standardized_by_channel():
    some = pixels(50, seed=1).transpose(0, 3, 1, 2).copy()
    some[:, 2] = 7
    mean, std = images.moments(some)
    np.testing.assert_allclose(mean, some.astype(float).mean((0, 2, 3)))
    np.testing.assert_allclose(std, some.astype(float).std((0, 2, 3)))
    found = images.standardized(some, mean, std)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :2].mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found[:, :2].std((0, 2, 3)), 1, rtol=1e-5)
    assert not found[:, 2].any()


def test_files_are_known_by_their_content(folder):
    before = images.fingerprints(local(folder))
    assert sorted(before) == ["test.parquet", "train.parquet"]
    write(folder / "test.parquet", pixels(4, seed=3))
    after = images.fingerprints(local(folder))
    assert [name for name in before if before[name] != after[name]] == ["test.parquet"]
    assert images.fingerprints(Digits(kind="digits", test=1)) == {}


def test_mistakes_are_one_line(folder, tmp_path):
    assert "no such folder" in error(local(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "no Parquet file in it" in error(local(tmp_path / "empty"))
    message = "train.parquet has no column 'img'; it has image, label: set image_column"
    assert message in error(local(folder, image_column="img"))
    for named in ({"kind": "local", "path": str(folder)}, {"kind": "hub", "name": str(folder)}):
        for columns, message in (
            ({"label_column": "image"}, "'image' holds no whole numbers; set label_column"),
            ({"image_column": "label"}, "'label' holds no pictures; set image_column"),
            ({"label_column": "class"}, "no column 'class'; it has image, label: set label_column"),
        ):
            kind = LocalPictures if named["kind"] == "local" else HubPictures
            assert message in error(kind(**named, **columns))


def test_pictures_that_cannot_be_used_are_named(folder):
    train = folder / "train.parquet"
    write(train, [pixels(1, seed=1)[0], b"no picture"])
    assert "train, row 2: no readable picture" in error(local(folder))
    write(train, [pixels(1, seed=1)[0], None])
    assert "train, row 2: no readable picture" in error(local(folder))
    write(train, [pixels(1, seed=1)[0], np.zeros((5, 6, 3), np.uint8)])
    assert "row 2: the picture has the shape (3, 5, 6), the first (3, 6, 6)" in error(local(folder))
    write(train, pixels(2, seed=1), labels=[0, -1])
    assert "row 2: label -1 is not a class" in error(local(folder))
    write(train, pixels(2, seed=1), labels=[0, None])
    assert "row 2: label None is not a class" in error(local(folder))
    write(train, [])
    assert "train: there are no pictures" in error(local(folder))
    write(train, pixels(2, seed=1))
    assert "label 2 of test is not in train" in error(local(folder))
    write(train, pixels(4, seed=2))
    assert "every picture of test is in train too" in error(local(folder))
    write(train, pixels(4, seed=2, colours=False))
    assert "those of train and test differ in size" in error(local(folder))
    train.write_bytes(b"PAR1 and no more")
    assert "train.parquet is not readable Parquet" in error(local(folder))
    train.unlink()
    assert "no split 'train', only test; add train.parquet" in error(local(folder))


@pytest.mark.skipif(not (SAMPLES / "cifar10").is_dir(), reason="CLEARNETS_TEST_DATA has none")
def test_the_real_cifar10():
    found = images.load(local(SAMPLES / "cifar10", image_column="img"))
    assert found.train.pixels_NCHW.shape[1:] == found.test.pixels_NCHW.shape[1:] == (3, 32, 32)
    assert found.classes == 10
    assert not set.intersection(*as_sets(found))
    record = datasets.load_dataset(str(SAMPLES / "cifar10"), split="test[5:6]")[0]
    wanted = np.asarray(record["img"]).transpose(2, 0, 1)
    assert any(np.array_equal(pixels, wanted) for pixels in found.test.pixels_NCHW[:6])


@pytest.mark.skipif(not (SAMPLES / "mnist").is_dir(), reason="CLEARNETS_TEST_DATA has none")
def test_the_real_mnist():
    found = images.load(local(SAMPLES / "mnist"))
    assert (len(found.train), len(found.test)) == (60_000, 10_000)
    assert found.train.pixels_NCHW.shape[1:] == (1, 28, 28)
    # Yann LeCun's page gives no numbers; these are the usual ones of the training set.
    moments = found.train.pixels_NCHW / np.float32(255)
    assert abs(moments.mean() - 0.1307) < 1e-3
    assert abs(moments.std() - 0.3081) < 1e-3
