"""The paper follows its tables: another result, another sentence; and nothing enters it by hand."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from clearnets import UserError, config
from clearnets.paper import addresses, claims, manuscript
from clearnets.pipeline import artifacts

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "paper"
RESULTS = Path("paper/results/default")


def text_of(place: manuscript.Place) -> str:
    """The running text of the page, without what only styles it."""
    page = re.sub(r"<(style|svg|head)\b.*?</\1>", "", manuscript.as_html(place), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())


@pytest.fixture
def project(committed, tmp_path, monkeypatch) -> Path:
    """The paper's sources on a copy of its results, with the parameters that made them."""
    unread = shutil.ignore_patterns("*.pdf", "scripts", "results", "figures", "tables")
    shutil.copytree(PAPER, tmp_path / "paper", ignore=unread)
    shutil.copytree(committed / RESULTS, tmp_path / RESULTS)
    figures = Path("paper/figures")
    shutil.copytree(committed / figures, tmp_path / figures, ignore=unread)
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
    """Set columns of the one row at an address, and have the manifest know."""
    tables = addresses.tables_in(RESULTS)
    found = addresses.select(tables, addresses.Rows(table=table, where=where))
    assert len(found) == 1
    frame = tables(table).copy()
    frame.loc[found.index, list(values)] = list(map(str, values.values()))
    frame.to_csv(RESULTS / f"{table}.csv", index=False)
    reseal()


def reseal() -> None:
    manifest = json.loads((RESULTS / "manifest.json").read_text())
    manifest["files"] = {
        path.name: {"size": path.stat().st_size, "sha256": artifacts.sha256(path)}
        for path in sorted(RESULTS.glob("*.csv"))
    }
    (RESULTS / "manifest.json").write_text(json.dumps(manifest))


def primary(a: str = "topk-native", scorer: str = "rule-detection", **values: object) -> None:
    pairs = {"topk-native": "transcoder", "native": "groupmax-transcoder"}
    change("primary", {"a": a, "b": pairs[a], "scorer": scorer}, values)


CLEARER, LESS = "are clearer than those of", "are less clear than those of"
ALIKE, OPEN = "are as clear as those of", "are neither shown to be as clear as"


@pytest.mark.parametrize(
    ("differences", "p", "p_equivalent", "words"),
    [
        ((0.0333, 0.0333), (0.01, 0.01), (0.9, 0.9), CLEARER),
        ((0.0333, 0.0011), (0.01, 0.9), (0.9, 0.9), CLEARER),
        ((-0.0333, -0.0333), (0.01, 0.2), (0.9, 0.9), LESS),
        ((0.0111, -0.0111), (0.01, 0.2), (0.01, 0.04), ALIKE),
        ((0.0111, -0.0111), (0.01, 0.2), (0.01, 0.06), OPEN),  # of one scorer only
        ((0.0111, 0.0111), (0.01, 0.01), (0.2, 0.2), OPEN),  # a difference within the margin
        ((0.0333, 0.0333), (0.06, 0.06), (0.9, 0.9), OPEN),
        ((0.0333, -0.0333), (0.01, 0.01), (0.9, 0.9), OPEN),  # one on either side
    ],
)
def test_the_registered_decision_follows_from_both_tests(
    project, differences, p, p_equivalent, words
):
    scorers = ("rule-detection", "rule-fuzzing")
    for scorer, difference, one, other in zip(scorers, differences, p, p_equivalent):
        ends = {"difference": difference, "low": difference - 0.1, "high": difference + 0.1}
        primary(scorer=scorer, **ends, p_adjusted=one, p_equivalent_adjusted=other)
    text = text_of(place())
    abstract = text[text.index("Abstract") : text.index("Introduction")]
    # In one sentence where both selections come out alike.
    said = re.search(r"(?:and top- ?k latents|In our models they) (.*?) transcoders", abstract)[1]
    assert said.startswith(words)
    difference = differences[0]
    signed = [f"{difference + way:+.3f}".replace("-", "−") for way in (0, -0.1, 0.1)]
    # In the abstract, in the section on it, and in the table.
    assert text.count("{} [{}, {}]".format(*signed)) >= 3


def test_layers_are_counted_by_their_intervals_where_they_matter(project):
    path = RESULTS / "layer_contrasts.csv"
    table = pd.read_csv(path)
    own = (table["a"] == "topk-native") & (table["scorer"] == "rule-detection")
    table.loc[own, ["low", "high", "matters"]] = (-0.1, 0.1, True)
    layers = list(table.index[own])
    table.loc[layers[:3], "low"] = 0.01
    table.loc[layers[2], "matters"] = False
    table.loc[layers[3], "high"] = -0.01
    table.to_csv(path, index=False)
    reseal()
    assert "score higher in 2 and lower in 1." in text_of(place())


def test_a_claim_that_the_tables_break_says_so_where_it_is_made_and_in_the_table(project):
    known = [claim.name for claim in claims.read()]
    mark = f"[C{known.index('transcoder-like-step0') + 1}"
    where = {"a": "transcoder", "b": "step0-transcoder", "layers": "matter", "latents": "live"}
    for low, broken in ((-0.1111, False), (0.1111, True)):
        change("contrasts", where, {"difference": 0.15, "low": low, "high": 0.2222})
        text = text_of(place())
        assert (f"{mark} does not hold]" in text) == broken
        assert (f"{mark}]" in text) != broken
        state = "FAILS" if broken else "holds"
        assert f"{state} (low = {low:g}, below 0)" in text[text.index("What the text claims") :]


def test_words_for_all_or_none_of_no_rows_are_refused(project, monkeypatch):
    monkeypatch.setattr(manuscript, "SOURCE", Path("paper/probe.typ"))
    for family, words in (("native", "every one"), ("nobody", None)):
        manuscript.SOURCE.write_text(
            '#import "typst/results.typ": *\n#quantified("means", test: _ => true, '
            f'all: "every one", where: (family: "{family}"))\n'
        )
        if words:
            assert words in text_of(place())
            continue
        with pytest.raises(UserError, match=r"means.csv has no rows there") as error:
            manuscript.run(place())
        assert "\n" not in str(error.value)


def test_sparsity_is_asked_about_the_fall_of_the_test_loss_alone(project):
    path = RESULTS / "generalization_leads.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    asked = (table["task"] == "grokking") & table["metric"].isin(["hoyer", "gini", "entropy"])
    table = table.assign(leg="fall", verdict=table["verdict"].mask(asked, "with"))
    first = table.index[asked][0]
    table.loc[first, "verdict"] = "before"
    for leg, pairs, before in (("fall", asked.sum(), 1), ("rise", asked.sum() - 1, 0)):
        table.loc[first, "leg"] = leg
        table.to_csv(path, index=False)
        reseal()
        text = text_of(place())
        text = text[text.index("Does sparsity announce") :]
        text = text[: text.index("no change of level")]
        assert f"Of {pairs} pairs" in text
        assert f"that fall, {before} change level before it, 0 after it" in text
        assert f"{pairs - before} within one checkpoint" in text


def test_the_same_tables_give_the_same_bytes_wherever_and_whenever(project, monkeypatch):
    manuscript.run(place())
    first = place().out.read_bytes()
    tables = {path.name: path.read_bytes() for path in place().latex.iterdir()}
    assert first.startswith(b"%PDF")
    assert len(first) < 2**21
    # Tagged, of a language, and said to be accessible.
    for mark in (b"/StructTreeRoot", b"/Lang", b"pdfuaid:part"):
        assert mark in first
    assert not manuscript.differs(place())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("TYPST_FONT_PATHS", "/usr/share/fonts")
    manuscript.run(place())
    assert place().out.read_bytes() == first
    assert {path.name: path.read_bytes() for path in place().latex.iterdir()} == tables
    place().out.write_bytes(first[:-1])
    assert manuscript.differs(place())


def test_latex_tables_hold_the_numbers_of_the_results(project):
    manuscript.run(place())
    tables = {path.stem: path.read_text() for path in place().latex.glob("*.tex")}
    assert {"summary", "contrasts", "concepts", "fidelity", "ranking"} <= set(tables)
    assert {name for name in tables if "longtable" in tables[name]} == {"claims", "settings"}
    for text in tables.values():
        opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
        assert sorted(opened) == sorted(closed)
        bare = re.sub(r"\\[{}]", "", text)
        assert bare.count("{") == bare.count("}")
    results = pd.read_csv(RESULTS / "summary.csv")
    lines = [line for line in tables["summary"].splitlines() if line.endswith(r" \\")][1:]
    for line, (_, row) in zip(lines, results.iterrows(), strict=True):
        cells = line.split(" & ")
        found = [float(number) for number in re.findall(r"\d+\.\d+", cells[4])]
        assert found == pytest.approx(
            row[["detection", "detection_low", "detection_high"]], abs=0.00501
        )
        assert float(cells[1].removesuffix(r"\%")) == pytest.approx(
            100 * row["explained"], abs=0.51
        )
        assert cells[3].replace(",", "") == str(row["detection_n"])


def test_what_is_missing_is_one_line_that_names_the_cure(project):
    (RESULTS / "contrasts.csv").rename(RESULTS / "aside")
    with pytest.raises(UserError, match=r"contrasts.csv is missing; .*run `dvc repro collate`"):
        manuscript.run(place())
    reseal()
    with pytest.raises(
        UserError, match=r"contrasts.csv is missing; run `dvc repro collate"
    ) as error:
        manuscript.run(place())
    assert "\n" not in str(error.value)
    shutil.rmtree(RESULTS)
    with pytest.raises(UserError, match=r"results/default.* is missing; run `dvc repro collate`"):
        manuscript.run(place())
    assert not place().out.exists()


def test_a_row_that_is_not_there_stops_the_compiler(project):
    change("depth", {"model": "dense"}, {"model": "none"})
    with pytest.raises(UserError, match=r"depth.csv has 0 rows with model=.dense.*not one;"):
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
    runs = pd.read_csv(other / "generalization_runs.csv").set_index(["task", "run"])
    runs.loc[("grokking", "dense-0"), "test_loss"] = 0.0000996
    runs.loc[("grokking", "sparse-0"), "test_loss"] = 8.056
    runs.reset_index().to_csv(other / "generalization_runs.csv", index=False)
    phases = pd.read_csv(other / "generalization_phases.csv", dtype={"cleaned_up": "Int64"})
    phases.loc[phases["run"] == "dense-0", "cleaned_up"] = 1311
    phases.loc[phases["run"] == "sparse-0", "cleaned_up"] = pd.NA
    phases.to_csv(other / "generalization_phases.csv", index=False)
    text = text_of(place())
    text = text[text.index("At the published size") :]
    dense, sparse = text.split("The run with sparse feedforwards", 1)
    seeds = (runs.loc["grokking", "variant"] == "dense").sum()
    assert f"{['no', 'one', 'two', 'three', 'four', 'five'][seeds]} training seed" in dense
    assert "a test loss of 1.0 × 10⁻⁴;" in dense
    assert "clean-up ends by step 1,311." in dense
    accuracy = runs.loc[("grokking", "sparse-0"), "test_accuracy"]
    assert f"ends at {accuracy:.3f} and 8.06;" in sparse
    assert "clean-up has not ended." in sparse


def test_every_reference_is_cited_and_every_citation_has_one():
    keys = set(re.findall(r"^@\w+{(\w+),", (PAPER / "references.bib").read_text(), re.M))
    text = "".join(path.read_text() for path in (PAPER / "sections").glob("*.typ"))
    cited = set(re.findall(r"(?:@|cite\(<)([a-z]+\d{4}[a-z]*)", text))
    assert cited == keys
