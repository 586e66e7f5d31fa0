"""The worked examples of docs/extending.md, applied to a copy of the package and run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/extending.md").read_text()
COPIED = ("clearnets", "paper", "experiments", "tests", "params.yaml", "dvc.yaml", "pyproject.toml")

FAMILY = "step0-skip-transcoder"


def blocks(kind: str) -> list[tuple[str, str]]:
    """The document's blocks of a language, each with the file that it is."""
    return re.findall(rf"^```{kind} ?(\S*)\n(.*?)^```$", TEXT, re.M | re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the package with the changes of all examples."""
    folder = tmp_path_factory.mktemp("extended") / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "results", "figures")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copyfile(source, folder / name)
    for _, diff in blocks("diff"):
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=folder, check=True)
    for name, text in (*blocks("python"), *blocks("yaml")):
        path = folder / name
        if path.exists():  # A row of the table of families.
            assert path.name == "families.py"
            text = path.read_text().replace("_ROWS = (", f"_ROWS = (\n{_row(text)}", 1)
        path.write_text(text)
    return folder


def _row(text: str) -> str:
    """The row alone, without the parentheses in which it is formatted."""
    return text.strip().removeprefix("(").removesuffix(")")


def python(*words: str, at: Path, code: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=at, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_family_the_explainer_and_the_task_run(copy):
    (copy / "work").mkdir()
    python("../tests/extended.py", FAMILY, at=copy / "work", code=copy)
    made = copy / "work/artifacts"
    config = json.loads((made / f"coders/{FAMILY}/seed-0/layers.1.mlp/cfg.json").read_text())
    assert config["transcode"]
    assert config["skip_connection"]
    lines = (made / f"explain/{FAMILY}/seed-0/layers.0.mlp/explanations.jsonl").read_text()
    explained = [record for record in map(json.loads, lines.splitlines()) if record["explanation"]]
    assert explained
    for record in explained:
        assert record["trigger"] in json.loads(f'"{record["explanation"].split(chr(34))[1]}"')
    scores = (made / f"score/{FAMILY}/seed-0/layers.0.mlp/scores.jsonl").read_text()
    assert len(scores.splitlines()) == len(lines.splitlines())
    measures = pd.read_csv(made / "generalize/parity/measures.csv")
    assert set(measures["hookpoint"].dropna()) >= {"mlp"}
    assert len(pd.read_csv(made / "generalize/parity/curves.csv")) == 2 * 4


# The pipeline, then the help of two stages; and experiments must resolve.
SHOWN = """
import sys
from typer.testing import CliRunner
from clearnets import cli, config
from clearnets.pipeline import dvc, experiments
for name in sys.argv[1:]:
    experiments.resolve(name, [])
print(dvc.pipeline(config.load()))
for stage in ("lengths", "sparsify"):
    print("\\f", CliRunner().invoke(cli.app, [stage, "--help"]).output)
"""


def test_the_experiments_resolve_and_the_stages_know_the_new_code(copy):
    names = [Path(name).stem for name, _ in blocks("yaml")]
    assert names == ["twice-k", "step0-skip", "by-trigger", "parity"]
    pipeline, lengths, sparsify = python("-c", SHOWN, *names, at=copy, code=copy).split("\f")
    # A stage is one file.
    assert "Count the words" in lengths
    stages = YAML(typ="safe").load(pipeline)["stages"]
    assert stages["lengths"]["cmd"] == "clearnets lengths --aux ${item.aux}"
    # `tests/extended.py` has run it.
    counted = pd.read_csv(copy / f"work/artifacts/lengths/{FAMILY}/seed-0/lengths.csv")
    assert (counted["words"] > 0).all()
    # A family is one row.
    changed = [name for name, _ in blocks("python") if "families" in name]
    assert changed == ["clearnets/families.py"]
    assert FAMILY in sparsify.replace("\n", "")
