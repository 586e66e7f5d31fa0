"""The known dictionary, its activations, and dictionaries of known quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearnets.config import Planted, load
from clearnets.latents.planted_truth import DICTIONARIES, World, fvu, pursue, recovered

SETTINGS = load(Path(__file__).parents[2] / "params.yaml").planted
ANGLE = np.deg2rad(30)


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(SETTINGS, np.random.default_rng(0))


def made(world: World, name: str) -> np.ndarray:
    return DICTIONARIES[name](world, float(ANGLE), np.random.default_rng(1))


def test_features_fire_as_they_are_told_to(world):
    _, strength_TF = world.draw(20_000, np.random.default_rng(2))
    fires_TF = strength_TF > 0
    number = np.arange(SETTINGS.features)
    plain = number % 4 < 2
    rate_F = fires_TF.mean(axis=0)
    assert rate_F[plain] == pytest.approx(world.rate_F[plain], abs=0.02)
    assert world.rate_F.sum() == pytest.approx(SETTINGS.active)
    slope, _ = np.polyfit(np.log(number + 1.0), np.log(world.rate_F), 1)
    assert slope == pytest.approx(-SETTINGS.exponent)
    # A child never fires without its parent, and a pair more often together than apart.
    for child in (2, 6, 10):
        assert not (fires_TF[:, child] & ~fires_TF[:, world.parent_F[child]]).any()
    for one in (3, 7):
        assert np.corrcoef(fires_TF[:, one], fires_TF[:, one - 2])[0, 1] > 0.3


def test_activations_are_sums_of_directions(world):
    quiet = World(world.direction_FD, world.rate_F, world.parent_F, world.pair_F, 0.0)
    x_TD, strength_TF = quiet.draw(50, np.random.default_rng(3))
    by_hand = [sum(s * d for s, d in zip(row, world.direction_FD)) for row in strength_TF]
    assert x_TD == pytest.approx(np.array(by_hand))
    noisy_TD, strength_TF = world.draw(4000, np.random.default_rng(4))
    left_TD = noisy_TD - strength_TF @ world.direction_FD
    assert left_TD.std() == pytest.approx(SETTINGS.noise, rel=0.05)


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries_are_as_wide_and_of_length_one(world, name):
    direction_LD = made(world, name)
    assert direction_LD.shape == world.direction_FD.shape
    assert np.linalg.norm(direction_LD, axis=1) == pytest.approx(1)


def test_what_is_wrong_with_each(world):
    true_FD = world.direction_FD
    assert recovered(made(world, "true"), world) == pytest.approx(1)
    turned = (made(world, "rotated") * true_FD).sum(axis=1)
    assert turned == pytest.approx(np.cos(ANGLE))
    half = SETTINGS.features // 2
    merged = made(world, "merged")[:half]
    assert (merged * true_FD[0::2]).sum(axis=1) == pytest.approx(
        (merged * true_FD[1::2]).sum(axis=1)
    )
    split = made(world, "split")
    for part in (split[:half], split[half:]):
        assert (part * true_FD[:half]).sum(axis=1) == pytest.approx(np.cos(ANGLE))
    absorbed, child = made(world, "absorbed"), 2
    both = true_FD[2] + true_FD[0]
    assert absorbed[child] == pytest.approx(both / np.linalg.norm(both))
    assert (absorbed[[0, 1, 3]] == true_FD[[0, 1, 3]]).all()


def test_pursuit_finds_features_that_do_not_disturb_each_other():
    code = np.array([[2.0, 0, 0, 1], [0, 0, 0.5, 0], [0, 0, 0, 0]])
    assert pursue(code @ np.eye(4), np.eye(4), 2) == pytest.approx(code)
    assert (pursue(-np.ones((1, 4)), np.eye(4), 2) == 0).all()


def test_fvu_is_one_minus_r2():
    rng = np.random.default_rng(5)
    x = rng.normal(3, 1, (200, 4))
    assert fvu(x, x) == 0
    assert fvu(x, np.broadcast_to(x.mean(axis=0), x.shape)) == pytest.approx(1)


def test_one_world_is_no_test():
    values = SETTINGS.model_dump()
    with pytest.raises(ValueError, match="seeds"):
        Planted(**(values | {"seeds": (0,)}))
