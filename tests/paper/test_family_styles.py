"""How figures draw and group families: from `families.csv` alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clearnets.analysis.families import family_table
from clearnets.analysis.frames import to_csv
from clearnets.families import FAMILIES

SCRIPTS = Path(__file__).parents[2] / "paper/scripts"
CODE = """
import json, sys
from pathlib import Path
import common
common.load_families(Path(sys.argv[1]))
styles = {name: common.marker_style(name) for name in common.FAMILIES}
print(json.dumps([common.GROUPS, common.CONTROLS, styles]))
"""


def loaded(folder: Path) -> list:
    command = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(command, cwd=SCRIPTS, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


# Results that were made before there was such a table take that of the default experiment.
@pytest.mark.parametrize("own", [True, False])
def test_each_family_stands_with_its_controls(tmp_path, own):
    (tmp_path / "default").mkdir()
    table = family_table()
    (tmp_path / "default/families.csv").write_text(to_csv(table))
    folder = tmp_path / ("default" if own else "earlier")
    folder.mkdir(exist_ok=True)
    groups, controls, styles = loaded(folder)
    assert sorted(name for group in groups for name in group) == sorted(table["family"])
    by_first = {first: others for first, *others in groups}
    assert by_first["native"] == ["early-native", "random-directions", "random-native"]
    assert by_first["groupmax-transcoder"] == ["random-groupmax-transcoder"]
    assert {"skip-transcoder", "step0-transcoder"} < set(by_first["transcoder"])
    assert by_first["sae"][-2:] == ["random-sae", "step0-sae"]
    assert "token-unigram" in by_first["neurons"]
    assert set(controls) == {n for n, s in FAMILIES.items() if s.is_subject} | {"neurons"}
    assert controls["skip-transcoder"] == ["random-transcoder", "step0-transcoder"]
    assert "token-unigram" in controls["neurons"]
    for name, spec in FAMILIES.items():
        style = styles[name]
        assert (style["color"], style["marker"]) == (spec.color, spec.marker)
        assert style["markerfacecolor"] == ("white" if spec.fill == "none" else spec.color)
        assert ("fillstyle" in style) == (spec.fill == "left")


def test_figures_of_families_need_the_table(tmp_path):
    for name in ("summary", "means"):
        (tmp_path / f"{name}.csv").write_text("mean\n0.5\n")
    command = [sys.executable, str(SCRIPTS / "draw.py"), str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode
    assert done.stderr.splitlines()[-1].endswith("is missing; run `clearnets collate` to write it")
