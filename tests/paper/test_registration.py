"""Claims about primary contrasts answer hypotheses that were registered before the grid was run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clearnets import UserError
from clearnets.analysis import contrasts
from clearnets.config import load, read_yaml
from clearnets.families import FAMILIES
from clearnets.paper import claims

ROOT = Path(__file__).parents[2]
REGISTERED = read_yaml(ROOT / claims.REGISTRATION)
HYPOTHESES = REGISTERED["hypotheses"]


def test_claims_on_primary_contrasts_are_registered(monkeypatch):
    monkeypatch.chdir(ROOT)
    for claim in claims.read():
        if claim.holds and claim.holds.table.split("/")[-1] == "primary":
            assert claim.registered in HYPOTHESES, claim.name
            assert HYPOTHESES[claim.registered]["primary"], claim.name


def test_an_unknown_hypothesis_is_refused(tmp_path):
    shutil.copyfile(ROOT / claims.REGISTRATION, tmp_path / claims.REGISTRATION.name)
    path = tmp_path / "claims.yaml"
    path.write_text("claims:\n  - {name: n, says: s, file: README.md, registered: H9}\n")
    with pytest.raises(UserError, match="no hypothesis H9; there are: H1a, H1b, H2, H3"):
        claims.read(path)
    path.write_text("claims:\n  - {name: n, says: s, file: README.md, registered: H2}\n")
    assert claims.read(path)[0].registered == "H2"


def test_primary_hypotheses_compare_families_of_one_selection():
    primary = [found["contrast"] for found in HYPOTHESES.values() if found["primary"]]
    for contrast in primary:
        native, coder = FAMILIES[contrast["a"]], FAMILIES[contrast["b"]]
        assert native.kind == "native"
        assert coder.contrast == "primary"
        assert native.selection == coder.selection
    design = REGISTERED["design"]
    tested = design["where"].items() | {("kind", "primary")}
    assert contrasts.PRIMARY.items() == tested
    for scorer in design["scorers"]:
        assert contrasts.role(contrasts.PRIMARY | {"scorer": scorer}) == "primary"
    assert design["tests"] == len(primary) * len(design["scorers"])


def test_the_margin_is_the_one_that_the_tables_use():
    settings = load(ROOT / "params.yaml").collate
    assert REGISTERED["margin"]["value"] == settings.equivalence
    assert REGISTERED["design"]["level"] == pytest.approx(1 - settings.confidence)
