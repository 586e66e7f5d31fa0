"""What every task of the observatory gives: training runs with checkpoints, and how to read them.

A task trains its runs and keeps some checkpoints of each; the stage reads the same tables off all
of them. A task is made from its settings alone and does no work before it is asked.

Shapes: N predictions of a batch, C classes, B rows, S positions, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from clearnets import UserError
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.pipeline.progress import Progress

# What every process of a task needs, to be imported once.
PRELOAD = "clearnets.generalization.preloaded"
# In a run's folder, where a task has something to say of the whole run: `reached` is false where it
# stopped before the training loss that all runs were to reach.
OUTCOME = "run.json"


@dataclass(frozen=True)
class Run:
    """One training run of a task.

    Attributes:
        name: its folder; differs from those of all other runs of the task.
        seed: of weights and data.
        variant: what is compared at equal settings, such as the kind of feedforward.
        settings: what differs between the runs besides, such as a width or a share of noisy labels.
    """

    name: str
    seed: int
    variant: str = "dense"
    settings: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What a model is called with, and what it should say.

    Attributes:
        inputs: the model's first argument.
        labels_N: class of each prediction, int64.
        counted_BS: of a module's output (B, S, D), the positions whose activations are measured;
            none means all.
    """

    inputs: Tensor
    labels_N: Tensor
    counted_BS: Tensor | None = None

    def activations(self, output: Any) -> Tensor:
        """The measured ones (M, D) of what a module gave, a tensor or a tuple that begins so."""
        acts = output[0] if isinstance(output, tuple) else output
        return acts.flatten(0, -2) if self.counted_BS is None else acts[self.counted_BS]


class Task(Protocol):
    """Training runs whose checkpoints are observed. `folder` is the same in every call: it holds
    a folder for each run with `curve.jsonl` and what the task keeps of its checkpoints."""

    def runs(self) -> list[Run]:
        """Every run, in the order of the tables."""
        ...

    def work(self) -> int:
        """Units of work of training all runs, for the progress bar."""
        ...

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Train all runs. A killed one goes on from what it left in `folder`, to the same bytes.

        Leaves `folder/<run>/curve.jsonl`: one row for each measured step with `step`, `train_loss`,
        `train_accuracy`, `test_loss` and `test_accuracy`, in nats per prediction and shares of
        predictions, and the task's own measures of progress.
        """
        ...

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        """Steps, ascending, of which weights are there; all are steps of the curve."""
        ...

    def model(self, run: Run, folder: Path, step: int) -> nn.Module:
        """The model of a checkpoint in eval mode, on the CPU, in float32."""
        ...

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model says of a batch, (N, C)."""
        ...

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        """Fixed data of a split in a fixed order, the same for every checkpoint, on the CPU."""
        ...

    def hookpoints(self, model: nn.Module) -> list[str]:
        """Modules whose output a coder reads: attention and feedforwards."""
        ...

    def native(self, model: nn.Module) -> dict[str, str]:
        """Of sparse models, by hookpoint, the module that gives its latents as values and indices;
        these hookpoints need no coder."""
        ...

    def progress(self, run: Run, folder: Path) -> dict[int, dict[str, float]]:
        """The task's own measures of progress, by checkpoint and name; empty where it has none."""
        ...


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch uses one thread inside, so that the number of threads there are changes no byte."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def curve(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's curve, in the order of its steps."""
    return read_jsonl(folder / run.name / "curve.jsonl")


def check_finite(row: Mapping[str, float | None], step: int) -> None:
    """A row of a curve has losses that are numbers, or none.

    Raises:
        UserError: it has not.
    """
    losses = (row["train_loss"], row["test_loss"])
    if not all(loss is None or math.isfinite(loss) for loss in losses):
        raise UserError(f"training diverged before step {step}; lower its learning_rate")


def log_spaced(last: int, count: int, *, first: int = 1) -> list[int]:
    """At most `count` different steps from 0 over `first` to `last`, logarithmically spaced.

    >>> log_spaced(1000, 5)
    [0, 1, 10, 100, 1000]
    """
    if count < 3:
        raise ValueError("count must be at least 3: 0, the first and the last step")
    if last < first:
        return [0]
    ratio = last / first
    steps = {round(first * ratio ** (i / (count - 2))) for i in range(count - 1)}
    return [0, *sorted(steps)]


def even_spaced(last: int, count: int) -> list[int]:
    """At most `count` different steps from 0 to `last`, evenly spaced.

    >>> even_spaced(1000, 5)
    [0, 250, 500, 750, 1000]
    """
    if count < 2:
        raise ValueError("count must be at least 2: 0 and the last step")
    return sorted({round(last * i / (count - 1)) for i in range(count)})


def spaced(spacing: Literal["log", "even"], last: int, count: int) -> list[int]:
    """At most `count` steps from 0 to `last`, as the parameter `spacing` says."""
    return log_spaced(last, count) if spacing == "log" else even_spaced(last, count)


def chosen(steps: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Of the `steps` that there are, those nearest to the `wanted` ones, ascending.

    >>> chosen([0, 500, 1000], [0, 1, 600, 1000])
    [0, 500, 1000]
    """
    return sorted({min(steps, key=lambda step: (abs(step - want), step)) for want in wanted})
