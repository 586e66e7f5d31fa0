"""Made-up curves and measures of training runs of which is known what moves when and what ranks.

`grok`: six seeds whose test loss rises from 4 to 10 and falls to 0 between steps 350 and 1,200,
later than the train loss.
`grid`: 24 combinations of settings; the number of pictures decides most of the gap.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

STEPS = [0, *np.unique(np.round(np.logspace(0, 4, 36)).astype(int))]
SEEDS = range(6)
# Decades by which a metric moves before the test loss falls, and how far that varies over seeds.
LEADS = {"early": (0.4, 0.04), "same": (0.0, 0.01), "late": (-0.4, 0.04), "erratic": (0.0, 1.0)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def grok() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """runs, curves, measures."""
    runs, curves, measures = [], [], []
    log = np.log10(1 + np.array(STEPS))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        name, falls = f"seed-{seed}", 2.8 + rng.uniform(-0.25, 0.25)
        high = 4 + 6 * sigmoid(8 * (log - 1.6))
        test_loss = high * sigmoid(-15 * (log - falls)) + 0.01 * rng.random(len(log))
        train_loss = 5 * sigmoid(-12 * (log - 2.1)) + 0.01 * rng.random(len(log))
        table = {
            "step": STEPS,
            "train_loss": train_loss,
            "train_accuracy": 1 - train_loss / 6,
            "test_loss": test_loss,
            "test_accuracy": 1 - test_loss / 12,
        }
        curves.append(pd.DataFrame(table).assign(task="grok", run=name, seed=seed, variant="dense"))
        last = {key: values[-1] for key, values in table.items()}
        gap = last["test_loss"] - last["train_loss"]
        runs.append(
            {"task": "grok", "run": name, "seed": seed, "variant": "dense", **last, "gap": gap}
        )
        for metric, (lead, spread) in LEADS.items():
            at = falls - lead + rng.normal(0, spread)
            values = 2 + 3 * sigmoid(15 * (log - at)) + 0.02 * rng.normal(size=len(log))
            # Two hookpoints, whose mean is the metric.
            apart = rng.normal(size=len(log))
            for hookpoint, sign in (("attention", 1), ("mlp", -1)):
                measures.append(_measures("grok", name, hookpoint, metric, values + sign * apart))
        measures.append(_measures("grok", name, "mlp", "l0", np.full(len(log), 4.0)))
    return pd.DataFrame(runs), pd.concat(curves), pd.concat(measures)


def _measures(task: str, run: str, hookpoint: str, metric: str, values: np.ndarray) -> pd.DataFrame:
    keys = {"task": task, "run": run, "hookpoint": hookpoint, "metric": metric}
    return pd.DataFrame({"step": STEPS, "value": values}).assign(**keys)


def grid() -> tuple[pd.DataFrame, pd.DataFrame]:
    """runs and their measures at two checkpoints. One run of 25 did not reach the training loss."""
    rng = np.random.default_rng(0)
    runs, measures = [], []
    combos = [(p, w, n) for p in (40, 100, 250, 600) for w in (16, 32, 64) for n in (0.0, 0.2)]
    for index, (pictures, width, noise) in enumerate([*combos, (40, 128, 0.4)]):
        gap = 3 - np.log10(pictures) + noise + rng.normal(0, 0.15)
        name = f"run-{index}"
        keys = {"task": "grid", "run": name, "seed": 0, "variant": "dense"}
        settings = {"pictures": pictures, "width": width, "label_noise": noise}
        last = {"step": 200, "train_loss": 0.05, "test_loss": 0.05 + gap, "gap": gap}
        runs.append(keys | settings | last | {"reached": index < len(combos)})
        values = {
            "knows": gap + rng.normal(0, 0.05),
            "repeats": np.log10(pictures),
            "against": -gap + rng.normal(0, 0.3),
            "nothing": rng.normal(),
            "broken": np.nan if index == 3 else rng.normal(),
        }
        for metric, value in values.items():
            keys = {"task": "grid", "run": name, "hookpoint": "mlp", "metric": metric}
            measures.append({**keys, "step": 100, "value": rng.normal()})
            measures.append({**keys, "step": 200, "value": value})
    return pd.DataFrame(runs), pd.DataFrame(measures)


def both() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """runs, curves and measures of both tasks in one table each."""
    grok_runs, curves, grok_measures = grok()
    grid_runs, grid_measures = grid()
    runs = pd.concat([grok_runs, grid_runs], ignore_index=True)
    measures = pd.concat([grok_measures, grid_measures], ignore_index=True)
    return runs, curves, measures
