"""The README says what the committed results say, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SUMMARY = ROOT / "paper/results/default/summary.md"


def test_the_summary_is_the_one_in_the_results():
    start = README.index(f"<!-- {SUMMARY.relative_to(ROOT)} -->\n")
    inside = README[start:].split("-->\n", 1)[1].split("<!-- end -->", 1)[0]
    assert inside.strip() == SUMMARY.read_text(encoding="utf-8").strip(), (
        "copy paper/results/default/summary.md between the markers"
    )


def test_every_file_that_it_links_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("words", sorted(set(re.findall(r"`clearnets ([a-z][^`]*)`", README))))
def test_its_commands_exist_with_their_options(words):
    command, *rest = words.replace("NAME", "smoke").split()
    text = CliRunner().invoke(cli.app, [command, "--help"])
    assert text.exit_code == 0, words
    for option in rest:
        assert not option.startswith("--") or option in text.output, words


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))))
def test_its_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
