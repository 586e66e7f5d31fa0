"""Addresses select the rows that a plain loop over the CSV file selects."""

from __future__ import annotations

import csv

import pytest

from clearnets import UserError
from clearnets.paper import addresses
from clearnets.paper.addresses import Address

TABLE = """family,scorer,seed,n,mean,low,high,low_seeds,high_seeds,f1,f1_low,f1_high
a,rule-detection,all,10,0.5,0.4,0.6,0.3,0.7,0.1,0.05,0.2
a,rule-detection,0,11,0.55,0.45,0.65,,,,,
a,rule-fuzzing,all,12,0.6,0.5,0.7,0.4,0.8,0.3,0.2,0.4
b,rule-fuzzing,all,13,0.7,,,,,,,
"""
ALL = {"scorer": None, "seed": None}


@pytest.fixture
def tables(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text(TABLE)
    return addresses.tables_in(tmp_path / "one")


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({}, [{"scorer": "rule-detection", "seed": "all"}]),
        ({"scorer": "rule-fuzzing"}, [{"scorer": "rule-fuzzing", "seed": "all"}]),
        ({"seed": 0}, [{"scorer": "rule-detection", "seed": "0"}]),
        (ALL, [{}]),
        (ALL | {"family": ["a", "b"], "n": [12, 13]}, [{"n": "12"}, {"n": "13"}]),
    ],
)
def test_rows_hold_what_is_wanted_and_else_the_usual(tables, where, wanted):
    rows = [
        row
        for row in csv.DictReader(TABLE.splitlines())
        if any(all(row[key] == value for key, value in one.items()) for one in wanted)
    ]
    found = addresses.select(tables, addresses.Rows(table="t", where=where))
    assert found.to_dict("records") == rows
    assert addresses.value(tables, Address(table="other/t", where=where)) == (len(rows), None)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ({"column": "mean"}, (0.5, (0.4, 0.6))),
        ({"column": "mean", "level": "seeds"}, (0.5, (0.3, 0.7))),
        ({"column": "f1"}, (0.1, (0.05, 0.2))),
        ({"column": "mean", "where": {"seed": 0}, "level": "seeds"}, (0.55, None)),
        ({"column": "n", "where": ALL, "how": "min"}, (10, None)),
        ({"column": "n", "where": ALL, "how": "max"}, (13, None)),
        ({"column": "f1", "per": {"table": "t", "column": "mean"}}, (0.2, None)),
    ],
)
def test_a_number_has_the_interval_of_its_column(tables, address, wanted):
    assert addresses.value(tables, Address(table="t", **address)) == wanted


def test_what_leads_nowhere_is_one_line(tables):
    for address, message in (
        (Address(table="none", column="mean"), "no .*none.csv"),
        (Address(table="t", column="none"), "t.csv has no column 'none'"),
        (Address(table="t", column="mean", where={"none": 1}), "t.csv has no column 'none'"),
        (
            Address(table="t", column="n", where={"seed": [0, "all"]}),
            "2 rows with seed=.*, not one",
        ),
        (Address(table="t", column="f1", where={"seed": 0}), "no number in f1"),
    ):
        with pytest.raises(UserError, match=message):
            addresses.value(tables, address)
