"""Train SAEs and transcoders for all layers of a model in one run.

The modules, the initial weights, the loss (fvu), the optimizers, their schedules and the format
are sparsify's. The loop is ours, because its `Trainer` (1.3.3) reports to wandb alone, resumes one
step off and on the wrong weights with schedule-free signum, swaps Adam for an 8-bit one wherever
bitsandbytes happens to be installed, and is slower on a CPU (see `objective`).

Shapes: B rows, S positions, N counted tokens of a batch, D width of the feedforward.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearnets import UserError
from clearnets.coders import feedforward, objective
from clearnets.coders.batches import Batch
from clearnets.config import Coders, Precision
from clearnets.pipeline.artifacts import write_bytes
from clearnets.pipeline.runtime import autocast

if TYPE_CHECKING:
    from sparsify import SparseCoder

SAVE_EVERY = 25
"""Steps between two resume states; changes no result."""
REPORTED = 0.1
"""The report covers this last share of the steps."""


@dataclass(frozen=True)
class Schedule:
    """How the coders are trained, by sparsify's names where it has them (`optimizer`, `lr`,
    `lr_warmup_steps`). Steps are those of the optimizer, of `grad_acc_steps` batches each."""

    optimizer: Literal["adam", "signum"]
    learning_rate: float
    warmup_steps: int
    steps: int
    grad_acc_steps: int = 1
    micro_acc_steps: int = 1
    precision: Precision = "float32"

    @classmethod
    def of(cls, settings: Coders, steps: int) -> Schedule:
        """Return the schedule of the parameters' section `coders`, for this many steps."""
        return cls(
            settings.optimizer,
            settings.learning_rate,
            settings.warmup_steps,
            steps,
            settings.grad_acc_steps,
            settings.micro_acc_steps,
            settings.precision,
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        Adam warms up linearly from zero and then falls linearly to zero at `steps`
        (transformers' `get_linear_schedule_with_warmup`); signum is schedule-free.
        """
        if self.optimizer == "signum":
            return self.learning_rate
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        falling = max(1, self.steps - self.warmup_steps)
        return self.learning_rate * max(0.0, (self.steps - step) / falling)


@dataclass(frozen=True)
class Report:
    """How training ended: per hookpoint over the last tenth of the steps."""

    fvu: dict[str, float]
    """Residual over total sums of squares; nan where no step was made."""
    dead: dict[str, float]
    """Share of latents that no token of those steps activated; nan where no step was made."""

    def layers(self) -> dict[str, dict[str, float | None]]:
        """Return fvu and dead share by hookpoint, with None for nan."""
        both = {name: {"fvu": fvu, "dead": self.dead[name]} for name, fvu in self.fvu.items()}
        return {
            name: {key: None if isnan(value) else value for key, value in pair.items()}
            for name, pair in both.items()
        }


def start_biases(coder: SparseCoder, x_ND: Tensor, y_ND: Tensor) -> None:
    """Centre a new coder on its first batch, as sparsify does."""
    if coder.cfg.transcode:
        coder.encoder.bias.data = -x_ND.mean(0) @ coder.encoder.weight.data.T
    coder.b_dec.data = y_ND.mean(0)


def train(
    model: Any,
    coders: Mapping[str, SparseCoder],
    batch: Callable[[int], Batch],
    schedule: Schedule,
    *,
    state: Path,
    on_step: Callable[[int], None] = lambda step: None,
    save_every: int = SAVE_EVERY,
) -> Report:
    """Train one coder per layer in place, `coders` in the order of the layers.

    With zero steps the biases are centred and nothing else is done (the untrained twins).

    Args:
        model: causal model in eval mode; its feedforwards are read, never changed.
        coders: new coders by hookpoint, on the model's device.
        batch: tokens and mask of the n-th batch, the same whenever it is asked. Step s takes
            `grad_acc_steps` of them from `s * grad_acc_steps` on.
        schedule: optimizer and its rates.
        state: folder for the resume state; a state found there is gone on from, to the same bytes.
        on_step: called after each step with its number.
        save_every: steps between two resume states.

    Raises:
        UserError: a transcoder's module has an input and an output of different widths.
    """
    resume = state / "coders.pt"
    if not resume.exists():
        _start_all_biases(coders, *_activations(model, coders, batch(0)))
    if schedule.steps == 0:
        nan = dict.fromkeys(coders, float("nan"))
        return Report(nan, nan)
    run = _Run(coders, schedule)
    start = run.load(resume) if resume.exists() else 0
    reported_from = schedule.steps - max(1, round(schedule.steps * REPORTED))
    for step in range(start, schedule.steps):
        first = step * schedule.grad_acc_steps
        run.normalize_decoders()
        for index in range(first, first + schedule.grad_acc_steps):
            run.add_batch(*_activations(model, coders, batch(index)), report=step >= reported_from)
        run.end_step(step)
        if (step + 1) % save_every == 0:
            run.save(resume, step + 1)
        on_step(step)
    return run.finish()


def _start_all_biases(
    coders: Mapping[str, SparseCoder], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Centre new coders on the first batch."""
    for (name, coder), x_ND, y_ND in zip(coders.items(), inputs, outputs):
        if x_ND.shape[-1] != y_ND.shape[-1]:
            raise UserError(
                f"{name} reads {x_ND.shape[-1]} numbers and writes {y_ND.shape[-1]}: no "
                "transcoder; choose other hookpoints, or SAEs, which read what it writes"
            )
        start_biases(coder, x_ND, y_ND)


class _Run:
    """Coders in training, their optimizer and what is reported of the last steps."""

    def __init__(self, coders: Mapping[str, SparseCoder], schedule: Schedule) -> None:
        self._coders, self._schedule = coders, schedule
        self._unit_norm = [
            coder
            for coder in coders.values()
            if coder.cfg.normalize_decoder and not coder.cfg.transcode
        ]
        self._optimizer = _optimizer(coders, schedule)
        self._tail = {name: _Tail.new(coder) for name, coder in coders.items()}

    def normalize_decoders(self) -> None:
        """Give the rows of SAEs' decoders unit norm, as before every step."""
        for coder in self._unit_norm:
            coder.set_decoder_norm_to_unit_norm()

    def add_batch(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, report: bool
    ) -> None:
        """Add a batch's share of the step's gradient."""
        for (name, coder), x_ND, y_ND in zip(self._coders.items(), inputs, outputs):
            total = objective.variation(y_ND)
            losses = _backward(coder, x_ND, y_ND, total, self._schedule)
            if report:
                self._tail[name].add(losses, total)

    def end_step(self, step: int) -> None:
        """Move the weights by the gradient of all batches of the step."""
        for coder in self._unit_norm:
            coder.remove_gradient_parallel_to_decoder_directions()
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.rate(step)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def finish(self) -> Report:
        """Leave the coders as they are saved."""
        if self._schedule.optimizer == "signum":
            self._optimizer.eval()  # From the extrapolated weights of training to the averages.
        self.normalize_decoders()
        return Report(
            {name: float(part.residual / part.total) for name, part in self._tail.items()},
            {name: float((~part.fired_L).double().mean()) for name, part in self._tail.items()},
        )

    def save(self, path: Path, step: int) -> None:
        """Write the resume state after `step` steps."""
        data = io.BytesIO()
        # Raw training weights, never the averaged ones: going on must not move them.
        state = {
            "step": step,
            "coders": {name: coder.state_dict() for name, coder in self._coders.items()},
            "optimizer": self._optimizer.state_dict(),
            "tail": {name: vars(part) for name, part in self._tail.items()},
        }
        torch.save(state, data)
        write_bytes(path, data.getvalue())

    def load(self, path: Path) -> int:
        """Take up a resume state; return its number of steps."""
        device = next(iter(self._coders.values())).device
        state = torch.load(path, map_location=device, weights_only=True)
        for name, coder in self._coders.items():
            coder.load_state_dict(state["coders"][name])
            self._tail[name] = _Tail(**state["tail"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        return state["step"]


def _backward(
    coder: SparseCoder, x_ND: Tensor, y_ND: Tensor, total: Tensor, schedule: Schedule
) -> list[objective.Loss]:
    """Add a batch's share of the step's gradient, piece by piece; return the pieces' losses."""
    losses = []
    for x_MD, y_MD in zip(*(part.chunk(schedule.micro_acc_steps) for part in (x_ND, y_ND))):
        with autocast(x_ND.device, schedule.precision):
            piece = objective.loss(coder, x_MD, y_MD, total)
        (piece.value / schedule.grad_acc_steps).backward()
        losses.append(objective.Loss(*(part.detach() for part in piece)))
    return losses


def _activations(
    model: Any, coders: Mapping[str, SparseCoder], batch: Batch
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what the coders read and reconstruct at a batch's counted tokens, (N, D) per layer."""
    reading, _ = feedforward.read(model, batch.tokens_BS, batch.positions_BS)
    outputs = [y_BSD[batch.counted_BS] for y_BSD in reading.outputs]
    if next(iter(coders.values())).cfg.transcode:
        return [x_BSD[batch.counted_BS] for x_BSD in reading.inputs], outputs
    return outputs, outputs


def _optimizer(coders: Mapping[str, SparseCoder], schedule: Schedule) -> Any:
    """Return sparsify's optimizer, with one parameter group per coder."""
    groups = [{"params": list(coder.parameters())} for coder in coders.values()]
    if schedule.optimizer == "adam":
        return torch.optim.Adam(groups, lr=schedule.learning_rate, fused=True)
    from schedulefree import ScheduleFreeWrapper
    from sparsify.sign_sgd import SignSGD

    wrapped = ScheduleFreeWrapper(SignSGD(groups, lr=schedule.learning_rate), momentum=0.95)
    wrapped.train()
    return wrapped


@dataclass
class _Tail:
    """Sums over the reported steps."""

    residual: Tensor
    total: Tensor
    fired_L: Tensor

    @classmethod
    def new(cls, coder: SparseCoder) -> _Tail:
        zero = torch.zeros((), dtype=torch.float64, device=coder.device)
        fired_L = torch.zeros(coder.num_latents, dtype=torch.bool, device=coder.device)
        return cls(zero, zero, fired_L)

    def add(self, losses: Sequence[objective.Loss], total: Tensor) -> None:
        """Count a batch, given in pieces."""
        self.total = self.total + total.double()
        for piece in losses:
            self.residual = self.residual + piece.residual.double()
            self.fired_L[piece.indices_Nk[piece.acts_Nk > 0]] = True
