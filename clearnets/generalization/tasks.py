"""The interface of tasks: training runs with checkpoints, their data and their hookpoints.

A task trains its runs and saves some checkpoints of each, all of which are measured alike. It is
made from its settings alone; making it does no work. The tasks are listed in `registry`.

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

# Imported once for all worker processes.
WORKER_IMPORTS = "clearnets.generalization.worker_imports"
# A file that a task may write to a run's folder: `reached` is false where the run stopped before
# the training loss that all runs were to reach.
OUTCOME = "run.json"


@dataclass(frozen=True)
class Run:
    """One training run of a task.

    Attributes:
        name: its folder; differs from those of all other runs of the task.
        seed: of weights and data.
        variant: what is compared at equal settings, such as the kind of feedforward.
        settings: what else differs between the runs, such as a width or a share of noisy labels.
    """

    name: str
    seed: int
    variant: str = "dense"
    settings: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Inputs of a model and the right answers.

    Attributes:
        inputs: the model's first argument.
        labels_N: class of each prediction, int64.
        counted_BS: positions of a module's output (B, S, D) whose activations are measured; None
            means all.
    """

    inputs: Tensor
    labels_N: Tensor
    counted_BS: Tensor | None = None

    def activations(self, output: Any) -> Tensor:
        """Return the measured activations (M, D) of a module's output, of a tuple the first."""
        acts = output[0] if isinstance(output, tuple) else output
        return acts.flatten(0, -2) if self.counted_BS is None else acts[self.counted_BS]


class Task(Protocol):
    """Training runs whose checkpoints are measured.

    `folder` is the same in every call: it holds a folder for each run with `curve.jsonl` and the
    checkpoints, in a format of the task's own.
    """

    def runs(self) -> list[Run]:
        """Return every run, in the order of the tables."""
        ...

    def work(self) -> int:
        """Return the units of work of training all runs, for the progress bar."""
        ...

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Train all runs. A killed one resumes from its files in `folder`, to the same bytes.

        Writes `folder/<run>/curve.jsonl`: one row for each measured step with `step`, `train_loss`,
        `train_accuracy`, `test_loss` and `test_accuracy`, in nats per prediction and shares of
        predictions, and the task's own measures of progress.
        """
        ...

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        """Return the steps with weights, ascending; all are steps of the curve."""
        ...

    def model(self, run: Run, folder: Path, step: int) -> nn.Module:
        """Return the model of a checkpoint in eval mode, on the CPU, in float32."""
        ...

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (N, C) of a batch."""
        ...

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        """Yield the data of a split on the CPU, the same for every checkpoint."""
        ...

    def hookpoints(self, model: nn.Module) -> list[str]:
        """Return the modules whose outputs are measured: attention and feedforwards."""
        ...

    def native(self, model: nn.Module) -> dict[str, str]:
        """Return by hookpoint the module whose output is the hookpoint's latents.

        Of models that are sparse by construction; the output is values and indices. All other
        hookpoints get an SAE.
        """
        return {}

    def progress(self, run: Run, folder: Path) -> dict[int, dict[str, float]]:
        """Return the task's own measures of progress, by checkpoint and name; it may have none."""
        return {}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the block: the number of threads then changes no byte."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def curve(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's curve, in the order of steps."""
    return read_jsonl(folder / run.name / "curve.jsonl")


def check_finite(row: Mapping[str, float | None], step: int) -> None:
    """Check that the losses of a curve's row are finite or None.

    Raises:
        UserError: one is not.
    """
    losses = (row["train_loss"], row["test_loss"])
    if not all(loss is None or math.isfinite(loss) for loss in losses):
        raise UserError(f"training diverged before step {step}; lower its learning_rate")


def spaced(spacing: Literal["log", "even"], last: int, count: int) -> list[int]:
    """Return at most `count` steps from 0 to `last`, logarithmically or evenly spaced.

    >>> spaced("log", 1000, 5)
    [0, 1, 10, 100, 1000]
    >>> spaced("log", 1000, 2)
    [0, 1000]
    >>> spaced("even", 1000, 5)
    [0, 250, 500, 750, 1000]
    """
    if spacing == "even" or not last or count < 3:
        return sorted({round(last * i / (count - 1)) for i in range(count)})
    return [0, *sorted({round(last ** (i / (count - 2))) for i in range(count - 1)})]


def chosen(steps: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return those of `steps` that are nearest to the `wanted` ones, ascending.

    >>> chosen([0, 500, 1000], [0, 1, 600, 1000])
    [0, 500, 1000]
    """
    return sorted({min(steps, key=lambda step: (abs(step - want), step)) for want in wanted})
