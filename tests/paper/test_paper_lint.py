"""The lint: the paper's prose, claims and figures' texts hold no number that is typed by hand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from clearnets.analysis import statistics
from clearnets.generalization import tables

PAPER = Path(__file__).parents[2] / "paper"


@pytest.fixture(scope="module")
def lint(load_script):
    return load_script("paper/lint.py")


@pytest.mark.parametrize(
    "line",
    [
        "They score 0.73 in rule-detection.",
        "A share of 9 % is dead.",
        "We trained 48 runs.",
        "It changes by -0.025 on average.",
        "It changes by −0.025 on average.",
        "It is 2.3x as fast.",
        "A correlation of .73 is found.",
        "A rise of 0.5pp is seen.",
        "A loss of 1e-3 is reached.",
        "They have 1,189,184 parameters.",
        "It takes 3x the tokens.",
        "Native wins in 5 percent of cases.",
        "The score-0.73 latents win.",
        "In v0.73 they win.",
        "#str(result)",
        "#calc.round(share)",
        "A share of 3/4 is dead.",
        '#csv("/paper/results/default/means.csv")',
        "#shown(row, column)",
        'scored (#result("means")); others',
    ],
)
def test_the_lint_sees_what_is_written_by_hand(lint, line):
    (fault,) = lint.faults("sections/results.typ", f"fine\n{line}\n")
    assert fault.startswith("paper/sections/results.typ:2: ")


@pytest.mark.parametrize(
    "line",
    [
        '#result("means", digits: 3) nats // 0.73',
        "@paulo2024 and #cite(<gao2025>)",
        "three seeds, chance is one half, at least 3",
        r"(#result(..a)\; #result(..b))",
        '#has("grokking-113/generalization_runs") and a step-10 model',
    ],
)
def test_the_lint_leaves_prose_alone(lint, line):
    assert list(lint.faults("sections/results.typ", line)) == []


def test_the_lint_allows_lengths_but_no_shares_in_code(lint):
    assert list(lint.faults("typst/report.typ", 'size: 7.5pt, inset: (x: 0.45em), "1.1fr"')) == []
    (fault,) = lint.faults("typst/report.typ", 'caption: "of which 73% are dead"')
    assert "73% is written by hand" in fault


def claim(says: str, **holds) -> dict:
    return {"name": "one", "says": says, "holds": {"table": "t", "column": "c", **holds}}


@pytest.mark.parametrize(
    ("says", "holds"),
    [
        ("It costs at least 0.01 nats.", {"above": 0.02}),
        ("It costs at least 0.01 nats.", {"above": 1}),
        ("A share of 9 % is dead.", {"below": 9}),
        ("A share of 9.5 per cent is dead.", {"below": 0.09}),
        ("It falls by −0.02.", {"below": 0.2}),
        ("It is .5 of it.", {"equal": True}),
    ],
)
def test_a_claim_cannot_say_what_it_does_not_check(lint, says, holds):
    (fault,) = lint.claim_faults(claim(says, **holds))
    assert fault.startswith("paper/claims.yaml: one says ")


@pytest.mark.parametrize(
    ("says", "holds"),
    [
        ("It costs at least 0.01 nats.", {"above": 0.01}),
        ("Within 0.02.", {"where": {"equivalence": 0.02}, "equal": True}),
        ("A share of 9 % is dead.", {"below": 0.09}),
        ("It falls by −0.02.", {"below": -0.02}),
        ("One of 0.3 and 0.4 and at most a quarter of 28.", {"equal": [0.3, 0.4]}),
        ("Coders of the model at step 0, in C12.", {"above": 0}),
    ],
)
def test_a_claim_says_the_numbers_of_its_relation(lint, says, holds):
    assert list(lint.claim_faults(claim(says, **holds))) == []


def test_a_claim_that_runs_a_command_has_no_decimals(lint):
    said = {"name": "two", "says": "Losses agree to 0.1 nats.", "command": "clearnets verify"}
    assert len(list(lint.claim_faults(said))) == 1


@pytest.mark.parametrize(
    "line",
    [
        'caption = "Scores, of which 90 % lie above."',
        "caption = f\"Mean {row['mean']:.2f}, or 0.73 without.\"",
        "caption = f'{name}0.73'",
        'caption = f"They score {0.73}."',
        'caption = "Over 48 runs. " + rest',
    ],
)
def test_a_figures_text_has_no_number_written_by_hand(lint, line):
    (fault,) = lint.script_faults("scripts/scores.py", f"import x\n{line}\n")
    assert fault.startswith("paper/scripts/scores.py:2: ")


@pytest.mark.parametrize(
    "line",
    [
        '"""Half of 0.36 of them."""',
        'color = "0.45"',
        'caption = f"{100 * level:.1f} % of {count:02d}, F1 ≥ {least:g}"',
        'caption = "F1 of the step-0 transcoder, layer 3, 1 - R2"',
        "width = 0.25  # of 90 %",
    ],
)
def test_a_figures_code_may_have_numbers(lint, line):
    assert list(lint.script_faults("scripts/scores.py", line)) == []


def test_the_paper_passes(lint, capsys):
    assert len(lint.sources()) > 8
    assert len(lint.claims()) > 15
    assert len(lint.scripts()) > 20
    assert (lint.main(), capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize(
    ("script", "name", "value"),
    [
        ("contrasts", "EQUIVALENCE", statistics.EQUIVALENCE),
        ("observed", "GROKKED", tables.GROKKED),
    ],
)
def test_what_a_caption_names_is_what_the_tables_were_made_with(script, name, value):
    """Scripts cannot import the package, and no table holds these."""
    tree = ast.parse((PAPER / f"scripts/{script}.py").read_text(encoding="utf-8"))
    given = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert ast.literal_eval(given[name]) == value
