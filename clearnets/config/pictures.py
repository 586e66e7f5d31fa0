"""Parameters of the tasks on pictures: data sets, classifiers and their training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clearnets.config.fields import (
    Count,
    Decay,
    Fraction,
    Frozen,
    Positive,
    PositiveFloat,
    Precision,
)


class Digits(Frozen):
    """The 1,797 handwritten digits of 8 by 8 pixels that scikit-learn carries."""

    kind: Literal["digits"]
    test: Positive
    """Number of digits held out for testing; training sets are drawn from the others."""
    seed: Count = 0
    """Seed of the division, the same for all runs."""


class _Encoded(Frozen):
    """Parquet data sets with splits `train` and `test` of encoded pictures (PNG, JPEG, ...)."""

    image_column: str = "image"
    """Column that holds the pictures, as datasets writes them; `img` in CIFAR-10."""
    label_column: str = "label"
    """Column that holds the classes, whole numbers from 0."""


class LocalPictures(_Encoded):
    """A folder of Parquet files in the hub's layout, such as `train.parquet`, `test.parquet`."""

    kind: Literal["local"]
    path: str
    """The folder."""
    fingerprint: str | None = None
    """Of the files' content; `clearnets exp` fills it in, so that DVC notices changed files."""


class HubPictures(_Encoded):
    """A dataset of the Hugging Face hub."""

    kind: Literal["hub"]
    name: str
    """Its id, e.g. `ylecun/mnist` or `uoft-cs/cifar10`."""
    config: str | None = None
    """Configuration name; null where the dataset has one only."""
    revision: str | None = None
    """Commit, tag or branch. Only a commit stands for the same pictures for ever."""


AnyPictures = Annotated[Digits | LocalPictures | HubPictures, Field(discriminator="kind")]


class DenseFeedforward(Frozen):
    """The architecture's own feedforward."""

    kind: Literal["dense"]


class SparseFeedforward(Frozen):
    """A feedforward that is sparse by construction, as in the language models: GroupMax."""

    kind: Literal["sparse"]
    expansion: Positive
    """Latents over width."""
    k: Positive
    """Groups of latents, of each of which one may be active."""


AnyFeedforward = Annotated[DenseFeedforward | SparseFeedforward, Field(discriminator="kind")]


class ViT(Frozen):
    """transformers' ViT with a linear head on the class token."""

    kind: Literal["vit"]
    patch_size: Positive
    """Pixels along the side of a patch."""
    hidden_size: Positive
    """Width."""
    num_layers: Positive
    """Depth."""
    num_heads: Positive
    """Attention heads; they divide the width."""
    mlp_ratio: Positive
    """Width of a dense feedforward over `hidden_size`."""
    feedforward: AnyFeedforward = DenseFeedforward(kind="dense")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError("hidden_size must be a multiple of num_heads")
        sparse = self.feedforward
        if isinstance(sparse, SparseFeedforward) and self.hidden_size * sparse.expansion % sparse.k:
            raise ValueError("hidden_size times feedforward.expansion must be a multiple of k")
        return self

    @property
    def narrowest(self) -> int:
        """Smallest width of a stage."""
        return self.hidden_size


class SwinV2(Frozen):
    """transformers' SwinV2 with a linear head on the mean of all positions."""

    kind: Literal["swinv2"]
    patch_size: Positive
    """Pixels along the side of a patch."""
    embed_dim: Positive
    """Width of the first stage; each later one is twice as wide."""
    depths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Layers per stage."""
    num_heads: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Attention heads per stage."""
    window_size: Positive
    """Patches along the side of an attention window."""
    mlp_ratio: Positive = 4
    """Width of a feedforward over that of its stage."""
    drop_path: Decay = 0.0
    """Rate at which a residual branch of a picture is left out in training, at the last layer."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if len(self.depths) != len(self.num_heads):
            raise ValueError("depths and num_heads must be of one length")
        if any(self.embed_dim * 2**i % heads for i, heads in enumerate(self.num_heads)):
            raise ValueError("the width of a stage must be a multiple of its num_heads")
        return self

    @property
    def narrowest(self) -> int:
        """Smallest width of a stage."""
        return self.embed_dim


class ConvNeXtV2(Frozen):
    """transformers' ConvNeXtV2 with a linear head on the mean of all positions."""

    kind: Literal["convnextv2"]
    patch_size: Positive
    """Pixels along the side of a patch."""
    hidden_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Width per stage."""
    depths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Layers per stage."""
    drop_path: Decay = 0.0
    """As in SwinV2."""

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError("depths and hidden_sizes must be of one length")
        return self

    @property
    def narrowest(self) -> int:
        """Smallest width of a stage."""
        return min(self.hidden_sizes)


AnyClassifier = Annotated[ViT | SwinV2 | ConvNeXtV2, Field(discriminator="kind")]


class PictureTraining(Frozen):
    """AdamW at a constant rate after its warm-up."""

    batch_size: Positive
    """Pictures per step; the whole training set where it is smaller."""
    learning_rate: PositiveFloat
    """Learning rate after the warm-up."""
    warmup_steps: Count
    """Steps over which the rate rises from zero."""
    betas: tuple[Decay, Decay]
    """Decay rates of the averages of gradient and squared gradient."""
    precision: Precision = "float32"
    """Of products; weights and measured losses are float32."""


Several = Field(min_length=1)
WeightDecay = Annotated[float, Field(ge=0)]


class _Pictures(Frozen):
    """Parameters of both kinds of task on pictures."""

    pictures: AnyPictures
    """The data set."""
    training: PictureTraining
    """Training of all runs."""
    train: Annotated[tuple[Positive, ...], Several]
    """Sizes of training sets. A smaller one is a part of a larger one of the same seed."""
    label_noise: Annotated[tuple[Fraction, ...], Several]
    """Shares of wrong training labels."""
    seeds: Annotated[tuple[Count, ...], Several]
    """Each seed draws its own training set, wrong labels, weights and order."""
    observed: Positive
    """Largest number of pictures of each set that SAEs and metrics are of."""


class PictureCurves(_Pictures):
    """Runs of a fixed length, measured at many checkpoints.

    Every model on every training set with every share of wrong labels, for each seed.
    """

    models: Annotated[dict[str, AnyClassifier], Several]
    """Models by their name in tables."""
    weight_decay: WeightDecay
    """Decoupled decay of every weight, times the learning rate, per step."""
    steps: Positive
    """Length of a run."""
    checkpoints: Annotated[int, Field(ge=3)]
    """Checkpoints that are saved of each run, including the untrained model."""
    spacing: Literal["log", "even"]
    """Spacing of the checkpoints over training."""


class PictureGrid(_Pictures):
    """Runs that all stop at one training loss, so that their gaps do not differ by their fit.

    A ViT in every combination of sizes, decays, training sets and shares of wrong labels, for each
    seed.
    """

    model: ViT
    """The model; its width and depth are replaced."""
    hidden_size: Annotated[tuple[Positive, ...], Several]
    num_layers: Annotated[tuple[Positive, ...], Several]
    weight_decay: Annotated[tuple[WeightDecay, ...], Several]
    target_loss: PositiveFloat
    """A run stops when its loss on its training set, with the wrong labels, is at most this many
    nats per picture."""
    check_steps: Positive
    """Steps between two measurements of that loss."""
    max_steps: Positive
    """A run that has not reached it by then stops, too, with `reached` false in its row."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for width in self.hidden_size:
            ViT.model_validate({**self.model.model_dump(), "hidden_size": width})
        return self
