"""The typed parameters: what they accept, what they refuse and how they say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearnets import UserError
from clearnets import config as cfg
from clearnets.families import FAMILIES
from clearnets.pipeline import experiments
from clearnets.pipeline.stage import items_of

ROOT = Path(__file__).parents[2]
PARAMS = cfg.read_yaml(ROOT / "params.yaml")


def with_(over: dict) -> dict:
    return cfg.overlay(PARAMS, over)


def test_params_yaml_is_valid_and_frozen():
    config = cfg.load(ROOT / "params.yaml")
    assert config.experiment == "default"
    with pytest.raises(Exception, match="frozen"):
        config.seeds = (1,)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"match": {"tolerence": 0.1}}, "unknown key 'match.tolerence'"),
        ({"match": {"tolerance": "small"}}, "match.tolerance: input should be a valid number"),
        ({"train": {"batch_size": "32"}}, "train.batch_size: input should be a valid integer"),
        ({"train": {"batch_size": 0}}, "train.batch_size: input should be greater than 0"),
        ({"model": {"num_heads": 7}}, "hidden_size must be a multiple of num_heads"),
        ({"model": {"k": 7}}, "must be a multiple of k"),
        ({"data": {"ctx_len": 100}}, "ctx_len must be a multiple of explain.window"),
        ({"data": {"corpus": {"kind": "books"}}}, "data.corpus"),
        ({"model": {"num_layers": "8"}}, "model.num_layers: input should be a valid integer"),
        ({"model": {"colour": 1}}, "unknown key 'model.colour'"),
        ({"data": {"corpus": {"kind": "local"}}}, "key 'data.corpus.path' is missing"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"models": ["sparse", "dense"]}, "models must be dense and then, each once, any of"),
        ({"models": ["dense", "dense"]}, "models must be dense and then, each once"),
        ({"models": ["dense", "sparse", "sparse"]}, "models must be dense and then, each once"),
        ({"models": []}, "without models there is nothing to compare"),
        ({"models": ["dense"]}, "families: native reads the model sparse: add it to `models`"),
        ({"families": ["sae", "sae"]}, "families must differ"),
        ({"families": ["saes"]}, "families.0: unknown family; there are: native, topk-native,"),
        ({"experiment": "../x"}, "experiment"),
        (
            {"coders": {"existing": {"random-sae": {"name": "x"}}}},
            "coders.existing.random-sae: families that it may name: transcoder, groupmax-",
        ),
        ({"coders": {"existing": {"seas": {"name": "x"}}}}, "coders.existing.seas"),
    ],
)
def test_bad_values_get_one_line_that_names_the_key(over, says):
    with pytest.raises(UserError) as error:
        cfg.parse(with_(over), "params.yaml")
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("params.yaml: ")


def test_missing_key_and_broken_yaml(tmp_path):
    values = {key: value for key, value in PARAMS.items() if key != "seeds"}
    with pytest.raises(UserError, match="key 'seeds' is missing"):
        cfg.parse(values, "params.yaml")
    broken = tmp_path / "params.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(UserError, match="not readable YAML"):
        cfg.load(broken)
    with pytest.raises(UserError, match="is missing"):
        cfg.load(tmp_path / "nowhere.yaml")


def test_overlay_merges_mappings_but_replaces_another_kind():
    base = {"corpus": {"kind": "storybook", "seed": 0}, "a": {"b": 1, "c": 2}}
    over = {"corpus": {"kind": "local", "path": "x"}, "a": {"c": 3}}
    assert cfg.overlay(base, over) == {
        "corpus": {"kind": "local", "path": "x"},
        "a": {"b": 1, "c": 3},
    }
    assert cfg.overlay(base, {"corpus": {"seed": 2}})["corpus"] == {"kind": "storybook", "seed": 2}
    assert base["a"] == {"b": 1, "c": 2}


@given(st.sets(st.integers(0, 7), min_size=1))
def test_layers_round_trip(layers):
    config = cfg.parse(PARAMS, "params.yaml")
    assert cfg.parse_layers(",".join(map(str, layers)), config) == tuple(sorted(layers))
    low, high = min(layers), max(layers)
    assert cfg.parse_layers(f"{low}-{high}", config) == tuple(range(low, high + 1))
    assert cfg.parse_layers(None, config) == tuple(range(8))


def test_layers_of_a_base_are_those_that_are_read():
    model = {
        "kind": "pretrained",
        "name": "base",
        "hookpoints": "model.layers.*.mlp",
        "read_layers": [3, 10, 17],
        "hidden_size": 16,
        "num_layers": 30,
        "expansion": 4,
        "k": 4,
        "attention": "across",
    }
    over = {"models": ["dense"], "families": ["sae"], "model": model, "coders": {"existing": {}}}
    config = cfg.parse(cfg.overlay(PARAMS, over), "test")
    assert config.hookpoints_by_layer("sae") == {n: f"layers.{n}.mlp" for n in (3, 10, 17)}
    assert cfg.parse_layers("3-10", config) == (3, 10)
    with pytest.raises(UserError, match="no layer 9; the layers that are read are 3, 10, 17"):
        cfg.parse_layers("9", config)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7-0", "backwards; write 0-7"),
        ("9", "layers go from 0 to 7"),
        ("0-8", "layers go from 0 to 7"),
        ("", "write layers as"),
        ("a-b", "write layers as"),
        ("1,,2", "write layers as"),
    ],
)
def test_bad_layers(text, says):
    with pytest.raises(UserError, match=says):
        cfg.parse_layers(text, cfg.parse(PARAMS, "params.yaml"))


def test_what_there_is_is_chosen_by_its_name():
    config = cfg.parse(with_({"seeds": [3, 1]}), "params.yaml")
    assert [cfg.parse_family(name, config) for name in config.families] == list(config.families)
    assert [cfg.parse_mlp(name, config) for name in config.models] == list(config.models)
    tasks = list(config.generalize.tasks)
    assert [cfg.parse_task(name, config) for name in tasks] == tasks
    assert [cfg.parse_seed(seed, config) for seed in (None, 3, 1)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("parse", "name", "says"),
    [
        (cfg.parse_family, "saes", "unknown family 'saes'; choose one of native, topk-native"),
        (
            cfg.parse_family,
            "neurons",
            "experiment 'few' has no family 'neurons'; choose one of native",
        ),
        (cfg.parse_mlp, "thin", "unknown --mlp 'thin'; choose one of dense, sparse"),
        (cfg.parse_mlp, "dense_wide", "experiment 'few' has no 'dense_wide' model; choose one"),
        (cfg.parse_task, "chess", "unknown task 'chess'; choose one of grokking"),
        (cfg.parse_task, "cifar10", "experiment 'few' has no task 'cifar10'; choose one of grokk"),
        (cfg.parse_seed, 7, "no training seed 7; choose one of 0"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(parse, name, says):
    others = [family for family in PARAMS["families"] if family != "neurons"]
    over = {"experiment": "few", "families": others}
    config = cfg.parse(with_(over), "params.yaml")
    with pytest.raises(UserError) as error:
        parse(name, config)
    assert str(error.value).startswith(says)
    offered = str(error.value).split("choose one of ")[1].split(", or ")[0].split(", ")
    assert all(str(parse(type(name)(other), config)) == other for other in offered)


def test_nothing_is_offered_where_an_experiment_has_no_families(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = cfg.parse(experiments.resolve("grokking-113", []), "grokking-113")
    with pytest.raises(UserError) as error:
        cfg.parse_family("sae", config)
    assert str(error.value) == (
        "experiment 'grokking-113' has no family 'sae'; add it to `families`"
    )


def test_weights_are_those_of_the_model_that_is_read():
    families = ["native", "random-topk-native", "neurons", "sae", "token-unigram"]
    weights = [FAMILIES[family].weights for family in families]
    assert weights == ["train/sparse", "train/sparse_topk", "train/dense", "coders/sae", "data"]


def test_results_of_what_an_experiment_lacks_are_dropped_in_every_stage(tmp_path, monkeypatch):
    """Otherwise they would enter the hashes of folders that DVC takes as a whole."""
    whole = cfg.parse(PARAMS, "params.yaml")
    few = {"models": ["dense"], "families": ["sae", "neurons"], "generalize": {"tasks": ["digits"]}}
    config = cfg.parse(with_(few), "params.yaml")
    gone = {"sparse", "sparse_topk", *whole.families, *whole.generalize.tasks} - {
        "sae",
        "neurons",
        "digits",
    }
    monkeypatch.chdir(tmp_path)
    made = [
        Path(template.format(item=item, experiment=whole.experiment))
        for stage, item in items_of(whole)
        for template in stage.outputs
    ]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else (path / "seed-0").mkdir(parents=True)
    experiments._drop_others(config)
    metrics = tuple(f"-{name}.json" for name in gone)
    left = [p for p in made if not gone.intersection(p.parts) and not p.name.endswith(metrics)]
    assert [path for path in made if path.exists()] == left
    assert {p.parts[1] for p in set(made) - set(left)} >= {
        "cache",
        "train",
        "metrics",
        "generalize",
    }
    assert Path("artifacts/transcripts/explain/native") in set(made) - set(left)
