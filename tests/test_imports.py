"""Imports go one way, light paths stay light, and dvc.yaml lists the code a stage computes with."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from code_deps import DVC, ROOTS, body, build_graph, code_deps, is_code
from ruamel.yaml import YAML

from clearnets.config import load

STAGES = YAML(typ="safe").load(DVC.read_text())["stages"]
GRAPH = build_graph()
INNER = (
    "config",
    "errors",
    *(f"pipeline.{n}" for n in ("paths", "artifacts", "runtime", "processes", "progress")),
)
CORE = {
    module
    for module in GRAPH.modules
    if f"{module}.".startswith(tuple(f"clearnets.{name}." for name in INNER))
}


def reaches(module: str) -> set[str]:
    return GRAPH.find_upstream_modules(module)


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_the_code_of_each_stage(stage):
    listed = [dep for dep in body(STAGES[stage])["deps"] if is_code(dep)]
    assert listed == code_deps(stage, GRAPH), "run `python tests/code_deps.py --write`"


_LIGHT_STAGES = ("explain", "qualify", "score", "overlap", "concepts", "collate", "browse")
LIGHT = [
    *(f"stages.{name}" for name in _LIGHT_STAGES),
    *(
        *(f"paper.{n}" for n in ("figures", "manuscript", "claims", "compare")),
        "generalization.tables",
    ),
]
SELECTIONS = {
    "train": {"mlp": "dense"},
    "sparsify": {"family": "sae"},
    "cache": {"family": "sae"},
    "explain": {"family": "sae", "layers": (0,)},
    "score": {"family": "sae", "layers": (0,)},
    "overlap": {"family": "sae"},
    "concepts": {"family": "sae"},
    "generalize": {"task": "grokking"},
}
# What names a unit among those of its stage; the parameters are all other settings.
NAMES = {"seed", "mlp", "family", "hookpoint", "split", "task"}


@pytest.mark.parametrize("stage", sorted(set(STAGES) - set(ROOTS)))
def test_dvc_yaml_tracks_the_parameters_that_a_stage_is_built_with(stage, monkeypatch):
    monkeypatch.chdir(DVC.parent)
    module = import_module(f"clearnets.stages.{stage}")
    config = load()
    units = module.units(config, **SELECTIONS.get(stage, {}))
    # Of what takes the place of a family's coders, DVC tracks the family's own.
    tracked = {key.removesuffix(".${item.aux}") for key in body(STAGES[stage])["params"]}
    task = SELECTIONS.get(stage, {}).get("task", "")
    tracked = {key.replace("${key}", task) for key in tracked}
    assert set(units[0].settings) - NAMES == tracked - ({"seeds"} - set(units[0].settings))
    if stage not in ("data", "embed", "qualify", "collate", "generalize", "browse"):
        assert len({unit.settings["seed"] for unit in units}) == len(config.seeds)


def test_core_imports_only_core():
    for module in CORE:
        assert reaches(module) <= CORE | {"clearnets", "clearnets.pipeline"}


def test_stages_do_not_import_each_other_nor_the_face():
    stages = {m for m in GRAPH.modules if m.startswith("clearnets.stages.")}
    names = ("cli", "pipeline.experiments", "autointerp.delphi.export", "__main__")
    face = {m for m in GRAPH.modules if f"{m}.".startswith(tuple(f"clearnets.{n}." for n in names))}
    for module in GRAPH.modules - face:
        inner = GRAPH.find_modules_directly_imported_by(module)
        assert not inner & (stages | face), f"{module} imports a stage or the command line"


def test_data_and_models_know_nothing_of_later_rooms():
    later = ("coders", "autointerp", "stages", "training", "analysis", "paper")
    for module in GRAPH.modules:
        if module.startswith(("clearnets.data", "clearnets.models", "clearnets.latents.hooks")):
            names = {name.split(".")[1] for name in reaches(module) if "." in name}
            assert not names & set(later), module


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("module", LIGHT)
def test_light_stages_load_neither_torch_nor_transformers(module):
    assert not loaded_by(f"import clearnets.{module}") & {"torch", "transformers", "sparsify"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_stages_reach_no_module_that_uses_torch(module):
    rooms = ("models", "coders", "training", "latents.hooks", "latents.readers")
    heavy = {f"clearnets.{room}" for room in rooms}
    assert not GRAPH.find_upstream_modules(f"clearnets.{module}") & heavy


def test_help_loads_nothing_heavy():
    heavy = {"torch", "transformers", "numpy", "pandas", "pydantic", "matplotlib", "dvc"}
    assert not loaded_by("import clearnets.cli") & heavy
