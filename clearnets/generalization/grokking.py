"""Task `grokking`: modular addition, memorised first and generalized later.

After Power et al. 2022 and Nanda et al. 2023. A run trains on the pairs of its own seed, all of
them in every step.

Shapes: N training pairs, P the prime, A = P² pairs.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clearnets.config import Grokking
from clearnets.generalization import adder_circuits, fourier
from clearnets.generalization.addition import Adder, DenseMLP, SparseMLP
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
        return self._settings.steps * len(self.runs())

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Train each run on one thread, so that the number of threads changes no byte.

        Raises:
            UserError: training diverged.
        """
        left = [run for run in self.runs() if not self._curve(run, folder).exists()]
        bar.advance(self._settings.steps * (len(self.runs()) - len(left)))
        if device.type == "cpu" and min(cores(), len(left)) > 1:
            jobs = [(self._settings, run, folder) for run in left]
            done = each(_train, jobs, workers=cores(), preload=WORKER_IMPORTS)
            for run, _ in zip(left, done):
                bar.advance(self._settings.steps, run.name)
            return
        for run in left:
            with one_thread():
                self.train_one(run, folder, device=device, bar=bar)

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        return self._saved_steps()

    def model(self, run: Run, folder: Path, step: int) -> Adder:
        model = self._new(run)
        model.load_state_dict(load_file(self._weights(run, folder, step)))
        return model.eval()

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.inputs)

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        pairs_A2 = _all_pairs(self._settings.modulus)
        trained_A = _trained(self._settings, run.seed)
        pairs_N2 = pairs_A2[trained_A if split == "train" else ~trained_A]
        yield Batch(pairs_N2, pairs_N2.sum(1) % self._settings.modulus)

    def hookpoints(self, model: nn.Module) -> list[str]:
        return ["attention", "mlp"]

    def native(self, model: nn.Module) -> dict[str, str]:
        assert isinstance(model, Adder)
        return {"mlp": "mlp.encoder"} if isinstance(model.mlp, SparseMLP) else {}

    def progress(self, run: Run, folder: Path) -> dict[int, dict[str, float]]:
        """Return the progress measures of every checkpoint; losses are in nats.

        Key frequencies are those of the last checkpoint; circuits are of the training pairs.
        """
        size = self._settings.modulus
        trained_PP = _trained(self._settings, run.seed).view(size, size).numpy()
        pairs_A2 = _all_pairs(size)
        own_N2 = pairs_A2[_trained(self._settings, run.seed)]
        labels_N = (own_N2.sum(1) % size).numpy()
        keys: tuple[int, ...] | None = None
        found = {}
        for step in reversed(self._saved_steps()):
            model = self.model(run, folder, step)
            with torch.no_grad():
                logits_PPC = model(pairs_A2).view(size, size, size).double().numpy()
            if keys is None:
                keys = fourier.key_frequencies(fourier.Waves.of(logits_PPC))
            restricted = partial(fourier.restricted_loss, logits_PPC, keys)
            found[step] = {
                "restricted_loss": restricted(~trained_PP),
                "excluded_loss": fourier.excluded_loss(logits_PPC, keys, trained_PP),
                "fourier_sparsity": fourier.fourier_sparsity(model.W_E_PD.detach().numpy()),
                "key_frequencies": float(len(keys)),
                **adder_circuits.measures(
                    adder_circuits.latents(model, own_N2),
                    labels_N,
                    np.random.default_rng(seed_for(run.seed, "patch")),
                ),
            }
        return dict(sorted(found.items()))

    def _saved_steps(self) -> list[int]:
        return spaced(self._settings.spacing, self._settings.steps, self._settings.checkpoints)

    def _weights(self, run: Run, folder: Path, step: int) -> Path:
        return folder / run.name / f"{step}.safetensors"

    def _curve(self, run: Run, folder: Path) -> Path:
        return folder / run.name / "curve.jsonl"

    def _new(self, run: Run) -> Adder:
        of = self._settings
        if run.variant == "dense":
            mlp: Any = partial(DenseMLP, width=of.hidden_size, inner=of.mlp_size)
        else:
            mlp = partial(SparseMLP, width=of.hidden_size, num_latents=of.num_latents, k=of.k)
        return Adder(
            run.seed, modulus=of.modulus, width=of.hidden_size, num_heads=of.num_heads, mlp=mlp
        )

    def train_one(
        self, run: Run, folder: Path, *, device: torch.device, bar: Progress | None = None
    ) -> None:
        """Train a run to its end; a killed one resumes."""
        of = self._settings
        model = self._new(run).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=of.learning_rate,
            betas=of.betas,
            weight_decay=of.weight_decay,
            fused=True,
        )
        state = folder / run.name / "state.pt"
        start, rows = _load(state, model, optimizer, device) if state.exists() else (0, [])
        if bar:
            bar.advance(start)

        pairs_A2 = _all_pairs(of.modulus).to(device)
        trained_A = _trained(of, run.seed).to(device)
        pairs_N2 = pairs_A2[trained_A]
        labels_N = pairs_N2.sum(1) % of.modulus
        checkpoints, saved = set(self._saved_steps()), time.monotonic()
        for step in range(start, of.steps + 1):
            if step in checkpoints or step % of.eval_steps == 0:
                measured = _measure(model, pairs_A2, trained_A)
                check_finite(measured, step)
                rows.append({"step": step, **measured})
            if step in checkpoints:
                write_bytes(self._weights(run, folder, step), save(model.state_dict()))
            if step == of.steps:
                break
            losses(model(pairs_N2), labels_N).mean().backward()
            for group in optimizer.param_groups:
                group["lr"] = of.learning_rate * min(step / WARMUP_STEPS, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if bar:
                bar.advance(note=run.name)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(state, step + 1, model, optimizer, rows)
                saved = time.monotonic()
        lines = [to_line(row) for row in rows]
        write_text(self._curve(run, folder), "\n".join(lines) + "\n")
        state.unlink(missing_ok=True)


def _train(settings: Grokking, run: Run, folder: Path) -> None:
    device = Runtime("cpu", threads=1).torch_device()
    GrokkingTask(settings).train_one(run, folder, device=device)


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


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy as softplus of how much larger the wrong answers' logits are than the right
    one's: unlike the logarithm of a probability it keeps the digits of a small loss."""

    @staticmethod
    def forward(ctx: Any, logits_NP: Tensor, labels_N: Tensor) -> Tensor:
        labels_N1 = labels_N.unsqueeze(1)
        wrong_NP = logits_NP.scatter(1, labels_N1, -torch.inf)
        logs_NP = wrong_NP.log_softmax(1)
        log_sum_N1 = wrong_NP.amax(1, keepdim=True) - logs_NP.amax(1, keepdim=True)
        excess_N1 = log_sum_N1 - logits_NP.gather(1, labels_N1)
        ctx.save_for_backward(wrong_NP, excess_N1, labels_N1)
        return nn.functional.softplus(excess_N1).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        wrong_NP, excess_N1, labels_N1 = ctx.saved_tensors
        missed_N1 = excess_N1.sigmoid() * grad_N.unsqueeze(1)
        return (wrong_NP.softmax(1) * missed_N1).scatter_(1, labels_N1, -missed_N1), None


def losses(logits_NP: Tensor, labels_N: Tensor) -> Tensor:
    """Return the cross-entropy (N,) in nats; small ones have as many digits as large ones."""
    found: Any = _CrossEntropy.apply(logits_NP, labels_N)
    return found


@torch.no_grad()
def _measure(model: Adder, pairs_A2: Tensor, trained_A: Tensor) -> dict[str, float]:
    """Return losses and accuracies of a run on its training pairs and on all others."""
    labels_A = pairs_A2.sum(1) % model.modulus
    logits_AP = model(pairs_A2)
    right_A = (logits_AP.argmax(1) == labels_A).double()
    values = {"loss": losses(logits_AP, labels_A).double(), "accuracy": right_A}
    return {
        f"{split}_{name}": float(values_A[part_A].mean())
        for split, part_A in (("train", trained_A), ("test", ~trained_A))
        for name, values_A in values.items()
    }


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
