"""Task `grokking`: modular addition, memorised first and generalized later.

After Power et al. 2022 and Nanda et al. 2023. The runs of one variant train side by side in one
model (see `addition`), each on the training pairs of its own seed, all of them in every step.

Shapes: M runs (seeds), N training pairs, P the prime, A = P² pairs.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clearnets.config import Grokking
from clearnets.generalization import fourier
from clearnets.generalization.addition import Adders, DenseMLP, SparseMLP
from clearnets.generalization.tasks import (
    WORKER_IMPORTS,
    Batch,
    Run,
    Task,
    check_finite,
    one_thread,
    spaced,
)
from clearnets.pipeline.artifacts import to_line, write_bytes, write_text
from clearnets.pipeline.processes import cores, each
from clearnets.pipeline.progress import Progress
from clearnets.pipeline.runtime import Runtime, seed_for

SAVE_SECONDS = 20.0
"""Wall time between two resume states; changes no result."""
WARMUP_STEPS = 10
"""Steps over which the learning rate rises, as in the published code."""


class GrokkingTask(Task):
    """One run for each variant and seed."""

    def __init__(self, settings: Grokking) -> None:
        self._settings = settings

    def runs(self) -> list[Run]:
        return [
            Run(f"{variant}-{seed}", seed, variant)
            for variant in self._settings.variants
            for seed in self._settings.seeds
        ]

    def work(self) -> int:
        return self._settings.steps * len(self._settings.variants)

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Train each variant on one thread, so that the number of threads changes no byte.

        Raises:
            UserError: training diverged.
        """
        left = [name for name in self._settings.variants if not self._is_trained(name, folder)]
        bar.advance(self._settings.steps * (len(self._settings.variants) - len(left)))
        if device.type == "cpu" and min(cores(), len(left)) > 1:
            jobs = [(self._settings, variant, folder) for variant in left]
            done = each(_train, jobs, workers=cores(), preload=WORKER_IMPORTS)
            for variant, _ in zip(left, done):
                bar.advance(self._settings.steps, variant)
            return
        for variant in left:
            with one_thread():
                self.train_variant(variant, folder, device=device, bar=bar)

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        return self._saved_steps()

    def model(self, run: Run, folder: Path, step: int) -> Adders:
        tensors = load_file(self._path(folder, run.variant, step))
        place = self._settings.seeds.index(run.seed)
        model = self._new(run.variant, [run.seed])
        model.load_state_dict({name: all_M[[place]] for name, all_M in tensors.items()})
        return model.eval()

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.inputs)[0]

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        pairs_A2 = _all_pairs(self._settings.modulus)
        trained_A = _trained(self._settings, run.seed)
        pairs_N2 = pairs_A2[trained_A if split == "train" else ~trained_A]
        yield Batch(pairs_N2.unsqueeze(0), pairs_N2.sum(1) % self._settings.modulus)

    def hookpoints(self, model: nn.Module) -> list[str]:
        return ["attention", "mlp"]

    def native(self, model: nn.Module) -> dict[str, str]:
        assert isinstance(model, Adders)
        return {"mlp": "mlp.encoder"} if isinstance(model.mlp, SparseMLP) else {}

    def progress(self, run: Run, folder: Path) -> dict[int, dict[str, float]]:
        """Return the progress measures of every checkpoint; losses are in nats.

        Key frequencies are those of the last checkpoint.
        """
        size = self._settings.modulus
        trained_PP = _trained(self._settings, run.seed).view(size, size).numpy()
        pairs_1A2 = _all_pairs(size).unsqueeze(0)
        keys: tuple[int, ...] | None = None
        found = {}
        for step in reversed(self._saved_steps()):
            model = self.model(run, folder, step)
            with torch.no_grad():
                logits_PPC = model(pairs_1A2)[0].view(size, size, size).double().numpy()
            if keys is None:
                keys = fourier.key_frequencies(fourier.Waves.of(logits_PPC))
            restricted = partial(fourier.restricted_loss, logits_PPC, keys)
            found[step] = {
                "restricted_loss": restricted(~trained_PP),
                "excluded_loss": fourier.excluded_loss(logits_PPC, keys, trained_PP),
                "fourier_sparsity": fourier.fourier_sparsity(model.W_E_MPD[0].detach().numpy()),
                "key_frequencies": float(len(keys)),
            }
        return dict(sorted(found.items()))

    def _saved_steps(self) -> list[int]:
        return spaced(self._settings.spacing, self._settings.steps, self._settings.checkpoints)

    def _path(self, folder: Path, variant: str, step: int) -> Path:
        return folder / variant / f"{step}.safetensors"

    def _new(self, variant: str, seeds: list[int]) -> Adders:
        of = self._settings
        if variant == "dense":
            mlp: Any = partial(DenseMLP, width=of.hidden_size, inner=of.mlp_size)
        else:
            mlp = partial(SparseMLP, width=of.hidden_size, num_latents=of.num_latents, k=of.k)
        return Adders(
            seeds, modulus=of.modulus, width=of.hidden_size, num_heads=of.num_heads, mlp=mlp
        )

    def _curves(self, variant: str, folder: Path) -> list[Path]:
        seeds = self._settings.seeds
        return [folder / f"{variant}-{seed}" / "curve.jsonl" for seed in seeds]

    def _is_trained(self, variant: str, folder: Path) -> bool:
        return all(path.exists() for path in self._curves(variant, folder))

    def train_variant(
        self, variant: str, folder: Path, *, device: torch.device, bar: Progress | None = None
    ) -> None:
        """Train the runs of one variant to their end; killed ones resume."""
        of = self._settings
        seeds = list(of.seeds)
        model = self._new(variant, seeds).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=of.learning_rate,
            betas=of.betas,
            weight_decay=of.weight_decay,
            fused=True,
        )
        state = folder / variant / "state.pt"
        start, rows = _load(state, model, optimizer, device) if state.exists() else (0, [])
        if bar:
            bar.advance(start)

        pairs_A2 = _all_pairs(of.modulus).to(device)
        trained_MA = torch.stack([_trained(of, seed) for seed in seeds]).to(device)
        pairs_MN2 = torch.stack([pairs_A2[trained_A] for trained_A in trained_MA])
        codes = [nn.functional.one_hot(x, of.modulus).float() for x in pairs_MN2.unbind(2)]
        labels_MN = pairs_MN2.sum(2) % of.modulus
        checkpoints, saved = set(self._saved_steps()), time.monotonic()
        for step in range(start, of.steps + 1):
            if step in checkpoints or step % of.eval_steps == 0:
                measured = _measure(model, pairs_A2, trained_MA)
                for row in measured:
                    check_finite(row, step)
                rows.append({"step": step, "runs": measured})
            if step in checkpoints:
                write_bytes(self._path(folder, variant, step), save(_weights(model)))
            if step == of.steps:
                break
            loss = _losses(model.answer(codes), labels_MN).mean(1).sum()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = of.learning_rate * min(step / WARMUP_STEPS, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if bar:
                bar.advance(note=f"{variant}, training loss {loss.item() / len(seeds):.3g}")
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(state, step + 1, model, optimizer, rows)
                saved = time.monotonic()
        for place, path in enumerate(self._curves(variant, folder)):
            lines = [to_line({"step": row["step"], **row["runs"][place]}) for row in rows]
            write_text(path, "\n".join(lines) + "\n")
        state.unlink(missing_ok=True)


def _train(settings: Grokking, variant: str, folder: Path) -> None:
    device = Runtime("cpu", threads=1).torch_device()
    GrokkingTask(settings).train_variant(variant, folder, device=device)


def _all_pairs(modulus: int) -> Tensor:
    """Return all pairs (A, 2), the first number varying slowest."""
    return torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))


def _trained(settings: Grokking, seed: int) -> Tensor:
    """Return a mask (A,) of the training pairs, of which every seed has the same number."""
    size = settings.modulus**2
    rng = torch.Generator().manual_seed(seed_for(seed, "pairs"))
    trained_A = torch.zeros(size, dtype=torch.bool)
    trained_A[torch.randperm(size, generator=rng)[: round(size * settings.train_share)]] = True
    return trained_A


def _losses(logits_MNP: Tensor, labels_MN: Tensor) -> Tensor:
    """Return the cross-entropy (M, N) in float64, as float32 would round small ones to zero."""
    logits_MNP = logits_MNP.double()
    right_MN = logits_MNP.gather(2, labels_MN.unsqueeze(2)).squeeze(2)
    return logits_MNP.logsumexp(2) - right_MN


@torch.no_grad()
def _measure(model: Adders, pairs_A2: Tensor, trained_MA: Tensor) -> list[dict[str, float]]:
    """Return losses and accuracies of each run on its training pairs and on all others."""
    runs = len(trained_MA)
    labels_MA = (pairs_A2.sum(1) % model.modulus).expand(runs, -1)
    logits_MAP = model(pairs_A2.expand(runs, -1, -1))
    losses_MA = _losses(logits_MAP, labels_MA)
    right_MA = (logits_MAP.argmax(2) == labels_MA).double()
    rows = []
    for loss_A, right_A, trained_A in zip(losses_MA, right_MA, trained_MA):
        parts = {"train": trained_A, "test": ~trained_A}
        rows.append(
            {
                f"{split}_{name}": float(values_A[part].mean())
                for split, part in parts.items()
                for name, values_A in (("loss", loss_A), ("accuracy", right_A))
            }
        )
    return rows


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}


def _save(path: Path, step: int, model: nn.Module, optimizer: Any, rows: list[Any]) -> None:
    data = io.BytesIO()
    state = {"step": step, "rows": rows, "optimizer": optimizer.state_dict()}
    torch.save({**state, "model": model.state_dict()}, data)
    write_bytes(path, data.getvalue())


def _load(
    path: Path, model: nn.Module, optimizer: Any, device: torch.device
) -> tuple[int, list[Any]]:
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["rows"]
