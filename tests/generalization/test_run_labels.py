"""What the table of runs says for figures: groups of runs, and the scale of their time axis."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clearnets.generalization.tables import labelled


def test_groups_are_runs_that_differ_in_their_seed_alone():
    made = [
        ("digits", f"{variant}-{size}-{seed}", seed, variant, float(size), 0.0)
        for variant in ("dense", "sparse")
        for size in (40, 1000)
        for seed in (0, 1)
    ]
    # Another task has no such settings.
    made += [("grokking", f"dense-{seed}", seed, "dense", np.nan, np.nan) for seed in (0, 1)]
    columns = pd.Index(["task", "run", "seed", "variant", "train", "label_noise"])
    runs = pd.DataFrame(made, columns=columns)
    steps = {"digits": [0, 1, 2, 5, 10, 100], "grokking": [0, 10, 20, 30]}
    measures = pd.DataFrame(
        [(task, run, step) for task, run, *_ in made for step in steps[task]],
        columns=pd.Index(["task", "run", "step"]),
    )
    table = labelled(runs, measures)
    # By hand: the size alone differs within a task.
    expected = [
        f"{variant}, train {int(size)}" if task == "digits" else variant
        for task, _, _, variant, size, _ in made
    ]
    assert table["group"].tolist() == expected
    assert table["log_steps"].tolist() == [task == "digits" for task, *_ in made]
    assert list(table)[:-2] == list(runs)


def test_a_single_checkpoint_is_on_no_scale():
    runs = pd.DataFrame({"task": ["grid"] * 2, "run": ["a", "b"], "seed": 0, "variant": "dense"})
    measures = pd.DataFrame({"task": ["grid"], "run": ["a"], "step": [700]})
    assert labelled(runs, measures)["log_steps"].tolist() == [False, False]
