"""Run all stages of the smoke experiment up to the tables, with all families, in a folder."""

from __future__ import annotations

import os
import sys

from whole_pipeline import CPU, ROOT

from clearnets import config
from clearnets.pipeline.stage import items_of


def main() -> None:
    os.chdir(sys.argv[1])
    default = config.read_yaml(ROOT / "params.yaml")
    smoke = config.read_yaml(ROOT / "experiments/smoke.yaml")
    # Without its own lists, the experiment has the models and families of the default.
    del smoke["families"], smoke["models"]
    cfg = config.parse(config.overlay(default, smoke), "smoke")
    for stage, item in items_of(cfg):
        if stage.name not in ("plan", "figures", "paper"):
            stage.module.run(cfg, runtime=CPU, **stage.call(cfg, [item]))


if __name__ == "__main__":
    main()
