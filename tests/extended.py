"""A small experiment with everything that docs/extending.md adds, run where that was applied:
`python tests/extended.py FAMILY` in an empty folder."""

from __future__ import annotations

import sys

from whole_pipeline import CPU, smoke

from clearnets.pipeline.stage import items_of

PARITY = {
    "seeds": [0, 1],
    "bits": 8,
    "parity": 2,
    "train": 100,
    "width": 32,
    "steps": 40,
    "checkpoints": 4,
}
STAGES = ("data", "train", "match", "sparsify", "cache", "explain", "score", "generalize")


def main(family: str) -> None:
    cfg = smoke(
        {
            "models": ["dense"],
            "families": ["transcoder", family],
            "explain": {"explainer": {"kind": "trigger"}},
            "generalize": {"tasks": ["parity"], "parity": PARITY},
        }
    )
    for stage, item in items_of(cfg):
        if stage.name in STAGES and item in (None, "dense", family, "parity"):
            stage.module.run(cfg, runtime=CPU, **stage.selection(cfg, item))


if __name__ == "__main__":
    main(sys.argv[1])
