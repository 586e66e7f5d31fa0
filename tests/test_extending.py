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
    for language in ("python", "yaml"):
        for name, text in blocks(language):
            (folder / name).write_text(text)
    return folder


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


def test_the_experiments_resolve_and_the_stages_know_the_new_code(copy):
    names = [Path(name).stem for name, _ in blocks("yaml")]
    assert names == ["twice-k", "step0-skip", "by-trigger", "parity"]
    script = "import sys; from clearnets.pipeline import experiments\nfor n in sys.argv[1:]: " + (
        "experiments.resolve(n, [])"
    )
    python("-c", script, *names, at=copy, code=copy)
    python("tests/code_deps.py", "--write", at=copy, code=copy)
    assert "clearnets/generalization/parity.py" in (copy / "dvc.yaml").read_text()
    assert "clearnets/generalization/parity.py" not in (ROOT / "dvc.yaml").read_text()
