"""Compare SAEs by BatchTopK, JumpReLU and Matryoshka with the library dictionary-learning.

    make reference

Both train on the same activations: the output of a feedforward of the dense model, of the sizes in
`params.yaml`, from random weights of their own, for the same steps of the same batches, at each of
the same learning rates. fvu and l0 are those of held-out tokens, when no token depends on others.

    python benchmarks/reference_coders.py ours OUT     trains ours on what OUT holds, which it
                                                       writes if there is nothing
    python benchmarks/reference_coders.py theirs OUT   the same with theirs, in their environment
    python benchmarks/reference_coders.py table OUT    prints both
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SELECTIONS = ("batchtopk", "jumprelu", "matryoshka")
RATES = (0.001, 0.003, 0.01, 0.02, 0.03)
PREFIXES = [1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]  # Groups of latents: 1/16 up to 1/16, 1/8, ...
SIZES = {"num_latents": 1024, "k": 8}
WARMUP = 40


def dump(out: Path, model_folder: Path, layer: int, rows: int) -> None:
    """Write what a feedforward gives: training batches (S, N, D) and held-out tokens (M, D).

    As dictionary-learning wants it, the mean squared norm is one.
    """
    from clearnets.coders import batches, feedforward
    from clearnets.data.tokens import open_tokens
    from clearnets.models.loading import load

    model, store = load(model_folder), open_tokens(Path("artifacts/data"))
    split, parts = store.split("train"), []
    for start in range(0, rows + 512, 64):
        batch = batches.make_batch(store, split[start : start + 64], "cpu")
        reading, _ = feedforward.read(model, batch.tokens_BS)
        parts.append(reading.outputs[layer][batch.counted_BS])
    y_ND = torch.cat(parts)
    held = 512 * 100
    train_ND, test_ND = y_ND[:-held], y_ND[-held:]
    order = torch.randperm(len(train_ND), generator=torch.Generator().manual_seed(0))
    train_SND = train_ND[order[: len(order) // 512 * 512]].view(-1, 512, y_ND.shape[1])
    scale = train_SND.pow(2).sum(-1).mean().rsqrt()
    data = {"train": (train_SND * scale).contiguous(), "test": (test_ND * scale).contiguous()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(data, out / "activations.safetensors")


def measured(test_ND: torch.Tensor, made_ND: torch.Tensor, l0: float) -> dict[str, float]:
    total = (test_ND - test_ND.mean(0)).pow(2).sum()
    return {"fvu": float((test_ND - made_ND).pow(2).sum() / total), "l0": l0}


def ours(train_SND: torch.Tensor, test_ND: torch.Tensor, selection: str, rate: float) -> dict:
    from clearnets.coders import library, objective, training

    coder = library.new_coder(
        "layer", d_in=test_ND.shape[1], selection=selection, seed=0, **SIZES  # pyright: ignore
    )  # fmt: skip

    def read(step: int) -> training.Activations:
        y_ND = {"layer": train_SND[step]}
        total = objective.variation(train_SND[step])
        return training.Activations({}, y_ND, {"layer": total}, None, None)  # pyright: ignore

    schedule = training.Schedule("adam", rate, WARMUP, len(train_SND), bias_step=0.02)
    training.fit(read, [training.Chain({"layer": coder}, Path("absent"))], schedule, save_every=10**9)
    made = objective.reconstruct(coder, test_ND)
    l0 = float((made.acts_Nk > 0).sum() / len(test_ND))
    return measured(test_ND, made.output_ND, l0)


def theirs(train_SND: torch.Tensor, test_ND: torch.Tensor, selection: str, rate: float) -> dict:
    # Its buffer of activations of models, which is not used here, needs nnsight.
    sys.modules["dictionary_learning.buffer"] = types.ModuleType("buffer")
    sys.modules["dictionary_learning.buffer"].ActivationBuffer = None  # pyright: ignore
    from dictionary_learning.trainers import batch_top_k, jumprelu, matryoshka_batch_top_k

    steps, (tokens, d) = len(train_SND), train_SND.shape[1:]
    common = {
        "steps": steps, "activation_dim": d, "dict_size": SIZES["num_latents"], "layer": 0,
        "lm_name": "", "lr": rate, "warmup_steps": WARMUP, "decay_start": WARMUP + 1, "seed": 0,
        "device": "cpu",
    }  # fmt: skip
    by_batch = {"k": SIZES["k"], "threshold_start_step": steps // 10, "threshold_beta": 0.95}
    torch.manual_seed(0)
    if selection == "batchtopk":
        trainer = batch_top_k.BatchTopKTrainer(**common, **by_batch)
    elif selection == "matryoshka":
        trainer = matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer(
            **common, **by_batch, group_fractions=PREFIXES
        )
    else:
        sparsity = {"target_l0": float(SIZES["k"]), "sparsity_warmup_steps": WARMUP}
        trainer = jumprelu.JumpReluTrainer(**common, **sparsity)
    trainer.dead_feature_threshold = 16 * tokens  # As many as are silent for ours.
    for step in range(steps):
        trainer.update(step, train_SND[step])
    with torch.no_grad():
        acts_NL = trainer.ae.encode(test_ND)
        l0 = float((acts_NL > 0).sum() / len(test_ND))
        return measured(test_ND, trainer.ae.decode(acts_NL), l0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # pyright: ignore
    parser.add_argument("what", choices=("ours", "theirs", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=Path("artifacts/train/dense/seed-0/final"))
    parser.add_argument("--layer", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--selections", nargs="+", default=SELECTIONS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "table":
        for who in ("ours", "theirs"):
            for row in map(json.loads, (args.out / f"{who}.jsonl").read_text().splitlines()):
                print("{who:7} {selection:10} rate {rate:<6} fvu {fvu:.4f} l0 {l0:.2f}".format(**row))
        return
    activations = args.out / "activations.safetensors"
    if not activations.exists():
        dump(args.out, args.model, args.layer, args.rows)
    data, fit = load_file(activations), ours if args.what == "ours" else theirs
    with (args.out / f"{args.what}.jsonl").open("a") as file:
        for selection in args.selections:
            for rate in args.rates:
                start = time.process_time()
                row = {"who": args.what, "selection": selection, "rate": rate}
                row |= fit(data["train"], data["test"], selection, rate)
                print(row, f"{time.process_time() - start:.0f} s", flush=True)
                print(json.dumps(row), file=file, flush=True)


if __name__ == "__main__":
    main()
