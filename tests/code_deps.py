"""The code that each stage computes with, derived from the import graph, for `deps` in dvc.yaml.

`python tests/code_deps.py --write` puts the derived lists into dvc.yaml; a test holds them there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grimp
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DVC = ROOT / "dvc.yaml"
# What a stage may import without depending on it: its parameters are tracked by key, and the rest
# moves bytes and shows progress.
OUTSIDE = {
    f"clearnets.{name}"
    for name in ("cli", "config", *(f"pipeline.{n}" for n in ("paths", "processes", "progress")))
}
# Files that a stage reads or executes without importing them.
EXTRA = {
    "data": [f"clearnets/data/storybook/{name}.toml" for name in ("lexicon", "sentences")],
    "figures": ["paper/clearnets.mplstyle", "paper/scripts"],
    "browse": ["clearnets/browser/assets"],
    "paper": [
        *("paper/claims.yaml", "paper/clearnets.typ", "paper/references.bib"),
        *("paper/sections", "paper/typst"),
    ],
}
# Stages whose module is not one of `clearnets.stages`: they read tables and no artifact.
ROOTS = {"figures": "clearnets.paper.figures", "paper": "clearnets.paper.manuscript"}


def root_module(stage: str) -> str:
    """The module whose imports a stage computes with."""
    return ROOTS.get(stage, f"clearnets.stages.{stage}")


def _outside(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in OUTSIDE)


def code_deps(stage: str, graph: grimp.ImportGraph) -> list[str]:
    """Source files, sorted, that `stage` reaches without passing through `OUTSIDE`."""
    found: set[str] = set()
    queue = [root_module(stage)]
    while queue:
        module = queue.pop()
        if module in found or _outside(module):
            continue
        found.add(module)
        queue += graph.find_modules_directly_imported_by(module)
        # A package's __init__ runs before its modules.
        queue += [parent for parent in [module.rpartition(".")[0]] if "." in parent]
    return sorted(_file(module) for module in found) + EXTRA.get(stage, [])


def _file(module: str) -> str:
    base = Path(*module.split("."))
    package = base / "__init__.py"
    return (package if (ROOT / package).exists() else base.with_suffix(".py")).as_posix()


def body(stage: dict) -> dict:
    """A stage's definition, inside its `do` where it is a foreach."""
    return stage.get("do", stage)


def build_graph() -> grimp.ImportGraph:
    """The package's import graph; imports inside functions count."""
    return grimp.build_graph("clearnets", cache_dir=None, exclude_type_checking_imports=True)


def is_code(dep: str) -> bool:
    """True for dependencies on source, false for artifacts."""
    return dep.startswith(("clearnets/", *(path for paths in EXTRA.values() for path in paths)))


def main() -> None:
    """Print, or with --write store, the lists of all stages."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(DVC.read_text())
    graph = build_graph()
    for name, stage in tree["stages"].items():
        deps = body(stage)["deps"]
        artifacts = [dep for dep in deps if not is_code(dep)]
        body(stage)["deps"] = artifacts + code_deps(name, graph)
    if "--write" in sys.argv:
        with DVC.open("w") as file:
            yaml.dump(tree, file)
    else:
        yaml.dump(tree, sys.stdout)


if __name__ == "__main__":
    main()
