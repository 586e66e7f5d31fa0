"""Training of picture classifiers with AdamW, and their losses on whole training and test sets.

Neither measuring nor saving changes the training: a run that was killed and resumed, or measured
at other steps, ends with the same weights.

Shapes: N pictures, B of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from clearnets.config import PictureTraining
from clearnets.generalization.tasks import check_finite
from clearnets.pipeline.artifacts import JsonlWriter, write_bytes
from clearnets.pipeline.runtime import autocast, seed_for

SAVE_SECONDS = 25.0
"""Wall time between two resume states; changes no result."""

_MEASURED_AT_ONCE = 1024


@dataclass(frozen=True)
class Labelled:
    """Pictures as a model reads them, on its device.

    Attributes:
        x_NCHW: float32.
        y_N: int64.
    """

    x_NCHW: Tensor
    y_N: Tensor

    def __len__(self) -> int:
        return len(self.y_N)

    def take(self, rows: np.ndarray) -> Labelled:
        """Return the pictures at the given indices."""
        at = torch.from_numpy(rows).to(self.y_N.device)
        return Labelled(self.x_NCHW[at], self.y_N[at])


@torch.no_grad()
def measure(model: PreTrainedModel, data: Labelled) -> tuple[float, float]:
    """Return the mean cross-entropy in nats and the accuracy over all of `data`."""
    was_training = model.training
    model.eval()
    nll, right = 0.0, 0
    for start in range(0, len(data), _MEASURED_AT_ONCE):
        at = slice(start, start + _MEASURED_AT_ONCE)
        logits_BK, y_B = model(pixel_values=data.x_NCHW[at]).logits, data.y_N[at]
        nll += cross_entropy(logits_BK, y_B, reduction="none").sum(dtype=torch.float64).item()
        right += int((logits_BK.argmax(1) == y_B).sum())
    model.train(was_training)
    return nll / len(data), right / len(data)


class Trainer:
    """A classifier in training, with its optimizer and step.

    Args:
        model: on its device.
        data: the training set.
        settings: batch size, learning rate and betas.
        weight_decay: AdamW's.
        seed: of the order of the pictures, and of dropped branches.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        data: Labelled,
        settings: PictureTraining,
        *,
        weight_decay: float,
        seed: int,
    ) -> None:
        self.model, self.data, self.step = model, data, 0
        self._settings, self._seed = settings, seed
        self._device = data.y_N.device
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=weight_decay,
            fused=True,
        )
        self._order: tuple[int, np.ndarray] | None = None

    def advance(self) -> None:
        """Train for one step."""
        model, settings = self.model, self._settings
        if not model.training:
            model.train()
        batch = self._batch()
        rate = settings.learning_rate * min(1.0, (self.step + 1) / (settings.warmup_steps + 1))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with self._randomness(), autocast(self._device, settings.precision):
            logits_BK = model(pixel_values=batch.x_NCHW).logits
        loss = cross_entropy(logits_BK.float(), batch.y_N)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs, as tensors and numbers."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Return to the step at which `state` was taken."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _batch(self) -> Labelled:
        size = self._settings.batch_size
        if size >= len(self.data):
            return self.data
        epoch, place = divmod(self.step, math.ceil(len(self.data) / size))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng(seed_for(self._seed, "order", epoch))
            self._order = epoch, rng.permutation(len(self.data))
        return self.data.take(self._order[1][place * size : (place + 1) * size])

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Make random draws inside the block depend on the seed and the step alone.

        The generators' states outside do not change.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            seed = seed_for(self._seed, "branches", self.step)
            # torch.manual_seed takes a millisecond: it notes the seed for devices that are absent.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            yield


@dataclass(frozen=True)
class Stop:
    """The training loss at which a run of no fixed length stops.

    Attributes:
        loss: mean nats on the training set.
        every: steps between two measurements of it.
    """

    loss: float
    every: int


def checkpoint(folder: Path, step: int) -> Path:
    """Return the path of the weights at a step of a run."""
    return folder / "checkpoints" / f"{step:06d}.safetensors"


def train(
    trainer: Trainer,
    test: Labelled,
    *,
    checkpoints: Collection[int],
    last: int,
    stop: Stop | None,
    folder: Path,
    advanced: Callable[[int], None],
) -> None:
    """Train to step `last`, or until `stop` says so: writes `curve.jsonl` and `checkpoints/`.

    Args:
        trainer: at its first step; restored to that of a killed run if `folder` has its state.
        checkpoints: steps at which both sets are measured and weights saved, besides the last.
        folder: of the results, and of a state to resume from, which is removed at the end.
        advanced: called with the number of steps that were made, or restored.

    Raises:
        UserError: the training diverged.
    """
    resume = folder / "resume.pt"
    if resume.exists():
        trainer.restore(torch.load(resume, weights_only=True, map_location=trainer.data.y_N.device))
        advanced(trainer.step)
    saved = time.monotonic()
    with JsonlWriter(folder / "curve.jsonl") as curve:
        written = {row["step"] for row in curve.done}
        while True:
            step = trainer.step
            ends = step == last or (stop is not None and _low_enough(trainer, stop))
            if (ends or step in checkpoints) and step not in written:
                row = _row(trainer, test)
                # The row comes last: a resumed run continues after the last row.
                _save_weights(trainer.model, checkpoint(folder, step))
                curve.append(row)
            if ends:
                break
            if time.monotonic() - saved > SAVE_SECONDS:
                _save_state(trainer, resume)
                saved = time.monotonic()
            trainer.advance()
            advanced(1)
    resume.unlink(missing_ok=True)


def _low_enough(trainer: Trainer, stop: Stop) -> bool:
    if trainer.step % stop.every:
        return False
    return measure(trainer.model, trainer.data)[0] <= stop.loss


def _row(trainer: Trainer, test: Labelled) -> dict[str, float]:
    train_loss, train_accuracy = measure(trainer.model, trainer.data)
    test_loss, test_accuracy = measure(trainer.model, test)
    row = {
        "step": trainer.step,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
    }
    check_finite(row, trainer.step)
    return row


def _save_weights(model: PreTrainedModel, path: Path) -> None:
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    write_bytes(path, safetensors.torch.save(weights))


def _save_state(trainer: Trainer, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(trainer.state(), buffer)
    write_bytes(path, buffer.getvalue())
