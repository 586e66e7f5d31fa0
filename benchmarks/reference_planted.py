"""Compare recovery of a known dictionary, in the worlds of `clearnets planted`, with sae-lens.

    make reference-planted

Both see the same activations. Of each of our dictionaries sae-lens computes its own measures
against the truth, and trains its own SAEs beside ours; `truth` is ours in either case.

    python benchmarks/reference_planted.py ours OUT     writes the worlds and our dictionaries
    python benchmarks/reference_planted.py theirs OUT   measures them, and trains theirs, in their
                                                        environment
    python benchmarks/reference_planted.py table OUT    prints both
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

SEEDS = (0, 1, 2)
SELECTIONS = ("topk", "batchtopk", "jumprelu", "matryoshka")
BATCH = 1024
# Steps of theirs with their default rate: as many as ours take, and sixteen times as many.
STEPS, RATE = (250, 4000), 3e-4
MEASURES = ("truth", "mcc", "uniqueness", "f1", "explained")


def ours(out: Path) -> None:
    """Write for each world activations, strengths, the truth, and our dictionaries with codes."""
    import tempfile
    from types import SimpleNamespace

    from clearnets import config
    from clearnets.latents.planted_truth import World
    from clearnets.pipeline.runtime import seed_for
    from clearnets.stages import planted

    settings = config.load().planted
    for seed in SEEDS:

        def rng(*names: str | int, seed: int = seed) -> np.random.Generator:
            return np.random.default_rng(seed_for(seed, "planted", *names))

        world = World.of(settings, rng("world"))
        drawn = {name: world.draw(settings.tokens, rng(name)) for name in ("fit", "test")}
        with tempfile.TemporaryDirectory() as folder:
            work: Any = SimpleNamespace(state=Path(folder))
            made = planted._known(settings, world, drawn, rng)
            made |= planted._trained(settings, seed, drawn, work)
        arrays = {"true": world.direction_FD, "active": np.array(round(settings.active))}
        for split, (x_TD, strength_TF) in drawn.items():
            arrays |= {f"x {split}": x_TD, f"strength {split}": strength_TF}
        for name, (own, _) in made.items():
            arrays |= {
                f"directions/{name}": own["directions"],
                f"codes/{name}": own["test"],
                f"explained/{name}": np.array(own["explained"]),
            }
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / f"world-{seed}.npz", **arrays)


def theirs(out: Path) -> None:
    """Measure our dictionaries with sae-lens, and SAEs of its own."""
    import torch

    torch.set_num_threads(1)
    rows = []
    for seed in SEEDS:
        world = {
            name: torch.from_numpy(x) for name, x in np.load(out / f"world-{seed}.npz").items()
        }
        for name in [key.split("/")[1] for key in world if key.startswith("codes/")]:
            found = _measured(world, world[f"directions/{name}"], world[f"codes/{name}"])
            found["explained"] = float(world[f"explained/{name}"])
            rows.append({"seed": seed, "dictionary": name, "by": "clearnets", **found})
        for selection in SELECTIONS:
            for steps in STEPS:
                torch.manual_seed(seed)
                found = _trained(world, selection, steps)
                by = f"sae-lens, {steps} steps"
                rows.append({"seed": seed, "dictionary": selection, "by": by, **found})
                print(rows[-1], flush=True)
    (out / "planted.json").write_text(json.dumps(rows))


def _measured(world: dict[str, Any], directions_LD: Any, codes_TL: Any) -> dict[str, float]:
    from sae_lens.synthetic import evals  # pyright: ignore

    true_FD, own_LD = world["true"].float(), directions_LD.float()
    told = evals.compute_classification_metrics(
        codes_TL.float(), world["strength test"].float(), own_LD, true_FD
    )
    unit_LD = own_LD / own_LD.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return {
        "truth": float((true_FD @ unit_LD.T).max(1).values.mean()),
        "mcc": evals.mean_correlation_coefficient(own_LD, true_FD),
        "uniqueness": evals.feature_uniqueness(own_LD, true_FD),
        "f1": told.f1_score,
    }


def _trained(world: dict[str, Any], selection: str, steps: int) -> dict[str, float]:
    import torch
    from sae_lens import saes  # pyright: ignore
    from sae_lens.config import LoggingConfig, SAETrainerConfig  # pyright: ignore
    from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore

    x_TD, test_TD = world["x fit"].float(), world["x test"].float()
    sizes = {"d_in": x_TD.shape[1], "d_sae": len(world["true"]), "device": "cpu"}
    few = {"k": int(world["active"])}
    if selection == "topk":
        sae: Any = saes.TopKTrainingSAE(saes.TopKTrainingSAEConfig(**sizes, **few))
    elif selection == "batchtopk":
        sae = saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(**sizes, **few))
    elif selection == "jumprelu":
        sae = saes.JumpReLUTrainingSAE(saes.JumpReLUTrainingSAEConfig(**sizes))
    else:
        widths = [sizes["d_sae"] // 2**n for n in (4, 3, 2, 1)]
        config = saes.MatryoshkaBatchTopKTrainingSAEConfig(**sizes, **few, matryoshka_widths=widths)
        sae = saes.MatryoshkaBatchTopKTrainingSAE(config)

    def batches() -> Iterator[Any]:
        step = 0
        while True:
            yield x_TD[torch.arange(step * BATCH, (step + 1) * BATCH) % len(x_TD)]
            step += 1

    settings = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * BATCH,
        device="cpu",
        autocast=False,
        lr=RATE,
        lr_end=RATE,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=0,
        n_restart_cycles=1,
        train_batch_size_samples=BATCH,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
        n_batches_for_norm_estimate=1000,
    )
    SAETrainer(cfg=settings, sae=sae, data_provider=batches()).fit()
    with torch.no_grad():
        codes_TL = sae.encode(test_TD)
        left_TD = test_TD - sae.decode(codes_TL)
    total = (test_TD - test_TD.mean(0)).square().sum()
    found = _measured(world, sae.W_dec.detach(), codes_TL)
    l0 = float((codes_TL != 0).sum(1).float().mean())
    return {**found, "explained": 1 - float(left_TD.square().sum() / total), "l0": l0}


def table(out: Path) -> None:
    """Print means over worlds, a row per dictionary."""
    rows = json.loads((out / "planted.json").read_text())
    print("| dictionary | by |", " | ".join(MEASURES), "|")
    print("|---|---|" + "---:|" * len(MEASURES))
    for name, by in dict.fromkeys((row["dictionary"], row["by"]) for row in rows):
        own = [row for row in rows if (row["dictionary"], row["by"]) == (name, by)]
        cells = (f"{mean(row[measure] for row in own):.3f}" for measure in MEASURES)
        print(f"| {name} | {by} |", " | ".join(cells), "|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("ours", "theirs", "table"))
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    {"ours": ours, "theirs": theirs, "table": table}[chosen.mode](chosen.out)
