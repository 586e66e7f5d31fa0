"""What is made from the declarations of the stages agrees with what the stages do."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from ruamel.yaml import YAML

from clearnets import config as cfg
from clearnets.families import FAMILIES
from clearnets.pipeline import dvc
from clearnets.pipeline.stage import producer, rerun, table

ROOT = Path(__file__).parents[2]
# What names a unit among those of its stage, and hashes of what no stage makes.
NAMES = {"seed", "mlp", "family", "hookpoint", "split", "task", "files", "ratings"}
WITH_UNITS = [name for name in table() if name not in ("plan", "figures", "paper")]


@pytest.fixture
def config(monkeypatch) -> cfg.Config:
    monkeypatch.chdir(ROOT)
    return cfg.load()


def lies_in(path: Path, templates) -> bool:
    def parts(template: str) -> int:
        return len(PurePosixPath(template).parts)

    return any(
        Path(*path.parts[: parts(template)]).match(
            template.format(item="*", source="*", experiment="*")
        )
        for template in templates
    )


def test_dvc_yaml_is_what_the_tables_give(config):
    assert Path("dvc.yaml").read_text() == dvc.pipeline(config), "run `clearnets plan`"
    fingerprints = json.loads(Path("artifacts/code.json").read_text())
    assert set(fingerprints["stages"]) == set(table()) - {"plan"}
    assert set(fingerprints["families"]) == set(FAMILIES)


@pytest.mark.parametrize("name", WITH_UNITS)
def test_units_write_and_read_what_their_stage_declares(name, config):
    stage = table()[name]
    for item in stage.items(config):
        source = stage.over.source(config, item) if stage.over else ""
        reads = [path.format(item=item, source=source, experiment="*") for path in stage.reads]
        # What these were made from is read, too: DVC has made it before.
        made_by = [found[0] for path in reads if (found := producer(Path(path)))]
        reads += [path.format(item="*", source="*") for other in made_by for path in other.reads]
        for unit in stage.module.units(config, **stage.selection(config, item)):
            assert unit.stage == name
            assert lies_in(unit.out, stage.outputs), unit.out
            for path in unit.inputs.values():
                assert lies_in(path, reads), path


@pytest.mark.parametrize("name", WITH_UNITS)
def test_units_are_made_with_the_parameters_that_their_stage_declares(name, config):
    stage = table()[name]
    for item in stage.items(config):
        declared = {key.format(item=item) for key in stage.params}
        for unit in stage.module.units(config, **stage.selection(config, item)):
            for key in set(unit.settings) - NAMES:
                assert key in declared or any(name.startswith(f"{key}.") for name in declared)
            for key in declared - {"seeds", "families"}:
                assert key in unit.settings or key.split(".")[0] in unit.settings
            assert ("seed" in unit.settings) <= ("seeds" in declared)


@pytest.mark.parametrize("name", WITH_UNITS)
def test_the_stage_that_makes_a_path_is_found(name, config):
    stage = table()[name]
    for item in stage.items(config):
        for unit in stage.module.units(config, **stage.selection(config, item)):
            assert producer(unit.out) == (stage, item)
            assert rerun(unit.out / "manifest.json") == f"dvc repro {stage.of_item(item)}"


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("artifacts/coders", "dvc repro sparsify"),
        ("artifacts/coders/sae/seed-0/layers.0.mlp", "dvc repro sparsify@sae"),
        ("artifacts/metrics/cache-random-sae.json", "dvc repro cache@random-sae"),
        ("paper/results/default/scores.csv", "dvc repro collate"),
        ("paper/results/reduced", "clearnets exp reduced"),
        ("README.md", None),
        ("artifacts", None),
    ],
)
def test_the_command_that_makes_a_path(path, command):
    assert rerun(Path(path)) == command


def test_families_of_one_model_are_done_together(config):
    cache, explain = table()["cache"], table()["explain"]
    groups = cache.groups(config, config.families)
    assert sorted(f for group in groups for f in group if f) == sorted(config.families)
    read = {
        family: (spec.model, spec.untrained_model, spec.equal_loss)
        for family, spec in FAMILIES.items()
        if family in config.families
    }
    assert [len({read[family] for family in group}) for group in groups] == [1] * len(groups)
    assert len(groups) == len(set(read.values()))
    assert cache.call(config, ["sae", "neurons"]) == {"families": ["sae", "neurons"]}
    assert explain.groups(config, ["sae", "neurons"]) == [["sae"], ["neurons"]]
    assert explain.call(config, ["sae"]) == explain.selection(config, "sae")


def test_every_overlay_gives_a_pipeline(monkeypatch):
    from clearnets.pipeline import experiments

    monkeypatch.chdir(ROOT)
    # A base that `clearnets import` makes is not in the repository.
    monkeypatch.setattr(experiments, "_sources", lambda _: iter(()))
    for path in cfg.EXPERIMENTS.glob("*.yaml"):
        config = cfg.parse(experiments.resolve(path.stem, []), path.stem)
        stages = YAML(typ="safe").load(dvc.pipeline(config))["stages"]
        there = {name for name, stage in table().items() if stage.items(config)}
        assert set(stages) == (there if config.compares else set(table()))
        assert list(stages["cache"]["foreach"]) == list(config.families)
