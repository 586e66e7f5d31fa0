"""The figure scripts: every figure from tables alone, the same bytes each time."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import synthetic_results

from clearnets import UserError
from clearnets.paper import figures
from clearnets.pipeline import artifacts, paths
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import collate

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "paper/scripts"
# The made-up tasks are alike: two say as much as four.
CONFIG = synthetic_results.small(generalize={"tasks": ["grokking", "digits"]})
NAMES = {
    *("losses", "fvu", "ablation", "recovered"),
    *("scores", "precision_recall", "layers", "rates", "densities", "contrasts", "layer_contrasts"),
    *("embedding", "roc", "protocols", "concepts", "concept_map", "leads"),
    *("executed", "effects", "circuits", "circuit_members", "circuit_training"),
    *(f"observed-{task}{end}" for task in CONFIG.generalize.tasks for end in ("", "-all")),
}


def project(folder: Path, monkeypatch: pytest.MonkeyPatch, config) -> Path:
    """A folder with tables and the figure scripts, as in a clone."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    synthetic_results.write(config)
    collate.run(config, runtime=Runtime())
    (folder / "paper/scripts").symlink_to(SCRIPTS)
    return folder


# Drawn twice: one of each kind. Of all figures, that they are the same each time is a test of the
# whole pipeline in the nightly tier.
TWICE = ("fvu", "scores", "densities", "concept_map", "leads")
AGAIN = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPTS)!r})
import draw
draw.main(*map(Path, sys.argv[1:]), {TWICE})
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A project with its figures, and a second drawing of some more than a second later, on one
    core."""
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as monkeypatch:
        project(folder, monkeypatch, CONFIG)
        started = time.monotonic()
        figures.run(paths.results(CONFIG.experiment), paths.FIGURES)
        # Files with a time in them would differ from here on.
        time.sleep(max(0, 1.1 - (time.monotonic() - started)))
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        Path("again.py").write_text(AGAIN)
        monkeypatch.setattr(figures, "SCRIPT", Path("again.py"))
        with one_core():
            figures.run(paths.results(CONFIG.experiment), Path("again"))
    return folder


@contextmanager
def one_core() -> Iterator[None]:
    """Let this process, and those that it starts, run on one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def test_every_figure_is_drawn_as_pdf_and_svg_with_a_caption(drawn):
    found = {path.name for path in (drawn / paths.FIGURES).iterdir()}
    files = {f"{name}.{kind}" for name in NAMES for kind in ("pdf", "svg")}
    assert found == files | {"captions.json", "manifest.json"}
    captions = json.loads((drawn / paths.FIGURES / "captions.json").read_text())
    assert set(captions) == NAMES
    for name in ("scores", "rates", "contrasts"):
        assert "describe these trained models only" in captions[name]
        assert "95 %" in captions[name]


def test_figures_carry_the_configuration_of_their_tables(drawn):
    folder, tables = drawn / paths.FIGURES, drawn / paths.results(CONFIG.experiment)
    assert artifacts.settings_of(folder) == artifacts.settings_of(tables)
    manifest = artifacts.read_json(folder / "manifest.json")
    assert manifest["inputs"] == {"tables": artifacts.manifest_hash(tables)}
    listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert listed == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }


def test_drawing_again_gives_the_same_bytes(drawn):
    again = sorted(path for path in (drawn / "again").iterdir() if path.suffix != ".json")
    assert len(again) == 2 * len(TWICE)
    for path in again:
        assert path.read_bytes() == (drawn / paths.FIGURES / path.name).read_bytes(), path.name


def test_fonts_are_embedded_and_no_date_is_written(drawn):
    for path in (drawn / paths.FIGURES).glob("*.pdf"):
        data = path.read_bytes()
        assert b"CreationDate" not in data
        # Type 42 (TrueType) fonts that are embedded whole or as a subset; no bitmap Type 3.
        assert b"/FontFile2" in data
        assert b"/Type3" not in data
    for path in (drawn / paths.FIGURES).glob("*.svg"):
        text = path.read_text()
        assert "<dc:date>" not in text
        assert not re.search(r"<text[ >]", text), "text must be paths, whatever fonts there are"


def test_vector_all_through(drawn):
    for path in (drawn / paths.FIGURES).glob("*.pdf"):
        assert b"/Subtype /Image" not in path.read_bytes()
    for path in (drawn / paths.FIGURES).glob("*.svg"):
        assert "<image" not in path.read_text()


def test_a_changed_score_changes_the_figure(drawn, tmp_path):
    (tmp_path / "tables").mkdir()
    layers = pd.read_csv(drawn / paths.results("default") / "layers.csv", dtype=str)
    for cost, same in ((layers["cost"].iloc[-1], True), ("0.3", False)):
        layers.loc[layers.index[-1], "cost"] = cost
        layers.to_csv(tmp_path / "tables/layers.csv", index=False)
        draw(tmp_path / "tables", tmp_path / "out", "ablation")
        found = contents(tmp_path / "out/ablation.pdf")
        assert (found == contents(drawn / paths.FIGURES / "ablation.pdf")) == same


def contents(path: Path) -> list[bytes]:
    """The drawing commands of a PDF."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.DOTALL)
    return [zlib.decompress(stream) for stream in streams if stream.startswith(b"x")]


def draw(tables: Path, out: Path, *names: str) -> None:
    command = [sys.executable, SCRIPTS / "draw.py", tables, out, *names]
    subprocess.run([str(word) for word in command], check=True)


def test_two_families_and_costs_at_the_floor_are_drawn(tmp_path, monkeypatch):
    config = synthetic_results.small(seeds=[0], families=["native", "transcoder"])
    folder = project(tmp_path / "p", monkeypatch, config)
    layers = folder / paths.results("default") / "layers.csv"
    text = re.sub(r"(model,dense,0,2),[^,]*", r"\1,-0.0002", layers.read_text())
    layers.write_text(text)
    names = ("fvu", "ablation", "recovered", "scores", "rates", "contrasts")
    draw(folder / paths.results("default"), tmp_path / "out", *names)
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(names)


def changed(drawn: Path, folder: Path, change: Callable[[str, pd.DataFrame], pd.DataFrame]) -> Path:
    """A copy of the tables, each as `change` makes it of its name and content."""
    folder.mkdir()
    for path in (drawn / paths.results("default")).glob("*.csv"):
        change(path.stem, pd.read_csv(path)).to_csv(folder / path.name, index=False)
    return folder


def test_without_labels_there_are_no_figures_of_concepts(drawn, tmp_path):
    def unlabelled(name: str, table: pd.DataFrame) -> pd.DataFrame:
        return table.head(0) if name.startswith("concept") else table

    tables = changed(drawn, tmp_path / "tables", unlabelled)
    draw(tables, tmp_path / "out", "concepts", "concept_map")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_family_without_explained_latents_is_drawn(drawn, tmp_path):
    def unexplained(name: str, table: pd.DataFrame) -> pd.DataFrame:
        own = table["family"] == "sae" if "family" in table else pd.Series(dtype=bool)
        if name == "rates":
            return table[~own]
        if name in ("latents", "means"):
            empty = [c for c in table if c.startswith("rule-") or c in ("mean", "low", "high")]
            table.loc[own, empty] = float("nan")
        return table

    draw(changed(drawn, tmp_path / "tables", unexplained), tmp_path / "out", "scores", "rates")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_where_no_latent_has_a_score_by_embeddings_there_is_no_figure_of_them(drawn, tmp_path):
    def unscored(name: str, table: pd.DataFrame) -> pd.DataFrame:
        if name == "embedding":
            table["embedding"] = float("nan")
        return table.head(0) if name == "embedding_roc" else table

    draw(changed(drawn, tmp_path / "tables", unscored), tmp_path / "out", "embedding", "roc")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_script_that_fails_is_one_line_and_keeps_the_old_figures(drawn, monkeypatch):
    monkeypatch.chdir(drawn)
    tables = paths.results("default")
    monkeypatch.setattr(figures, "SCRIPT", Path("paper/scripts/common.py/none"))
    with pytest.raises(UserError, match="is missing"):
        figures.run(tables, paths.FIGURES)
    broken = drawn / "broken.py"
    broken.write_text("raise ValueError('no such column')")
    monkeypatch.setattr(figures, "SCRIPT", broken)
    before = sorted(path.name for path in paths.FIGURES.iterdir())
    with pytest.raises(UserError, match="ValueError: no such column"):
        figures.run(tables, paths.FIGURES)
    assert sorted(path.name for path in paths.FIGURES.iterdir()) == before


def test_scripts_import_only_what_a_reader_has():
    allowed = {"numpy", "pandas", "matplotlib", "common", "small_multiples", "contrasts"}
    allowed |= sys.stdlib_module_names
    for path in SCRIPTS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import():
                    names = [alias.name for alias in node.names]
                case ast.ImportFrom():
                    names = [node.module or ""]
                case _:
                    continue
            assert {name.partition(".")[0] for name in names} <= allowed, path.name


def test_missing_tables_name_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run `dvc repro collate` first"):
        figures.run(paths.results("default"), paths.FIGURES)
    assert not paths.FIGURES.exists()
