"""The paper follows its tables: another result, another sentence; and nothing enters it by hand."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from clearnets import artifacts, config, latex, manuscript
from clearnets.artifacts import UserError

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "paper"
RESULTS = Path("paper/results/default")
PRIMARY = {
    "a": "native",
    "b": "transcoder",
    "scorer": "rule-detection",
    "layers": "all",
    "latents": "explained",
    "matching": "none",
    "measure": "balanced_accuracy",
    "seed": "all",
}
pytestmark = pytest.mark.skipif(
    not (ROOT / RESULTS / "manifest.json").exists(), reason="the results are not in this checkout"
)


def load_lint():
    spec = importlib.util.spec_from_file_location("paper_lint", PAPER / "lint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Texts(HTMLParser):
    """The running text of a page, without what only styles it."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("style", "svg", "head")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "svg", "head")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def text_of(place: manuscript.Place) -> str:
    texts = _Texts()
    texts.feed(manuscript.as_html(place))
    return " ".join("".join(texts.parts).split())


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The paper's sources on a copy of its results, with the parameters that made them."""
    unread = shutil.ignore_patterns("*.svg", "scripts", "results", "tables", "clearnets.pdf")
    shutil.copytree(PAPER, tmp_path / "paper", ignore=unread)
    shutil.copytree(ROOT / RESULTS, tmp_path / RESULTS)
    monkeypatch.chdir(tmp_path)
    recorded = artifacts.settings_of(RESULTS)
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for key, value in recorded.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        values = config.overlay(values, value)
    with Path("params.yaml").open("w") as file:
        YAML().dump(values, file)
    return tmp_path


def place() -> manuscript.Place:
    return manuscript.place_of("default", tracked=True)


def change(table: str, where: dict[str, str], values: dict[str, object]) -> None:
    """Set columns of the one row that `where` selects, and have the manifest know."""
    path = RESULTS / f"{table}.csv"
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    found = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert len(found) == 1
    found[0].update({key: str(value) for key, value in values.items()})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    reseal()


def reseal() -> None:
    manifest = json.loads((RESULTS / "manifest.json").read_text())
    manifest["files"] = {
        path.name: {"size": path.stat().st_size, "sha256": artifacts.sha256(path)}
        for path in sorted(RESULTS.glob("*.csv"))
    }
    (RESULTS / "manifest.json").write_text(json.dumps(manifest))


def test_another_result_is_another_sentence(project):
    told = []
    for low, high in ((0.1111, 0.2222), (-0.2222, -0.1111), (-0.1111, 0.1111)):
        middle = (low + high) / 2
        change("contrasts", PRIMARY, {"difference": middle, "low": low, "high": high})
        text = text_of(place())
        abstract = text[text.index("Abstract") : text.index("Introduction")]
        told.append(re.search(r"explained latents score (.*?) those of transcoders", abstract)[1])
        signed = [f"{value:+.3f}".replace("-", "−") for value in (middle, low, high)]
        number = "{} [{}, {}]".format(*signed)
        # In the abstract, in the section on scores, and in the table of contrasts.
        assert text.count(number) == 3
        assert number in abstract
    assert told == ["higher than", "lower than", "not distinguishably otherwise than"]


def test_the_same_tables_give_the_same_bytes_wherever_and_whenever(project, monkeypatch):
    manuscript.run(place())
    first = place().out.read_bytes()
    tables = {path.name: path.read_bytes() for path in place().latex.iterdir()}
    assert first.startswith(b"%PDF")
    assert len(first) < 2**20
    assert not manuscript.differs(place())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("TYPST_FONT_PATHS", "/usr/share/fonts")
    manuscript.run(place())
    assert place().out.read_bytes() == first
    assert {path.name: path.read_bytes() for path in place().latex.iterdir()} == tables
    place().out.write_bytes(first[:-1])
    assert manuscript.differs(place())


def unescaped(cell: str) -> str:
    """What LaTeX prints for a cell, by rules of its own."""
    for mark, text in (("$-$", "−"), ("{[}", "["), ("{]}", "]"), ("--", "–")):
        cell = cell.replace(mark, text)
    return re.sub(r"\\([&%$#_{}])", r"\1", cell).replace("$", "").strip()


def test_latex_tables_are_balanced_and_hold_the_numbers_of_the_results(project):
    manuscript.run(place())
    tables = {path.stem: path.read_text() for path in place().latex.glob("*.tex")}
    assert {"summary", "contrasts", "concepts", "fidelity", "ranking"} <= set(tables)
    for text in tables.values():
        opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
        assert opened == closed[::-1] == ["table", "tabular"]
        bare = re.sub(r"\\[{}]", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0 or r"\$" in bare
        columns = len(re.search(r"\\begin{tabular}{([lr]+)}", text)[1])
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {columns}
        assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    with (RESULTS / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [line for line in tables["summary"].splitlines() if line.endswith(r"\\")][1:]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows):
        cells = [unescaped(cell) for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
        found = [float(number) for number in re.findall(r"\d+\.\d+", cells[4])]
        wanted = [float(row[f"detection{end}"]) for end in ("", "_low", "_high")]
        assert found == pytest.approx(wanted, abs=0.00501)
        assert float(cells[1].removesuffix("%")) == pytest.approx(
            100 * float(row["explained"]), abs=0.51
        )
        assert cells[3].replace(",", "") == row["detection_n"]


def test_latex_escapes_what_it_would_read():
    text = latex.tabular(["a_b", "c"], [["50 % & #1", "[−0.1, {x}]"]], caption="x^2 $", label="t")
    assert r"a\_b & c \\" in text
    assert r"50 \% \& \#1 & {[}$-$0.1, \{x\}{]} \\" in text
    assert r"\caption{x\textasciicircum{}2 \$}" in text
    with pytest.raises(ValueError, match="not as long"):
        latex.tabular(["a"], [["1", "2"]], caption="", label="t")


def test_what_is_missing_is_one_line_that_names_the_cure(project):
    (RESULTS / "contrasts.csv").rename(RESULTS / "aside")
    with pytest.raises(UserError, match=r"contrasts.csv is missing; .*run `dvc repro collate`"):
        manuscript.run(place())
    reseal()
    with pytest.raises(
        UserError, match=r"contrasts.csv is missing; run `dvc repro collate"
    ) as told:
        manuscript.run(place())
    assert "\n" not in str(told.value)
    shutil.rmtree(RESULTS)
    with pytest.raises(UserError, match=r"results/default.* is missing; run `dvc repro collate`"):
        manuscript.run(place())
    assert not place().out.exists()


def test_a_row_that_is_not_there_stops_the_compiler(project):
    change("contrasts", PRIMARY, {"seed": "none"})
    with pytest.raises(UserError, match=r"contrasts.csv has 0 rows with a=.native.*not one;"):
        manuscript.run(place())


def test_defaults_that_params_leaves_out_are_no_other_parameters(project):
    values = YAML(typ="safe").load(Path("params.yaml").read_text())
    recorded = artifacts.settings_of(RESULTS)["score.scorers"]
    assert recorded == values["score"]["scorers"] == [{"kind": "rules"}]
    values["score"]["scorers"] = [{}]
    del values["collate"]["resamples"]
    with Path("params.yaml").open("w") as file:
        YAML().dump(values, file)
    manuscript._check_parameters(place())


def test_parameters_other_than_those_of_the_results_are_refused(project):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("resamples: 2000", "resamples: 2001"))
    with pytest.raises(UserError, match=r"other parameters than params.yaml has \(collate.resam"):
        manuscript.run(place())


def test_another_experiment_gets_a_report_without_sentences(project):
    path = RESULTS / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["experiment"] = "other"
    path.write_text(json.dumps(manifest))
    Path("params.yaml").write_text(
        Path("params.yaml").read_text().replace("experiment: default", "experiment: other")
    )
    for name in ("concept_summary", "generalization_ranking"):
        (RESULTS / f"{name}.csv").unlink()
    reseal()
    text = text_of(place())
    assert "Report of the experiment other" in text
    assert "Abstract" not in text
    assert "Every parameter of the experiment" in text
    assert "Known concepts recovered by" not in text


def test_another_experiment_enters_the_text_where_it_has_run(project):
    assert "At the published size" not in text_of(place())
    other = RESULTS.with_name("grokking-113")
    other.mkdir()
    for name in ("generalization_runs", "generalization_phases"):
        shutil.copy(RESULTS / f"{name}.csv", other)
    shutil.copy("params.yaml", other)
    with (RESULTS / "generalization_runs.csv").open(newline="") as file:
        run = next(row for row in csv.DictReader(file) if row["run"] == "sparse-0")
    told = text_of(place())
    told = told[told.index("At the published size") :]
    assert f"ends at {float(run['test_accuracy']):.3f} and" in told


def test_no_number_is_written_by_hand():
    lint = load_lint()
    assert len(lint.sources()) > 8
    command = [sys.executable, str(PAPER / "lint.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    "line",
    [
        "They score 0.73 in rule-detection.",
        "A share of 9 % is dead.",
        "We trained 48 runs.",
        '#csv("/paper/results/default/means.csv")',
        "#shown(row, column)",
        'scored (#result("means")); others',
    ],
)
def test_the_lint_sees_what_is_written_by_hand(line):
    lint = load_lint()
    (fault,) = lint.faults("sections/results.typ", f"fine\n{line}\n")
    assert fault.startswith("paper/sections/results.typ:2: ")


@pytest.mark.parametrize(
    "line",
    [
        '#result("means", digits: 3) nats // 0.73',
        "@paulo2024 and #cite(<gao2025>)",
        "three seeds, chance is one half, at least 3",
        r"(#result(..a)\; #result(..b))",
    ],
)
def test_the_lint_leaves_prose_alone(line):
    assert list(load_lint().faults("sections/results.typ", line)) == []


def test_every_reference_is_cited_and_every_citation_has_one():
    keys = set(re.findall(r"^@\w+{(\w+),", (PAPER / "references.bib").read_text(), re.M))
    text = "".join(path.read_text() for path in (PAPER / "sections").glob("*.typ"))
    cited = set(re.findall(r"(?:@|cite\(<)([a-z]+\d{4}[a-z]*)", text))
    assert cited == keys
