"""The rules of the rooms: how many, how high, and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from clearnets.pipeline.stage import table

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "clearnets"
GRAPH = grimp.build_graph("clearnets", cache_dir=None, exclude_type_checking_imports=True)
MODULES = sorted(GRAPH.modules)
MOST_ROOMS, MOST_FLOORS, MOST_AT_ROOT = 16, 9, 4
MOST_LINES = 60
# Stages whose computation needs neither torch nor transformers, which take seconds to import.
LIGHT = (
    *("plan", "match", "explain", "score", "overlap", "qualify", "concepts", "collate", "browse"),
    *("figures", "paper"),
)
HEAVY = {"torch", "transformers", "sparsify"}


def room(module: str) -> str:
    """The package that a module lies in; itself, if it lies at the root."""
    return ".".join(module.split(".")[:2])


def test_the_house_is_small_enough_to_live_in():
    at_root = [path.name for path in PACKAGE.glob("*.py")]
    assert len(at_root) <= MOST_AT_ROOT, at_root
    rooms = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    assert len(rooms) <= MOST_ROOMS
    for path in PACKAGE.rglob("__init__.py"):
        sentence = ast.get_docstring(ast.parse(path.read_text()))
        assert sentence, f"{path} says in one sentence what belongs there"


def test_imports_between_rooms_go_one_way():
    below: dict[str, set[str]] = {}
    for module in MODULES:
        for imported in GRAPH.find_modules_directly_imported_by(module):
            if room(imported) != room(module):
                below.setdefault(room(module), set()).add(room(imported))
    floor: dict[str, int] = {}
    # Raises CycleError where they do not.
    for name in TopologicalSorter(below).static_order():
        floor[name] = 1 + max((floor[other] for other in below.get(name, ())), default=0)
    packages = {name: number for name, number in floor.items() if _is_package(name)}
    assert len(set(packages.values())) <= MOST_FLOORS, packages


def test_rooms_import_what_the_page_on_architecture_allows():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*?) ?\|$", page.split("\n## Rooms\n")[1], re.M)
    names = [name for name, _ in rows]
    assert set(names) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    for number, (name, allowed) in enumerate(rows):
        below = set(names[number + 1 :])
        listed = (
            below if allowed.startswith("all rooms below") else set(re.findall(r"`(\w+)`", allowed))
        )
        assert listed <= below, name
        imported = {
            room(other).removeprefix("clearnets.")
            for module in MODULES
            if room(module) == f"clearnets.{name}"
            for other in GRAPH.find_modules_directly_imported_by(module)
        }
        assert imported & set(names) <= listed | {name, "config", "pipeline"}, name


def _is_package(name: str) -> bool:
    return (ROOT.joinpath(*name.split(".")) / "__init__.py").exists() and "." in name


def test_no_file_imports_in_a_circle():
    files = {
        module: GRAPH.find_modules_directly_imported_by(module)
        for module in MODULES
        if not GRAPH.find_children(module)
    }
    list(TopologicalSorter(files).static_order())


def test_stages_meet_on_disk():
    stages = {module for module in MODULES if module.startswith("clearnets.stages.")}
    for module in MODULES:
        inner = GRAPH.find_modules_directly_imported_by(module)
        assert not inner & (stages - {module}), f"{module} imports a stage"


def test_no_function_is_too_long():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= MOST_LINES, f"{path.name}: {node.name} has {lines} lines"


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("stage", LIGHT)
def test_light_stages_reach_no_module_that_imports_torch(stage):
    reached = GRAPH.find_upstream_modules(f"clearnets.stages.{stage}")
    for module in reached:
        text = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if text.exists():
            tops = [n for n in ast.parse(text.read_text()).body if isinstance(n, ast.Import)]
            assert not {alias.name.split(".")[0] for n in tops for alias in n.names} & HEAVY, module


def test_help_loads_nothing_heavy():
    heavy = HEAVY | {"numpy", "pandas", "pydantic", "matplotlib", "dvc", "ruamel"}
    assert not loaded_by("import clearnets.cli") & heavy


def test_every_stage_is_a_file_of_its_name():
    files = {path.stem for path in (PACKAGE / "stages").glob("[!_]*.py")}
    assert files == set(table()) == {stage.name for stage in table().values()}
