"""The table of a search for recipes: one row per subject, trial and seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clearnets.analysis.text import number, table
from clearnets.config import Config
from clearnets.pipeline import artifacts, paths

# What a trial is judged by: the first of them that it has.
CRITERIA = ("valid_loss", "fvu")
_COLUMNS = ("tokens", *CRITERIA, "l0", "dead", "least_cost", "spliced_nats")


def inputs(config: Config) -> dict[str, Path]:
    """Return the units that the table is made from, by name."""
    return {
        f"tune/{subject}/seed-{seed}/trial-{number}": paths.tune(subject, seed, number)
        for subject in config.tune.subjects
        for seed in config.seeds
        for number, _ in enumerate(config.tune.trials(subject))
    }


def make(config: Config) -> dict[str, pd.DataFrame]:
    """Return the table `tuning`, where there is a search.

    `best` marks each subject's values of the lowest mean validation loss, or fvu, over seeds.

    Raises:
        UserError: a trial is missing or damaged.
    """
    rows = []
    for name, folder in inputs(config).items():
        artifacts.check(folder)
        found = artifacts.read_json(folder / "trial.json")
        _, subject, seed, trial = name.split("/")
        place = {
            "subject": subject,
            "seed": int(seed.removeprefix("seed-")),
            "trial": int(trial.removeprefix("trial-")),
        }
        rows.append(place | found.pop("values") | found)
    if not rows:
        return {}
    keys = list(dict.fromkeys([*config.tune.train, *config.tune.coders]))
    columns = ["subject", "seed", "trial", *keys, *(c for c in _COLUMNS if c not in keys)]
    # A search of models alone measures nothing of coders, and the other way round.
    frame = pd.DataFrame(rows).reindex(columns=columns)
    judged = frame[CRITERIA[0]].fillna(frame[CRITERIA[1]])
    means = judged.groupby([frame["subject"], frame["trial"]]).transform("mean")
    best = means == means.groupby(frame["subject"]).transform("min")
    return {"tuning": frame.assign(best=best)}


def markdown(frame: pd.DataFrame) -> str:
    """Return the table for people, means over seeds, the best recipe of each subject marked."""
    values = [c for c in frame if c not in ("subject", "seed", "trial", "best")]
    numbers = frame.astype(dict.fromkeys(values, float))
    means = numbers.groupby(["subject", "trial"], sort=False)[[*values, "best"]].mean()
    rows = [
        [
            str(row["subject"]),
            *(number(row[value], ",.5g") for value in values),
            "best" if row["best"] else "",
        ]
        for row in means.reset_index().to_dict("records")  # pyright: ignore[reportAttributeAccessIssue]
    ]
    return "# Search for recipes\n\n" + table(["subject", *values, ""], rows)
