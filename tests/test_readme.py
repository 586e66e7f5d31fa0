"""The README and docs/ say what the committed results say, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from clearnets import UserError
from clearnets.paper import addresses
from clearnets.paper.addresses import Address

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
RESULTS = "paper/results"
SUMMARY = f"{RESULTS}/default/summary.md"


@pytest.fixture(scope="module")
def page_numbers(load_script):
    return load_script("docs/page_numbers.py")


def test_its_table_is_the_first_of_the_results(committed):
    page = PAGES["docs/results.md"]
    start = page.index(f"<!-- {SUMMARY} -->\n")
    inside = page[start:].split("-->\n", 1)[1].split("<!-- end -->", 1)[0]
    first = (committed / SUMMARY).read_text(encoding="utf-8").split("\n\n", 1)[0]
    assert inside.strip() == first.strip(), (
        "copy the first table of paper/results/default/summary.md between the markers"
    )


def test_the_numbers_of_the_pages_are_those_of_the_tables(committed, page_numbers):
    tables = addresses.tables_in(committed / RESULTS / "default")
    pages = page_numbers.read()
    assert len(pages["docs/results.md"]["What came out"]) > 10
    assert len(pages["docs/artifact.md"]["Expected results"]) > 10
    for name, sections in pages.items():
        found = page_numbers.wrong(PAGES[name], sections, tables)
        assert found == [], (
            f"run `python docs/page_numbers.py --write`, read {name} again and `git add {RESULTS}`"
        )


PAGE = """
# One
Of 2 families one has 64 % and +0.117 [+0.106,
+0.128] more; `0.5` and [it](4.md) and l0 are no results, and 3 ms is measured.
- A second has 1.5 times as much of 1.75 M.
<!-- paper/results/default/summary.md -->
| 7 |
<!-- end -->
## Two
9 more.
"""
ADDRESSES = """
- {table: t, where: {family: [a, b]}}
- {table: t, column: share, where: {family: a}}
- {table: t, column: more, where: {family: a}}
- {table: t, column: share, where: {family: b}, per: {table: t, column: share, where: {family: a}}}
- {table: t, column: tokens, how: max}
"""
TABLE = """family,scorer,share,tokens,more,low,high
a,rule-detection,0.64,1748992,0.1171,0.1058,0.1284
b,rule-detection,0.96,1136640,-0.02,-0.03,-0.01
b,rule-fuzzing,0.11,,,,
"""


@pytest.fixture
def wrong(tmp_path, page_numbers):
    """A function that returns what is wrong with a page, given its addresses and a table."""

    def wrong(page, yaml=ADDRESSES, table=TABLE):
        sections = TypeAdapter(dict[str, list[page_numbers.Source]]).validate_python(
            {"One": YAML(typ="safe").load(yaml)}
        )
        (tmp_path / "t.csv").write_text(table)
        tables = addresses.tables_in(tmp_path)
        found = page_numbers.wrong(page, sections, tables)
        mended = page_numbers.corrected(page, sections, tables)
        assert page_numbers.wrong(mended, sections, tables) == []
        assert all(right in mended for _, right in found)
        return [(number.shown, right) for number, right in found]

    return wrong


def test_a_number_is_compared_as_it_is_printed(wrong):
    assert wrong(PAGE) == []


@pytest.mark.parametrize(
    ("there", "then", "found"),
    [
        ("0.64", "0.72", [("64 %", "72 %"), ("1.5", "1.3")]),
        ("0.1284", "0.1291", [("+0.117 [+0.106,\n+0.128]", "+0.117 [+0.106, +0.129]")]),
        (
            "0.1171,0.1058",
            "-0.1171,-0.1258",
            [("+0.117 [+0.106,\n+0.128]", "−0.117 [−0.126, +0.128]")],
        ),
        ("1748992", "1760000", [("1.75 M", "1.76 M")]),
    ],
)
def test_a_number_that_a_table_no_longer_has_is_found_and_mended(wrong, there, then, found):
    assert wrong(PAGE, table=TABLE.replace(there, then)) == found


@pytest.mark.parametrize(
    ("numbers", "yaml", "says"),
    [
        ("1 and 2", "[by hand]", "1 addresses for 2 numbers: 1, 2"),
        ("1", "[{table: t, column: share, where: {family: c}}]", "0 rows with family=c, not one"),
        ("1", "[{table: t, column: none, where: {family: a}}]", "no column 'none'"),
        ("1", "[{table: other, column: share}]", "no .*other.csv"),
        ("1", "[{setting: model.none}]", "params.yaml has no model.none"),
        ("1 [0, 2]", "[{setting: model.k}]", "no interval for 1"),
        ("1", "[{table: t, column: tokens, where: {scorer: rule-fuzzing}}]", "no number in tokens"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(wrong, numbers, yaml, says):
    with pytest.raises((ValueError, UserError), match=says):
        wrong(f"# One\n{numbers}\n", yaml)


def test_a_section_that_is_not_there_is_found(wrong):
    with pytest.raises(ValueError, match="there is no section 'One'"):
        wrong("# Another\n1\n")


def test_the_latent_in_the_terminal_has_the_scores_of_the_tables(committed):
    svg = (ROOT / "docs/show.svg").read_text(encoding="utf-8")
    text = " ".join(re.findall(r"<text[^>]*>(.*?)</text>", svg)).replace("&#160;", " ")
    title = re.search(r"clearnets show (\S+) (\d+) (\d+)", text)
    assert title is not None
    where = dict(zip(("family", "layer", "latent"), title.groups(), strict=True))
    tables = addresses.tables_in(committed / RESULTS / "default")
    for table, scorer in (
        ("latents", "rule-detection"),
        ("latents", "rule-fuzzing"),
        ("embedding", "embedding"),
    ):
        score, _ = addresses.value(tables, Address(table=table, column=scorer, where=where))
        assert f"{scorer} {score:.2f}" in text, "run `python docs/terminal.py` after a run"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_is_there(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page])
    local = [link for link in links if "://" not in link]
    folder = (ROOT / page).parent
    assert [link for link in local if not (folder / link).exists()] == []


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", README))
    assert linked == set(PAGES) - {"README.md"}
