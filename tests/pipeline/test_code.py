"""Fingerprints of code: what they follow, and what leaves them as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import grimp
import pytest

from clearnets.pipeline import code
from clearnets.pipeline.stage import table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fingerprints(tmp_path, monkeypatch):
    """Copy the package, to be edited; return a function that gives all fingerprints of the copy."""
    copy = tmp_path / "clearnets"
    shutil.copytree(ROOT / "clearnets", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)

    def made() -> dict[str, str]:
        for cached in (code.fingerprint, code.imports, code._parsed, code._tree):
            cached.cache_clear()
        return {name: code.fingerprint(name) for name in table()}

    yield made
    for cached in (code.fingerprint, code.imports, code._parsed, code._tree):
        cached.cache_clear()


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_modules_are_those_of_the_import_graph():
    graph = grimp.build_graph("clearnets", cache_dir=None, exclude_type_checking_imports=True)
    for stage in table():
        expected, queue = set(), [f"clearnets.stages.{stage}"]
        while queue:
            module = queue.pop()
            outside = any(f"{module}.".startswith(f"{name}.") for name in code._OUTSIDE)
            if module in expected or outside:
                continue
            expected.add(module)
            queue += graph.find_modules_directly_imported_by(module)
            queue += [module.rpartition(".")[0]] if "." in module else []
        assert code.modules(f"clearnets.stages.{stage}") == expected


def test_words_do_not_count(fingerprints):
    before = fingerprints()
    for path in Path("clearnets").rglob("*.py"):
        text = path.read_text()
        path.write_text(f"# A comment.\n{text.replace('Return ', 'Give ')}")
    # `Return` stands in docstrings only; where it does not, the test would say so.
    assert changed(before, fingerprints()) == set()


def test_the_command_line_does_not_count(fingerprints):
    before = fingerprints()
    edit("clearnets/cli/place.py", "import os", "import os\nimport math")
    edit("clearnets/stages/train.py", "Train a transformer", "Fit a transformer")
    assert changed(before, fingerprints()) == set()


def test_a_computation_counts_for_the_stages_that_compute_with_it(fingerprints):
    before = fingerprints()
    edit("clearnets/models/matching.py", "target = max(", "target = min(")
    reached = {
        name for name in table() if "clearnets.models.matching" in code.modules(
            f"clearnets.stages.{name}"
        )
    }  # fmt: skip
    assert changed(before, fingerprints()) == reached
    assert {"match", "sparsify", "cache", "evaluate", "browse"} <= reached
    assert not {"data", "train", "explain", "score", "collate", "figures", "paper"} & reached


def test_a_data_file_counts_with_the_modules_beside_it(fingerprints):
    before = fingerprints()
    with open("clearnets/data/storybook/lexicon.toml", "a") as file:
        file.write("# more\n")
    found = changed(before, fingerprints())
    assert "data" in found
    assert not {"match", "figures"} & found


def test_the_table_of_families_counts_for_those_that_read_it(fingerprints):
    before = fingerprints()
    edit("clearnets/families.py", "_ROWS = (", "_ROWS = (  # One more.\n    *(),")
    found = changed(before, fingerprints())
    assert {"cache", "evaluate", "collate"} <= found
    assert not {"data", "train", "match", "embed", "qualify", "figures", "paper"} & found


def test_a_family_counts_by_its_row():
    tracked = code.modules("clearnets.stages.cache", (*code._OUTSIDE, code._FAMILIES))
    assert "clearnets.families" not in tracked
    assert "clearnets.families" in code.modules("clearnets.stages.cache")
