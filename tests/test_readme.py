"""The README and docs/ say what the committed results say, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import stated
from typer.testing import CliRunner

from clearnets import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
TEXT = "\n".join(PAGES.values())
RESULTS = "paper/results"
SUMMARY = f"{RESULTS}/default/summary.md"


def test_its_table_is_the_first_of_the_results(committed):
    start = README.index(f"<!-- {SUMMARY} -->\n")
    inside = README[start:].split("-->\n", 1)[1].split("<!-- end -->", 1)[0]
    first = (committed / SUMMARY).read_text(encoding="utf-8").split("\n\n", 1)[0]
    assert inside.strip() == first.strip(), (
        "copy the first table of paper/results/default/summary.md between the markers"
    )


@pytest.mark.parametrize("page", PAGES)
def test_the_numbers_that_it_states_are_those_of_the_tables(page, committed):
    found = [
        f"{said.shown} should be {right}: {said.address}"
        for said, right in stated.wrong(PAGES[page], committed / RESULTS)
    ]
    assert not found, (
        f"run `python tests/stated.py --write`, read {page} again, and `git add {RESULTS}`"
    )


@pytest.mark.parametrize(
    ("page", "heading"),
    [("README.md", "What came out"), ("docs/artifact.md", "Expected results")],
)
def test_every_number_of_a_section_of_results_has_an_address(page, heading):
    section = re.split(r"^##+ ", PAGES[page].split(f"## {heading}\n", 1)[1], flags=re.M)[0]
    prose = section.split(f"<!-- {SUMMARY} -->")[0]
    assert len(list(stated.statements(prose))) > 10
    assert stated.unstated(prose) == []


PAGE = """
Of 2 families one has 64 % and +0.117 [+0.106,
+0.128] more; `0.5` and [it](4.md) and l0 are no results.
<!-- states
count t family=a|b
t share family=a
t more family=a
-->
- A second has 1.5 times as much of 1.75 M.
  <!-- states
  t share family=b / t share family=a
  max t tokens
  -->
"""
TABLE = """family,scorer,share,tokens,more,low,high
a,rule-detection,0.64,1748992,0.1171,0.1058,0.1284
b,rule-detection,0.96,1136640,-0.02,-0.03,-0.01
b,rule-fuzzing,0.11,,,,
"""


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "default").mkdir()
    (tmp_path / "default/t.csv").write_text(TABLE)
    return tmp_path


def test_a_number_is_compared_as_it_is_printed(tables):
    assert stated.wrong(PAGE, tables) == []


@pytest.mark.parametrize(
    ("there", "then", "shown", "right"),
    [
        ("0.64", "0.72", ["64 %", "1.5"], ["72 %", "1.3"]),
        ("0.1284", "0.1291", ["+0.117 [+0.106,\n+0.128]"], ["+0.117 [+0.106, +0.129]"]),
        ("0.1171,0.1058", "-0.1171,-0.1258", None, ["−0.117 [−0.126, +0.128]"]),
        ("1748992", "1760000", ["1.75 M"], ["1.76 M"]),
        ("a,rule-detection", "a,rule-fuzzing", None, None),
    ],
)
def test_a_number_that_a_table_no_longer_has_is_found_and_mended(tables, there, then, shown, right):
    (tables / "default/t.csv").write_text(TABLE.replace(there, then))
    if right is None:  # no such row
        with pytest.raises(ValueError, match="0 rows"):
            stated.wrong(PAGE, tables)
        return
    found = stated.wrong(PAGE, tables)
    assert [number for _, number in found] == right
    assert shown is None or [said.shown for said, _ in found] == shown
    mended = stated.corrected(PAGE, tables)
    assert stated.wrong(mended, tables) == []
    assert all(number in mended for number in right)


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("1 and 2\n<!-- states\nt share family=a\n-->", "1 addresses for 2 numbers"),
        ("1\n<!-- states\nt share family=c\n-->", "0 rows, not one"),
        ("1\n<!-- states\nt none family=a\n-->", "there is no 'none'"),
        ("1\n<!-- states\nother share\n-->", "there is no .*other.csv"),
        ("1\n<!-- states\nparams model.none\n-->", "there is no 'none'"),
        ("1 [0, 2]\n<!-- states\nparams model.k\n-->", "has no interval"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(tables, page, says):
    with pytest.raises(ValueError, match=says):
        stated.wrong(page, tables)


def test_numbers_without_an_address_are_found(tables):
    assert stated.unstated(PAGE + "\n9 more.") == ["9"]


def test_the_latent_in_the_terminal_has_the_scores_of_the_tables(committed):
    svg = (ROOT / "docs/show.svg").read_text(encoding="utf-8")
    text = " ".join(re.findall(r"<text[^>]*>(.*?)</text>", svg)).replace("&#160;", " ")
    title = re.search(r"clearnets show (\S+) (\d+) (\d+)", text)
    assert title is not None
    where = dict(zip(("family", "layer", "latent"), title.groups(), strict=True))
    address = " ".join(f"{key}={value}" for key, value in where.items())
    for table, scorer in (
        ("latents", "rule-detection"),
        ("latents", "rule-fuzzing"),
        ("embedding", "embedding"),
    ):
        score, _ = stated.read(f"{table} {scorer} {address}", committed / RESULTS)
        assert f"{scorer} {score:.2f}" in text, (
            f"run `python docs/terminal.py` after a run, and `git add {RESULTS}`"
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
