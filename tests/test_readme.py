"""The README and docs/ say what the committed results say, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearnets import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TEXT = "\n".join(PAGES.values())
SUMMARY = ROOT / "paper/results/default/summary.md"


def test_its_table_is_the_first_of_the_results():
    start = README.index(f"<!-- {SUMMARY.relative_to(ROOT)} -->\n")
    inside = README[start:].split("-->\n", 1)[1].split("<!-- end -->", 1)[0]
    first = SUMMARY.read_text(encoding="utf-8").split("\n\n", 1)[0]
    assert inside.strip() == first.strip(), (
        "copy the first table of paper/results/default/summary.md between the markers"
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_is_there(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page])
    local = [link for link in links if "://" not in link]
    folder = (ROOT / page).parent
    assert [link for link in local if not (folder / link).exists()] == []


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", README))
    assert linked == set(PAGES) - {"README.md"}


@pytest.mark.parametrize("words", sorted(set(re.findall(r"`clearnets ([a-z][^`]*)`", TEXT))))
def test_commands_exist_with_their_options(words):
    command, *rest = words.split()
    text = CliRunner().invoke(cli.app, [command, "--help"])
    assert text.exit_code == 0, words
    for option in rest:
        assert not option.startswith("--") or option in text.output, words


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.M))))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
