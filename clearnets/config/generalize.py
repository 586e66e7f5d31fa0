"""Parameters of `clearnets generalize`, a class for each kind of task."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from clearnets.config.fields import Count, Decay, Frozen, Positive, PositiveFloat
from clearnets.config.pictures import PictureCurves, PictureGrid

TaskName = Literal["grokking", "digits", "grid", "mnist", "cifar10", "checkpoints"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
Spacing = Literal["log", "even"]
Reads = Literal["output", "input"]


class CheckpointCoders(Frozen):
    """Small SAEs on the modules of each checkpoint, trained as by sparsify."""

    expansion: Positive
    """Number of latents, as a multiple of the width of the activations."""
    k: Positive
    """Latents active per position."""
    steps: Positive
    """Training steps for each checkpoint."""
    batch_size: Positive
    """Positions per step, drawn from the task's train split."""
    learning_rate: PositiveFloat
    """Peak rate of Adam; it decays linearly to zero."""
    warmup_steps: Count
    """Steps over which the learning rate rises from zero."""
    finetune: bool
    """Start from the coder of the checkpoint before, not from new weights."""
    reads: Reads = "output"
    """What an SAE reads: the output of each attention and feedforward, or the input of each block,
    which is the residual stream that both add to."""
    data: Literal["shared", "own"] = "shared"
    """Positions that a checkpoint's SAEs are trained on: all of the train split, the same for every
    checkpoint, or a random part of its own, of which no position is in another checkpoint's."""


class Grokking(Frozen):
    """Modular addition by a one-layer transformer without LayerNorm (Nanda et al. 2023).

    Of all pairs (a, b) some are for training; the answer is a + b modulo the prime.
    """

    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Runs of each variant. A seed determines weights and training pairs, in all variants alike."""
    variants: Annotated[tuple[Literal["dense", "sparse"], ...], Field(min_length=1)]
    """Feedforwards: dense with ReLU, or sparse by GroupMax."""
    modulus: Annotated[int, Field(ge=5)]
    """The prime."""
    train_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the pairs that is for training."""
    hidden_size: Positive
    """Width of the residual stream."""
    num_heads: Positive
    """Attention heads."""
    mlp_size: Positive
    """Width of the dense feedforward."""
    num_latents: Positive
    """Latents of the sparse feedforward."""
    k: Positive
    """Latents of the sparse feedforward that are active per position."""
    steps: Positive
    """Training steps, each on all training pairs."""
    learning_rate: PositiveFloat
    """Learning rate of AdamW after ten steps of warm-up."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled decay of every weight, times the learning rate, per step."""
    betas: tuple[Decay, Decay]
    """Decay rates of the averages of gradient and squared gradient."""
    eval_steps: Positive
    """Steps between two measurements of losses and accuracies."""
    checkpoints: Annotated[int, Field(ge=3)]
    """Checkpoints that are saved of each run, including the untrained model."""
    spacing: Spacing
    """Spacing of the checkpoints over training."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Grokking:
        if self.hidden_size % self.num_heads:
            raise ValueError("hidden_size must be a multiple of num_heads")
        if self.num_latents % self.k:
            raise ValueError("num_latents must be a multiple of k (GroupMax)")
        for name, values in (("seeds", self.seeds), ("variants", self.variants)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ from each other")
        pairs = self.modulus**2
        if not 0 < round(pairs * self.train_share) < pairs:
            raise ValueError(
                f"train_share leaves none of the {pairs} pairs for training or none for the test"
            )
        if any(self.modulus % n == 0 for n in range(2, int(self.modulus**0.5) + 1)):
            raise ValueError(f"modulus must be a prime, and {self.modulus} is none")
        return self


class Checkpoints(Frozen):
    """Checkpoints of language models: of the experiment's own, or revisions of a named model."""

    name: str | None = None
    """A folder with a folder for each checkpoint (`step1000/`), or a hub id with branches of such
    names; null means the experiment's own training runs."""
    fingerprint: str | None = None
    """Of a folder's content; `clearnets exp` fills it in, so that DVC notices a change."""
    checkpoints: Annotated[int, Field(ge=3)]
    """Largest number of checkpoints that are measured of each run."""
    spacing: Spacing
    """Spacing of the checkpoints over training."""
    rows: Positive
    """Largest number of rows of the splits `train` and `valid` that losses and latents are of."""
    layers: Positive
    """Number of layers that are measured, evenly spaced from the first to the last."""


class Generalize(Frozen):
    """Checkpoints of training runs, observed through sparse latents."""

    tasks: tuple[TaskName, ...]
    """What `clearnets generalize` runs on."""
    coders: CheckpointCoders
    """The same for every task."""
    spectra: Count = 0
    """Singular values of each weight matrix, and of its change, in the table `spectra.csv` of every
    task; 0 means no such table."""
    grokking: Grokking | None = None
    digits: PictureCurves | None = None
    """Few training pictures against many."""
    grid: PictureGrid | None = None
    """Many small classifiers that all reach one training loss."""
    mnist: PictureCurves | None = None
    cifar10: PictureCurves | None = None
    checkpoints: Checkpoints | None = None

    @model_validator(mode="after")
    def _tasks_are_described(self) -> Generalize:
        for task in self.tasks:
            if getattr(self, task) is None:
                raise ValueError(f"tasks: {task} needs its parameters: add generalize.{task}")
        return self

    @model_validator(mode="after")
    def _coders_fit(self) -> Generalize:
        for task in self.tasks:
            for width in self._widths(task):
                if self.coders.k > self.coders.expansion * width:
                    raise ValueError(
                        f"coders.k is {self.coders.k}, and coders of a width of {width} in task "
                        f"{task} have {self.coders.expansion * width} latents: lower k or raise "
                        "expansion"
                    )
        return self

    def _widths(self, task: TaskName) -> tuple[int, ...]:
        """Return the smallest width of each model's activations, where the parameters give it."""
        of = getattr(self, task)
        if isinstance(of, Grokking):
            return (of.hidden_size,)
        if isinstance(of, PictureGrid):
            return of.hidden_size
        if isinstance(of, PictureCurves):
            return tuple(model.narrowest for model in of.models.values())
        return ()

    @property
    def reads_own_models(self) -> bool:
        """Whether the task `checkpoints` reads the models that the experiment trains itself."""
        return self.checkpoints is not None and self.checkpoints.name is None
