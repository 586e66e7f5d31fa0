"""One circuit on a terminal, and as circuit-tracer's graph."""

from __future__ import annotations

from types import NoneType

import pytest
import synthetic_results

from clearnets import UserError
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.browser import circuit
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_jsonl

CONFIG = synthetic_results.few()
# The fields of the published package: circuit_tracer/frontend/graph_models.py at 4bb8c0ea.
NODE = {
    "node_id": str,
    "feature": int,
    "layer": str,
    "ctx_idx": int,
    "feature_type": str,
    "token_prob": float,
    "is_target_logit": bool,
    "run_idx": int,
    "reverse_ctx_idx": int,
    "jsNodeId": str,
    "clerp": str,
    **dict.fromkeys(("influence", "activation"), (float, NoneType)),
}
METADATA = {
    "slug": str,
    "scan": str,
    "transcoder_list": list,
    "prompt_tokens": list,
    "prompt": str,
    "node_threshold": (float, NoneType),
    "schema_version": int,
}
PARAMS = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str}
LINK = {"source": str, "target": str, "weight": float}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What the command reads; latent 7 of layer 1 has an explanation."""
    monkeypatch.chdir(tmp_path)
    for _, work in build_all([Unit("circuits", paths.circuits("native", 0), {}, {})]):
        synthetic_results.circuits(work.out, "native", 0)
    for layer, point in CONFIG.hookpoints_by_layer("native").items():
        for _, work in build_all([Unit("explain", paths.explain("native", 0, point), {}, {})]):
            said = [{"latent": 7, "explanation": "Active on boots."}] if layer == 1 else []
            write_jsonl(work.out / EXPLANATIONS, said)


def find(task: str = "wear", family: str = "native") -> circuit.Circuit:
    return circuit.find(CONFIG, family, task, 3, seed=None)


def test_it_prints_the_largest_effects(project):
    text = "\n".join(circuit.lines(find()))
    assert "native · wear" in text
    assert "→ boots, not hat" in text
    rows = text.splitlines()[-3:]
    assert [row.split()[:3] for row in rows] == [
        ["+1.000", "0", "0"],
        ["+0.500", "1", "7"],
        ["+0.333", "0", "14"],
    ]
    assert rows[1].endswith("Active on boots.")


def test_its_graph_is_of_the_published_format(project):
    graph = circuit.graph(find())
    for part, fields in (
        *((graph["metadata"], METADATA), (graph["qParams"], PARAMS)),
        *((node, NODE) for node in graph["nodes"]),
        *((link, LINK) for link in graph["links"]),
    ):
        assert set(part) == set(fields)
        assert all(isinstance(part[name], kind) for name, kind in fields.items())
    names = [node["node_id"] for node in graph["nodes"]]
    assert len(set(names)) == len(names)
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(
        names
    )
    latent = graph["nodes"][names.index("1_7_3")]
    assert latent["feature"] == (1 + 7) * (1 + 7 + 1) // 2 + 7
    answer = graph["nodes"][-1]
    links = {(link["source"], link["target"]): link["weight"] for link in graph["links"]}
    assert links.pop(("0_0_3", "1_7_3")) == 0.5
    assert set(links) == {(name, answer["node_id"]) for name in ("0_0_3", "1_7_3", "0_14_3")}


def test_its_viewer_can_read_it(project):
    """What the viewer's attribution_graph/util-cg.js takes for granted."""
    graph = circuit.graph(find())
    answer = graph["nodes"][-1]
    # d.clerp.split('(p=')[1].split(')')[0]
    assert float(answer["clerp"].split("(p=")[1].split(")")[0]) == pytest.approx(
        answer["token_prob"], abs=5e-4
    )
    # The probability of a logit difference of 2.
    assert answer["token_prob"] == pytest.approx(2.718281828**2 / (1 + 2.718281828**2))
    # A latent is left out where its influence exceeds a threshold from 0 to 1.
    shares = [node["influence"] for node in graph["nodes"] if node["influence"] is not None]
    assert shares == pytest.approx([6 / 11, 9 / 11, 1.0])


def test_mistakes_are_one_line(project):
    with pytest.raises(UserError, match="unknown task 'nope'; there are: wear, nonsense"):
        find("nope")
    with pytest.raises(UserError, match="has no circuits; families that have: native"):
        circuit.find(synthetic_results.small(), "random-transcoder", "wear", 3, seed=None)
