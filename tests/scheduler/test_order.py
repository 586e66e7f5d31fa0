"""Which stages the next command runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from clearnets import config
from clearnets.pipeline.scheduler import repro
from clearnets.pipeline.stage import items_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(monkeypatch):
    """A run of the default experiment, none of whose stages has run."""
    monkeypatch.chdir(ROOT)
    cfg = config.load()
    names = [stage.of_item(item) for stage, item in items_of(cfg)]
    stages = SimpleNamespace(
        upstream={name: set(names[:number]) for number, name in enumerate(names)},
        command=lambda name: f"clearnets {name.replace('@', ' --aux ')}",
    )
    return repro._Run.of(cfg, stages, lambda: None)  # type: ignore[arg-type]


def test_families_of_one_model_share_a_command(made):
    made.waits = {}
    made.ready = ["cache@native", "cache@sae", "cache@step0-transcoder", "cache@transcoder"]
    made.seconds = made.ways = dict.fromkeys(made.ready, 1.0) | {"cache@sae": 9.0}
    chosen = made._choose()
    assert chosen == ("cache@sae", "cache@transcoder")
    assert made._words(chosen) == ["clearnets", "cache", "--aux", "sae", "--aux", "transcoder"]


def test_a_stage_waits_for_others_of_its_kind_only_while_there_is_other_work(made):
    made.waits = {"cache@sae": {"sparsify@sae"}}
    made.ready = ["cache@transcoder", "explain@native"]
    made.ways = {"cache@transcoder": 9.0, "explain@native": 1.0}
    assert made._choose() == ("explain@native",)
    made.ready = ["cache@transcoder"]
    assert made._choose() == ("cache@transcoder",)


def test_the_longest_way_to_the_end_goes_first(made):
    made.ready = ["train@dense", "generalize@digits", "train@sparse"]
    made.ways = {"train@dense": 3.0, "generalize@digits": 1.0, "train@sparse": 4.0}
    assert made._choose() == ("train@sparse",)
