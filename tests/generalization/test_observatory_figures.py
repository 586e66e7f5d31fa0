"""Figures and Markdown of leads and rankings, from the tables of made-up runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import synthetic_generalization as synthetic

from clearnets.analysis.frames import to_csv
from clearnets.generalization import summary
from clearnets.generalization.leads import leads
from clearnets.generalization.ranking import ranking

DRAW = Path(__file__).parents[2] / "paper/scripts/draw.py"
NAMES = ("ranking", "leads")


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    runs, curves, measures = synthetic.both()
    options = {"resamples": 200, "confidence": 0.95, "seed": 0}
    return {
        "generalization_leads": leads(runs, curves, measures, **options),
        "generalization_ranking": ranking(runs, measures, permutations=199, **options),
    }


def write(frames: dict[str, pd.DataFrame], folder: Path) -> Path:
    folder.mkdir()
    for name, frame in frames.items():
        (folder / f"{name}.csv").write_text(to_csv(frame))
    return folder


# Twice, in a process of its own, for the scripts are no package.
TWICE = """
import json, sys
from pathlib import Path
import leads, ranking
from common import save
captions = {}
for out in ("one", "two"):
    for module in (leads, ranking):
        figure, captions[module.__name__] = module.draw(Path(sys.argv[1]))
        save(figure, Path(sys.argv[2]) / out, module.__name__)
print(json.dumps(captions))
"""


def test_figures_are_the_same_each_time_and_captions_say_what_is_shown(frames, tmp_path):
    folder = write(frames, tmp_path / "tables")
    done = subprocess.run(
        [sys.executable, "-c", TWICE, folder, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        cwd=DRAW.parent,
    )
    first, again = (
        {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}
        for out in ("one", "two")
    )
    assert set(first) == {f"{name}.{kind}" for name in NAMES for kind in ("pdf", "svg")}
    assert first == again
    captions = json.loads(done.stdout)
    assert "199 permutations of whole runs" in captions["ranking"]
    assert "are left out (1)" in captions["ranking"]
    assert "over 6 training seeds with 95 %" in captions["leads"]
    own = frames["generalization_leads"].iloc[0]
    assert f"fall near step {own['loss_change']:,.0f}" in (tmp_path / "one/leads.svg").read_text()


# In one process, for matplotlib takes seconds to import.
EMPTY = """
import sys
from pathlib import Path
from draw import main
for tables in sys.argv[2:]:
    main(Path(tables), Path(sys.argv[1]), ["ranking", "leads"])
"""


def test_without_tasks_there_is_no_figure_and_no_text(frames, tmp_path):
    empty = {name: frame[:0] for name, frame in frames.items()}
    assert summary.markdown(empty) == ""
    folder = write(empty, tmp_path / "tables")
    (tmp_path / "without").mkdir()
    command = [sys.executable, "-c", EMPTY, tmp_path / "out", folder, tmp_path / "without"]
    subprocess.run(command, check=True, cwd=DRAW.parent)
    assert not list((tmp_path / "out").iterdir())


def test_the_markdown_holds_what_the_tables_say(frames):
    text = summary.markdown(frames)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    knows = frames["generalization_ranking"].set_index("metric").loc["knows"]
    assert f"+{knows['tau']:.2f} [+{knows['tau_low']:.2f}" in lines["knows"]
    assert f"{knows['score']:.1f} %" in lines["knows"]
    assert lines["knows"].endswith("| both |")
    assert lines["broken"].endswith("| – | – | – | – | not ranked |")
    assert "before" in lines["early"]
    assert "with; together" in lines["same"]
    assert "l0" not in lines
    assert "in all of these: erratic, l0." in text
    assert lines["*train loss*"]
    assert "grid: 24 combinations of settings (1 more did not reach" in text
    assert "of 4 metrics 3 order the gaps better than chance, and 2 do so beyond" in text
    assert "(6 training seeds)" in text
