"""What archives read about the project says what the project's own metadata says."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from clearnets.config import read_yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = read_yaml(ROOT / "CITATION.cff")
ZENODO = json.loads((ROOT / ".zenodo.json").read_text())


def test_name_version_licence_and_keywords_are_those_of_the_package():
    for found in (CITATION, ZENODO):
        assert found["title"] == PROJECT["name"]
        assert found["version"] == PROJECT["version"]
        assert found["license"] == PROJECT["license"]
        assert found["keywords"] == PROJECT["keywords"]


def test_authors_and_description_are_the_same_everywhere():
    names = [author["name"] for author in PROJECT["authors"]]
    assert [author["name"] for author in CITATION["authors"]] == names
    assert [author["name"] for author in ZENODO["creators"]] == names
    assert " ".join(CITATION["abstract"].split()) == ZENODO["description"]


def test_what_is_cited_is_in_the_papers_references():
    known = (ROOT / "paper/references.bib").read_text()
    cited = [one["url"] for one in CITATION["references"]]
    assert all(f"{{{url}}}" in known for url in cited)
    related = [one["identifier"].removeprefix("arXiv:") for one in ZENODO["related_identifiers"]]
    assert [url.rpartition("/")[2] for url in cited] == related
