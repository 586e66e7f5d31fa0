"""Figures of a language model's scores: only where it has qualified, and from tables alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import synthetic_judge

from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import collate

ROOT = Path(__file__).parents[2]
NAMES = ("judged", "judged_contrasts", "judged_probabilities", "judged_roc")


def draw(tables: Path, out: Path) -> set[str]:
    """The names of the figures of judges."""
    script = ROOT / "paper/scripts/draw.py"
    subprocess.run([sys.executable, str(script), str(tables), str(out), "judged"], check=True)
    return {path.stem for path in out.glob("*.svg")}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        config = synthetic_judge.few()
        synthetic_judge.write(config)
        collate.run(config, runtime=Runtime())
    return folder / paths.results(config.experiment)


def test_a_qualified_judge_has_its_figures(tables, tmp_path):
    assert draw(tables, tmp_path / "out") == set(NAMES)


def test_the_caption_tells_what_is_missing_and_what_is_noise(tables):
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "import common, judged; common.load_families(Path(sys.argv[2]));"
        "drawn = judged.draw(Path(sys.argv[2]));"
        "print(json.dumps({name: caption for name, (_, caption) in drawn.items()}))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "paper/scripts"), str(tables)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    caption = json.loads(done.stdout)["judged"]
    noise = pd.read_csv(tables / "judged_noise.csv")
    row = noise[(noise["family"] == "all") & (noise["scorer"] == "detection")].iloc[0]
    assert f"{row['sd']:.3f} in detection" in caption
    means = pd.read_csv(tables / "judged_means.csv")
    own = means[(means["measure"] == "accuracy") & (means["explanation"] == "own")]
    assert f"{100 * own['missing'].max():.1f} %" in caption


def test_a_demonstration_has_none(tables, tmp_path):
    for path in tables.glob("*.csv"):
        name = path.name.replace("judged", "demonstration")
        (tmp_path / name).write_bytes(path.read_bytes())
    assert draw(tmp_path, tmp_path / "out") == set()


def test_without_probabilities_there_is_no_curve(tables, tmp_path):
    for path in tables.glob("*.csv"):
        if path.name != "judged_probabilities.csv":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert draw(tmp_path, tmp_path / "out") == {"judged", "judged_contrasts"}
