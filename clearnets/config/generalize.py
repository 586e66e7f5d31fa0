"""Parameters of the generalization observatory, a class for each task."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from clearnets.config.fields import Count, Decay, Frozen, Positive, PositiveFloat
from clearnets.config.pictures import PictureCurves, PictureGrid

TaskName = Literal["grokking", "digits", "grid", "mnist", "cifar10", "checkpoints"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
Spacing = Literal["log", "even"]


class CheckpointCoders(Frozen):
    """Small SAEs on the modules of each checkpoint, trained by sparsify's rules."""

    expansion: Positive
    """Latents, in multiples of the width of what is read."""
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
    """Begin with the coder of the checkpoint before, not with new weights."""


class Grokking(Frozen):
    """Modular addition by a transformer of one layer without LayerNorm (Nanda et al. 2023): of the
    pairs (a, b) some are for training, and the model answers with a + b modulo the prime."""

    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Runs of each variant. A seed chooses weights and training pairs, alike for all variants."""
    variants: Annotated[tuple[Literal["dense", "sparse"], ...], Field(min_length=1)]
    """Feedforwards: dense with ReLU, or sparse by GroupMax."""
    modulus: Annotated[int, Field(ge=5)]
    """The prime."""
    train_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of all pairs that is trained on."""
    hidden_size: Positive
    """Width of the residual stream."""
    num_heads: Positive
    """Attention heads."""
    mlp_size: Positive
    """Width of the dense feedforward."""
    num_latents: Positive
    """Latents of the sparse feedforward."""
    k: Positive
    """Of which so many are active at a position."""
    steps: Positive
    """Training steps, each on all training pairs."""
    learning_rate: PositiveFloat
    """Of AdamW, after ten steps of warm-up."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled decay of every weight, times the learning rate, per step."""
    betas: tuple[Decay, Decay]
    """Decay of the averages of gradient and squared gradient."""
    eval_steps: Positive
    """Steps between two measurements of losses and accuracies."""
    checkpoints: Annotated[int, Field(ge=3)]
    """Checkpoints that are kept of each run, the untrained model among them."""
    spacing: Spacing
    """How they lie in training."""

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
    """Checkpoints of language models: of those trained here, or of one by its revisions."""

    name: str | None = None
    """A folder with a folder for each checkpoint (`step1000/`), or an id on the hub whose branches
    are named so; null means the experiment's own training runs."""
    fingerprint: str | None = None
    """Of a folder's content; `clearnets exp` fills it in, so that DVC notices a change."""
    checkpoints: Annotated[int, Field(ge=3)]
    """How many are read of each run, at most."""
    spacing: Spacing
    """How they lie in training."""
    rows: Positive
    """Rows of the splits `train` and `valid` on which losses and latents are read, at most."""
    layers: Positive
    """Layers whose attention and feedforward are read, evenly spaced from the first to the last."""


class Generalize(Frozen):
    """Checkpoints of training runs, observed through sparse latents."""

    tasks: Annotated[tuple[TaskName, ...], Field(min_length=1)]
    """What `clearnets generalize` runs on."""
    coders: CheckpointCoders
    """The same for every task."""
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
        """The least width that is read of each model, as far as it is known beforehand."""
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
