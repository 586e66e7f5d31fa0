"""Fingerprints of code: what they follow, and what leaves them as they are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import grimp
import pytest

from clearnets.config import Existing, load
from clearnets.families import FAMILIES
from clearnets.pipeline import code, dvc
from clearnets.pipeline.stage import table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """All fingerprints of the package."""
    forget()
    return {name: code.fingerprint(name) for name in table()}


@pytest.fixture
def fingerprints(tmp_path, monkeypatch):
    """Copy the package, to be edited; return a function that gives all fingerprints of the copy."""
    copy = tmp_path / "clearnets"
    shutil.copytree(ROOT / "clearnets", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)

    def made() -> dict[str, str]:
        forget()
        return {name: code.fingerprint(name) for name in table()}

    yield made
    forget()


def forget() -> None:
    """Clear every cache of the module, whose files are about to be others."""
    for function in vars(code).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


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


def test_words_and_the_command_line_do_not_count(fingerprints, before):
    edit("clearnets/cli/place.py", "import os", "import os\nimport math")
    edit("clearnets/stages/train.py", "Train a transformer", "Fit a transformer")
    edit("clearnets/families.py", "_ROWS = (", "_ROWS = (  # One more.\n    *(),")
    for path in Path("clearnets").rglob("*.py"):
        text = path.read_text()
        path.write_text(f"# A comment.\n{text.replace('Return ', 'Give ')}")
    # `Return` stands in docstrings only; where it does not, the test would say so.
    assert changed(before, fingerprints()) == set()


def test_a_computation_counts_for_the_stages_that_compute_with_it(fingerprints, before):
    edit("clearnets/models/matching.py", "target = max(", "target = min(")
    reached = {
        name for name in table() if "clearnets.models.matching" in code.modules(
            f"clearnets.stages.{name}"
        )
    }  # fmt: skip
    assert changed(before, fingerprints()) == reached
    assert {"match", "sparsify", "cache", "evaluate", "browse"} <= reached
    assert not {"data", "train", "explain", "score", "collate", "figures", "paper"} & reached


def test_a_data_file_counts_with_the_modules_beside_it(fingerprints, before):
    with open("clearnets/data/storybook/lexicon.toml", "a") as file:
        file.write("# more\n")
    found = changed(before, fingerprints())
    assert "data" in found
    assert not {"match", "figures"} & found


def test_what_is_no_row_of_the_table_of_families_counts(fingerprints, before):
    edit("clearnets/families.py", "if self.model else [TOKENS]", "if self.is_coder else [TOKENS]")
    found = changed(before, fingerprints())
    assert {"cache", "evaluate", "collate"} <= found
    assert not {"data", "train", "match", "embed", "qualify", "figures", "paper"} & found


def test_functions_of_parameters_count_where_they_are_named(fingerprints, before):
    there = "return self.hidden_size * self.expansion"
    edit("clearnets/config/models.py", there, "return 2 * self.hidden_size")
    found = changed(before, fingerprints())
    assert {"train", "sparsify"} & found
    assert not {"data", "embed", "match", "figures", "paper"} & found


def test_what_a_family_is_compared_with_is_no_reason_to_train_it_anew():
    config = load(ROOT / "params.yaml")
    before = dvc.code_fingerprints(config)
    row = FAMILIES["transcoder"]
    for change, families, table_ in (
        ({"label": "new"}, set(), True),
        ({"contrast": None}, set(), True),
        ({"skip": True}, {"transcoder"}, True),
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.setitem(FAMILIES, "transcoder", replace(row, **change))
            after = dvc.code_fingerprints(config)
        assert changed(before["families"], after["families"]) == families
        assert (before["table"] != after["table"]) == table_
    existing = {"sae": Existing(name="x/saes")}
    coders = config.coders.model_copy(update={"existing": existing})
    after = dvc.code_fingerprints(config.model_copy(update={"coders": coders}))
    assert changed(before["families"], after["families"]) == {"sae"}
