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
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearnets import UserError
from clearnets.coders import feedforward, objective, selection
from clearnets.coders.batches import Batch
from clearnets.config import Coders, Precision
from clearnets.models import hookpoints
from clearnets.models.revival import Silence
from clearnets.pipeline.artifacts import write_bytes
from clearnets.pipeline.runtime import autocast

if TYPE_CHECKING:
    from sparsify import SparseCoder

READ_TOKENS = 8192
"""Tokens that one forward pass of the model should read: it does not get faster with more."""
SAVE_EVERY = 100
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
    bias_step: float = 0.0
    silent_steps: int = 16

    @classmethod
    def of(cls, settings: Coders, steps: int, family: str) -> Schedule:
        """Return the schedule of the parameters' section `coders`, for this many steps, with the
        rate of a family."""
        return cls(
            settings.optimizer,
            settings.rate(family),
            settings.warmup_steps,
            steps,
            settings.grad_acc_steps,
            settings.micro_acc_steps,
            settings.precision,
            settings.bias_step,
            settings.silent_steps,
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


@dataclass(frozen=True)
class Activations:
    """What the model's feedforwards read and wrote at a batch's counted tokens, (N, D) per layer,
    and what it ended with."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    totals: Mapping[str, Tensor]
    """The `variation` of each output."""
    batch: Batch
    hidden_BSD: Tensor
    """The last hidden state, which the unembedding reads."""

    def pair(self, coder: SparseCoder, name: str) -> tuple[Tensor, Tensor]:
        """Return what the coder of a hookpoint reads and what it reconstructs."""
        y_ND = self.outputs[name]
        return self.inputs[name] if coder.cfg.transcode else y_ND, y_ND


AddGradient = Callable[
    [Mapping[str, "SparseCoder"], Activations, Schedule], dict[str, list[objective.Loss]]
]
"""Adds a batch's share of a step's gradient to that of coders by hookpoint; gives by hookpoint the
losses of the pieces of the batch."""


def separately(
    coders: Mapping[str, SparseCoder], activations: Activations, schedule: Schedule
) -> dict[str, list[objective.Loss]]:
    """Add the gradient of each coder's own fvu."""
    return {
        name: _add_gradient(
            coder, *activations.pair(coder, name), activations.totals[name], schedule
        )
        for name, coder in coders.items()
    }


@dataclass(frozen=True)
class Chain:
    """One coder per layer of a family, and where their training is resumed."""

    coders: Mapping[str, SparseCoder]
    """By hookpoint, in the order of the layers, on the model's device."""
    state: Path
    """File of the resume state."""
    add_gradient: AddGradient = separately
    """What they are trained on."""
    learning_rate: float | None = None
    """Peak rate; None means the schedule's."""


def start_biases(coder: SparseCoder, x_ND: Tensor, y_ND: Tensor) -> None:
    """Centre a new coder on its first batch, as sparsify does."""
    if coder.cfg.transcode:
        coder.encoder.bias.data = -x_ND.mean(0) @ coder.encoder.weight.data.T
    coder.b_dec.data = y_ND.mean(0)


def train(
    model: Any,
    chains: Sequence[Chain],
    batches: Callable[[range], Batch],
    schedule: Schedule,
    *,
    per_read: int = 1,
    on_step: Callable[[int], None] = lambda step: None,
    save_every: int = SAVE_EVERY,
) -> list[Report]:
    """Train the coders of some families in place, all in one pass over the data.

    No coder's weights depend on which others are trained beside it. With zero steps the biases are
    centred and nothing else is done (the untrained twins).

    Args:
        model: causal model in eval mode; its feedforwards are read, never changed.
        chains: new coders. Each is gone on with from its resume state if there is one, to the same
            bytes.
        batches: the rows of some consecutive batches, equally many in each. Step s takes
            `grad_acc_steps` batches from `s * grad_acc_steps` on.
        schedule: optimizer and its rates.
        per_read: batches that one forward pass of the model reads.
        on_step: called after each step with its number.
        save_every: steps between two resume states.

    Returns:
        How the training of each chain ended.

    Raises:
        UserError: a transcoder's module has an input and an output of different widths.
    """
    count = max(1, schedule.steps * schedule.grad_acc_steps)
    reader = _Reader(model, batches, count, per_read)
    return fit(reader, chains, schedule, on_step=on_step, save_every=save_every)


def fit(
    reader: Callable[[int], Activations],
    chains: Sequence[Chain],
    schedule: Schedule,
    *,
    on_step: Callable[[int], None] = lambda step: None,
    save_every: int = SAVE_EVERY,
) -> list[Report]:
    """Do the same with activations that `reader` gives by the number of a batch."""
    runs = [_Run(chain, schedule, reader) for chain in chains]
    for step in range(min(run.done for run in runs), schedule.steps):
        due = [run for run in runs if run.done == step]
        for run in due:
            run.normalize_decoders()
        for index in range(step * schedule.grad_acc_steps, (step + 1) * schedule.grad_acc_steps):
            activations = reader(index)
            for run in due:
                run.add_batch(activations)
        for run in due:
            run.end_step()
            if run.done % save_every == 0:
                run.save()
        on_step(step)
    return [run.finish() for run in runs]


class _Reader:
    """The model's activations, batch by batch, read some batches at a time."""

    def __init__(
        self, model: Any, batches: Callable[[range], Batch], count: int, per_read: int
    ) -> None:
        self._model, self._batches, self._count, self._per_read = model, batches, count, per_read
        self._names = hookpoints.names(model)
        self._read: range = range(0)
        self._parts: list[Activations] = []

    def __call__(self, index: int) -> Activations:
        """Return those of a batch. Where a pass begins depends on no earlier call."""
        if index not in self._read:
            first = index - index % self._per_read
            self._read = range(first, min(first + self._per_read, self._count))
            self._parts = self._activations(self._batches(self._read))
        return self._parts[index - self._read.start]

    def _activations(self, batch: Batch) -> list[Activations]:
        counted_BS = batch.counted_BS
        reading, hidden_BSD = feedforward.read(self._model, batch.tokens_BS, batch.positions_BS)
        sizes = counted_BS.view(len(self._read), -1).sum(1).tolist()
        rows = len(counted_BS) // len(self._read)
        inputs, outputs = (
            [part_BSD[counted_BS].split(sizes) for part_BSD in parts]
            for parts in (reading.inputs, reading.outputs)
        )
        return [
            Activations(
                dict(zip(self._names, x, strict=True)),
                dict(zip(self._names, y, strict=True)),
                {name: objective.variation(y_ND) for name, y_ND in zip(self._names, y)},
                part,
                hidden_bSD,
            )
            for x, y, part, hidden_bSD in zip(
                zip(*inputs), zip(*outputs), batch.split(rows), hidden_BSD.split(rows), strict=True
            )
        ]


class _Run:
    """The coders of a chain in training, their optimizer and what is reported of the last steps."""

    def __init__(
        self, chain: Chain, schedule: Schedule, reader: Callable[[int], Activations]
    ) -> None:
        rate = chain.learning_rate or schedule.learning_rate
        self._chain, self._schedule = chain, replace(schedule, learning_rate=rate)
        coders = chain.coders
        self._unit_norm = [
            coder
            for coder in coders.values()
            if coder.cfg.normalize_decoder and not coder.cfg.transcode
        ]
        self.done = 0
        """Steps that have been made."""
        self._silence = {name: Silence.of(coder.encoder.bias) for name, coder in coders.items()}
        self._spread: dict[str, Tensor] = {}
        """The unit of a bias: standard deviation of what the encoder read in the first batch."""
        if not chain.state.exists():
            self._start(reader(0))
        self._optimizer = _optimizer(coders, self._schedule)
        self._tail = {name: _Tail.new(coder) for name, coder in coders.items()}
        if chain.state.exists():
            self._load()

    def _start(self, first: Activations) -> None:
        """Centre new coders on the first batch."""
        for name, coder in self._chain.coders.items():
            x_ND, y_ND = first.pair(coder, name)
            if x_ND.shape[-1] != y_ND.shape[-1]:
                raise UserError(
                    f"{name} reads {x_ND.shape[-1]} numbers and writes {y_ND.shape[-1]}: no "
                    "transcoder; choose other hookpoints, or SAEs, which read what it writes"
                )
            start_biases(coder, x_ND, y_ND)
            selection.start(coder, x_ND if coder.cfg.transcode else x_ND - coder.b_dec)
            self._spread[name] = (x_ND - x_ND.mean(0)).pow(2).mean().sqrt()

    def normalize_decoders(self) -> None:
        """Give the rows of SAEs' decoders unit norm, as before every step."""
        for coder in self._unit_norm:
            coder.set_decoder_norm_to_unit_norm()

    def add_batch(self, activations: Activations) -> None:
        """Add a batch's share of the step's gradient."""
        steps = self._schedule.steps
        reported = self.done >= steps - max(1, round(steps * REPORTED))
        losses = self._chain.add_gradient(self._chain.coders, activations, self._schedule)
        for name, pieces in losses.items():
            for piece in pieces:
                self._silence[name].hear(piece.acts_Nk > 0, piece.indices_Nk)
                selection.track(self._chain.coders[name], piece.acts_Nk)
            if reported:
                self._tail[name].add(pieces, activations.totals[name])

    def end_step(self) -> None:
        """Move the weights by the gradient of all batches of the step."""
        for coder in self._unit_norm:
            coder.remove_gradient_parallel_to_decoder_directions()
        schedule = self._schedule
        rate = schedule.rate(self.done)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        for name, coder in self._chain.coders.items():
            self._silence[name].end_step(
                coder.encoder.bias,
                self._optimizer,
                bias_step=schedule.bias_step * rate / schedule.learning_rate * self._spread[name],
                silent_steps=schedule.silent_steps,
            )
        self.done += 1

    def finish(self) -> Report:
        """Leave the coders as they are saved."""
        if self._schedule.steps == 0:
            nan = dict.fromkeys(self._chain.coders, float("nan"))
            return Report(nan, nan)
        if self._schedule.optimizer == "signum":
            self._optimizer.eval()  # From the extrapolated weights of training to the averages.
        self.normalize_decoders()
        return Report(
            {name: float(part.residual / part.total) for name, part in self._tail.items()},
            {name: float((~part.fired_L).double().mean()) for name, part in self._tail.items()},
        )

    def save(self) -> None:
        """Write the resume state."""
        data = io.BytesIO()
        # Raw training weights, never the averaged ones: going on must not move them.
        state = {
            "step": self.done,
            "coders": {name: coder.state_dict() for name, coder in self._chain.coders.items()},
            "optimizer": self._optimizer.state_dict(),
            "tail": {name: vars(part) for name, part in self._tail.items()},
            "silence": {name: part.steps_L for name, part in self._silence.items()},
            "spread": self._spread,
        }
        torch.save(state, data)
        write_bytes(self._chain.state, data.getvalue())

    def _load(self) -> None:
        """Take up the resume state."""
        device = next(iter(self._chain.coders.values())).device
        state = torch.load(self._chain.state, map_location=device, weights_only=True)
        for name, coder in self._chain.coders.items():
            coder.load_state_dict(state["coders"][name])
            self._tail[name] = _Tail(**state["tail"][name])
            self._silence[name] = Silence(state["silence"][name])
        self._spread = state["spread"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.done = state["step"]


def _add_gradient(
    coder: SparseCoder, x_ND: Tensor, y_ND: Tensor, total: Tensor, schedule: Schedule
) -> list[objective.Loss]:
    """Add a batch's share of the step's gradient, piece by piece; return the pieces' losses."""
    count, share = schedule.micro_acc_steps, 1 / schedule.grad_acc_steps
    with autocast(x_ND.device, schedule.precision):
        return [
            objective.add_gradient(
                coder, x_MD, y_MD, total, share=share, part=len(x_MD) / len(x_ND)
            )
            for x_MD, y_MD in zip(x_ND.chunk(count), y_ND.chunk(count), strict=True)
        ]


def _optimizer(coders: Mapping[str, SparseCoder], schedule: Schedule) -> Any:
    """Return sparsify's optimizer."""
    every = [parameter for coder in coders.values() for parameter in coder.parameters()]
    parameters = [parameter for parameter in every if parameter.requires_grad]
    if schedule.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=schedule.learning_rate, fused=True)
    from schedulefree import ScheduleFreeWrapper
    from sparsify.sign_sgd import SignSGD

    wrapped = ScheduleFreeWrapper(SignSGD(parameters, lr=schedule.learning_rate), momentum=0.95)
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
