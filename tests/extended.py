"""A small experiment with everything that docs/extending.md adds, run where that was applied:
`python tests/extended.py FAMILY` in an empty folder."""

from __future__ import annotations

import sys

from whole_pipeline import CPU, ROOT

from clearnets import config
from clearnets.pipeline.stage import table
from clearnets.stages import cache, data, explain, generalize, match, score, sparsify, train, words

OBSERVED = {
    "tasks": ["parity"],
    "parity": {
        "seeds": [0, 1],
        "bits": 8,
        "parity": 2,
        "train": 100,
        "width": 32,
        "steps": 40,
        "checkpoints": 4,
    },
}


def main(family: str) -> None:
    own = {
        "models": ["dense"],
        "families": ["transcoder", family],
        "explain": {"explainer": {"kind": "trigger"}},
        "generalize": OBSERVED,
    }
    values = config.read_yaml(ROOT / "params.yaml")
    for over in (config.read_yaml(ROOT / "experiments/smoke.yaml"), own):
        values = config.overlay(values, over)
    cfg = config.parse(values, "extended")
    data.run(cfg, runtime=CPU)
    words.run(cfg, runtime=CPU)
    train.run(cfg, runtime=CPU, mlp="dense")
    match.run(cfg, runtime=CPU)
    sparsify.run(cfg, runtime=CPU, families=[family])
    cache.run(cfg, runtime=CPU, families=[family])
    explain.run(cfg, runtime=CPU, family=family, layers=cfg.model.layers)
    score.run(cfg, runtime=CPU, family=family, layers=cfg.model.layers)
    lengths = table()["lengths"].module
    lengths.run(cfg, runtime=CPU, family=family)
    generalize.run(cfg, runtime=CPU, task="parity")


if __name__ == "__main__":
    main(sys.argv[1])
