"""Explanations that people wrote, scored: against what stage `score` stored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import small_world as world

from clearnets import UserError
from clearnets.analysis.statistics import balanced_accuracy
from clearnets.autointerp.records import EXPLANATIONS, SCORED, SCORERS
from clearnets.browser import written
from clearnets.config import Config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.stages import score

FAMILY, POINT = "native", "layers.1.mlp"
LINE = {"experiment": "default", "family": FAMILY, "seed": 0, "layer": 1}


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def judged(file: Path, *lines: dict, config: Config | None = None) -> written.Scored:
    file.write_text("".join(json.dumps(LINE | line) + "\n" for line in lines))
    config = config or world.config()
    read = written.read(file, config)
    layers = config.model.layers
    return written.judge(config, read, lambda f: score.units(config, family=f, layers=layers))


def stored() -> dict[int, dict]:
    """The scores of the latents that have any."""
    found = read_jsonl(paths.score(FAMILY, 0, POINT) / SCORED)
    return {record["latent"]: record for record in found if record["detection"]}


def sentences(family: str = FAMILY, point: str = POINT) -> dict[int, str]:
    found = read_jsonl(paths.explain(family, 0, point) / EXPLANATIONS)
    return {record["latent"]: record["explanation"] for record in found}


def test_the_explainers_own_sentence_gets_the_score_that_is_stored(tmp_path):
    said, there = sentences(), stored()
    assert len(there) > 3
    found = judged(tmp_path / "a", *({"latent": n, "explanation": said[n]} for n in there))
    assert [row["by"] for row in found.rows] == ["person", "explainer"] * len(there)
    for row in found.rows:
        for scorer in SCORERS:
            counts = there[row["latent"]][scorer]
            assert row[f"rule-{scorer}"] == balanced_accuracy(**counts)


def test_sentences_of_other_latents_get_the_scores_of_the_shuffled_control(tmp_path):
    """One by one, so that each is judged alone; their mean is what `score` stored."""
    said, there = sentences(), stored()
    latent = next(iter(there))
    alone = [
        judged(tmp_path / "a", {"latent": latent, "explanation": said[other]}).rows[0]
        for other in there
        if other != latent
    ]
    for scorer in SCORERS:
        mean = np.mean([row[f"rule-{scorer}"] for row in alone])
        assert mean == pytest.approx(there[latent][f"{scorer}_shuffled"], abs=1e-6)


def test_what_fires_everywhere_is_at_chance_and_what_is_no_rule_is_said(tmp_path, capsys):
    one, other, third = list(stored())[:3]
    dead = next(latent for latent, text in sentences().items() if latent not in stored())
    (unigram, word), *_ = (pair for pair in sentences("token-unigram", "tokens").items() if pair[1])
    found = judged(
        tmp_path / "a",
        {"latent": one, "explanation": "names of animals"},
        {"latent": one, "explanation": "Any word"},  # The last counts.
        {"latent": other, "explanation": "names of animals"},
        {"latent": third, "explanation": 'The word "zebra" right after "quagga"'},
        {"latent": dead, "explanation": "Any word."},
        {"family": "token-unigram", "layer": None, "latent": unigram, "explanation": word},
    )
    by_latent = {row["latent"]: row for row in found.rows if row["by"] == written.PERSON}
    assert by_latent[one]["rule-detection"] == by_latent[one]["rule-fuzzing"] == 0.5
    assert by_latent[third]["rule-detection"] == 0.5, "it fires nowhere"
    assert written.show(found, world.config())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "latent\tby\trule-detection\trule-fuzzing\texplanation"
    assert f"native/1/{one}\tperson\t0.500\t0.500\tAny word" in lines
    assert any(line.startswith(f"token-unigram/tokens/{unigram}\tperson\t") for line in lines)
    assert [line for line in lines if line.startswith("not in this text")] == [
        f'not in this text: The word "zebra", The word "quagga"; {written.UNKNOWN}'
    ]
    (refused,) = (line for line in lines if "docs/rules.md" in line)
    assert refused.startswith(f"no score for native/1/{other}: not in the language of rules, ")
    assert any(line.startswith(f"no score for native/1/{dead}: active") for line in lines)

    written.write(found, tmp_path / "out/scores.csv")
    with (tmp_path / "out/scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["explanation"] for row in rows if row["latent"] == str(other)] == [
        *("names of animals", sentences()[other]),
    ]
    with pytest.raises(UserError, match=r"out cannot be written \(Is a directory\); choose"):
        written.write(found, tmp_path / "out")
    nothing = judged(tmp_path / "a", {"latent": other, "explanation": "names of animals"})
    assert not written.show(nothing, world.config())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"latent": 10_000}, "was not drawn; take one that is in `clearnets browse`"),
        ({"latent": "1"}, "line 1: no explanation; save one from the page"),
        ({"explanation": "  "}, "line 1: no explanation; save one from the page"),
        ({"experiment": "smoke"}, "line 1: of experiment 'smoke', and this is 'default'; choose"),
        ({"family": "saes"}, "line 1: unknown family 'saes'; choose one of native"),
        ({"family": "skip-transcoder"}, "line 1: experiment 'default' has no family"),
        ({"family": "sae"}, r"artifacts/\S+ is missing; run `dvc repro \S+` first"),
        ({"seed": 7}, "line 1: no training seed 7; choose one of 0"),
        ({"layer": 9}, "line 1: no layer 9; layers go from 0 to 1"),
        ({"layer": None}, "line 1: no layer None; layers go from 0 to 1"),
    ],
)
def test_a_line_that_cannot_be_scored_is_one_message_with_a_cure(tmp_path, line, says):
    config = world.config()
    config = config.model_copy(update={"families": (*config.families, "sae")})
    with pytest.raises(UserError, match=says) as error:
        judged(tmp_path / "a", {"latent": 1, "explanation": "Any word."} | line, config=config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b"[]\n", b"{\n", b"\xff\n", b"7\n"])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "a").write_bytes(text)
    with pytest.raises(UserError, match="no explanation; save one from the page of `clearnets br"):
        written.read(tmp_path / "a", world.config())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('The word "fox".', 'The word "fox".'),
        ('the mark "!" inside a quotation', 'the mark "!" inside a quotation.'),
        ("“fox” or ‘owl’", "\"fox\" or 'owl'."),
        ('The mark "”".', 'The mark "”".'),
        ("The fox", None),
        ("", None),
    ],
)
def test_turned_quotes_and_a_missing_full_stop_are_forgiven(text, rule):
    assert written.as_rule(text) == rule


def test_scores_of_other_parameters_are_not_set_beside_these(tmp_path):
    config = world.config()
    other = config.model_copy(update={"score": config.score.model_copy(update={"seed": 9})})
    with pytest.raises(UserError, match="of other parameters or inputs; run `dvc repro score@nat"):
        judged(tmp_path / "a", {"latent": 1, "explanation": "Any word."}, config=other)
