"""Parameters of the models and their training."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from clearnets.config.fields import (
    Count,
    Decay,
    External,
    Fraction,
    Frozen,
    Positive,
    PositiveFloat,
    Precision,
)
from clearnets.config.names import Mlp

# Modules in every layer of a transformer: what its base model is called, its list of layers, the
# layer's number, a path below the layer.
HOOKPOINTS = r"(?:(?:transformer|gpt_neox|model)\.)?(?:h|layers)\.\*(?:\.\w+)+"


class Transformer(Frozen):
    """Sizes that every stage needs, of models that are trained here or pretrained."""

    hidden_size: Positive
    """Width of the residual stream."""
    num_layers: Positive
    """Transformer blocks."""
    expansion: Positive
    """Latents per layer of the sparse model and of every coder, in multiples of hidden_size."""
    k: Positive
    """Latents that may be active per token, in the sparse model and in every coder."""
    attention: Literal["across", "within"]
    """Whether attention crosses documents packed into one training row."""

    @model_validator(mode="after")
    def _k_fits(self) -> Self:
        if self.k > self.num_latents:
            raise ValueError("k must not exceed hidden_size * expansion")
        return self

    @property
    def num_latents(self) -> int:
        """Latents per layer."""
        return self.hidden_size * self.expansion

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that are read."""
        return tuple(range(self.num_layers))

    def hookpoint(self, layer: int) -> str:
        """Return a layer's feedforward by its name in the base model, as sparsify writes it."""
        return f"layers.{layer}.mlp"

    def made_with(self, mlp: str) -> dict[str, Any]:
        """Return what a model with this feedforward depends on, as JSON values."""
        return self.model_dump(mode="json")


# The parameters that only models with some feedforwards depend on.
_LATENTS = {"expansion", "k"}
_USES = {
    "dense": set(),
    "dense_wide": {"expansion"},
    "dense_weight_sparse": {"weight_share"},
    "sparse": _LATENTS,
    "sparse_topk": _LATENTS,
    "sparse_low_rank": {*_LATENTS, "rank_ratio"},
    "sparse_product_key": _LATENTS,
    "sparse_kronecker": _LATENTS,
}


class GPTNeoX(Transformer):
    """A GPT-NeoX that is trained here; the members of the pair share all but their feedforward."""

    kind: Literal["gptneox"]
    num_heads: Positive
    """Attention heads per layer."""
    mlp_ratio: Positive
    """Width of the dense feedforward, in multiples of hidden_size."""
    rank_ratio: Positive
    """sparse_low_rank factors encoder and decoder through hidden_size / rank_ratio."""
    weight_share: Annotated[float, Field(gt=0, le=1)]
    """Share of the weights that dense_weight_sparse keeps in each matrix of its layers."""
    parallel_residual: bool
    """Attention and feedforward read the same residual stream (GPT-NeoX) or one after the other."""
    rotary_fraction: Fraction
    """Share of a head's dimensions that rotate with the position."""
    zero_unembedding: bool
    """Start the unembedding at zero, as the original does."""
    init_std: PositiveFloat
    """Standard deviation of the initial weights."""
    embedding_std: PositiveFloat
    """Standard deviation of the initial embeddings. Larger ones leave the later layers more to
    do: beside small ones the first feedforward dominates the residual stream."""

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError("hidden_size must be a multiple of num_heads")
        if self.num_latents % self.k:
            raise ValueError("hidden_size * expansion must be a multiple of k (GroupMax)")
        if self.hidden_size % self.rank_ratio:
            raise ValueError("hidden_size must be a multiple of rank_ratio")
        if self.rotary_dims % 2:
            raise ValueError(
                f"rotary_fraction rotates {self.rotary_dims} dimensions of a head; choose a "
                "fraction that gives an even number"
            )
        return self

    def made_with(self, mlp: str) -> dict[str, Any]:
        """Return what a model with this feedforward depends on, as JSON values: a dense one does
        not on the latents, so that experiments which differ in them share it."""
        unused = {"expansion", "k", "rank_ratio", "weight_share"} - _USES[mlp]
        return self.model_dump(mode="json", exclude=unused)

    def own_sizes(self, mlp: str) -> dict[str, Any]:
        """Return those values of a model's config that other feedforwards do not depend on."""
        sizes = {
            "expansion": ("num_latents", self.num_latents),
            "k": ("k", self.k),
            "rank_ratio": ("rank", self.hidden_size // self.rank_ratio),
            "weight_share": ("weight_share", self.weight_share),
        }
        return dict(sizes[key] for key in sorted(_USES[mlp]))

    @property
    def rotary_dims(self) -> int:
        """Dimensions of a head that rotate."""
        return int(self.hidden_size // self.num_heads * self.rotary_fraction)


class PretrainedSparse(External):
    """A model of our own kind with sparse feedforwards that was trained elsewhere, such as
    `clearnets import` writes. `clearnets train --mlp MODE` adopts it unchanged."""

    at: ClassVar = "model.sparse"


class Pretrained(Transformer):
    """A dense model that others trained. `clearnets train --mlp dense` adopts it unchanged.

    The sizes repeat what its own config says, so that every stage knows them without the model;
    `clearnets train` refuses any that differ.
    """

    at: ClassVar = "model"
    kind: Literal["pretrained"]
    name: str
    """A folder with `config.json` and safetensors, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; none means its main branch."""
    hookpoints: str
    """The module that is read in each layer, `*` for the layer's number: `transformer.h.*.mlp`,
    or relative to the base model, as the names on disk are, `h.*.mlp`."""
    read_layers: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """Numbers of the layers that are read: `[3, 10]`; none means all. Coders are trained, latents
    cached and results told of these alone."""
    fingerprint: str | None = None
    """Of the model's files, or of its commit. `clearnets exp` fills it in, so that DVC notices a
    change; with a pretrained model in params.yaml itself only `clearnets train` does."""
    sparse: PretrainedSparse | None = None
    """Its sparse twin, of the same sizes; the second of `models` is its feedforward."""

    @field_validator("hookpoints")
    @classmethod
    def _one_module_per_layer(cls, hookpoints: str) -> str:
        if not re.fullmatch(HOOKPOINTS, hookpoints):
            raise ValueError(
                f"{hookpoints!r} names no module of every layer: write * for the layer's number, "
                "as in model.layers.*.mlp; model.read_layers says which layers are read"
            )
        return hookpoints

    @model_validator(mode="after")
    def _layers_are_there(self) -> Self:
        read = self.read_layers or (0,)
        if list(read) != sorted(set(read)) or read[-1] >= self.num_layers:
            last = self.num_layers - 1
            raise ValueError(f"read_layers must be numbers from 0 to {last} in rising order")
        return self

    @model_validator(mode="after")
    def _twin_is_read_alike(self) -> Self:
        if self.sparse is not None and self.relative_hookpoints != "layers.*.mlp":
            raise ValueError(
                f"a sparse model is read at layers.*.mlp and its dense twin at {self.hookpoints}; "
                "they have no layers in common: remove model.sparse, or set model.hookpoints"
            )
        return self

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that are read."""
        return super().layers if self.read_layers is None else self.read_layers

    def member(self, mlp: str) -> Pretrained | PretrainedSparse:
        """Return the settings of the model with this feedforward: these, or its twin's."""
        if mlp == "dense":
            return self
        assert self.sparse is not None, "the config has no such model without it"
        return self.sparse

    @property
    def relative_hookpoints(self) -> str:
        """`hookpoints` relative to the base model."""
        layers_on = re.search(r"(?:h|layers)\.\*", self.hookpoints)
        assert layers_on, "guaranteed by the field's validator"
        return self.hookpoints[layers_on.start() :]

    def hookpoint(self, layer: int) -> str:
        """Return a layer's hookpoint by its name in the base model, as sparsify writes it."""
        return self.relative_hookpoints.replace("*", str(layer))


Model = Annotated[GPTNeoX | Pretrained, Field(discriminator="kind")]


class Train(Frozen):
    """Language-model training: schedule-free AdamW over the train split."""

    batch_size: Positive
    """Rows per step, of all micro-batches and all processes together."""
    grad_acc_steps: Positive
    """Micro-batches that a step's rows are split into, to save memory. The loss stays the mean over
    the tokens of the whole step, so that only rounding changes."""
    precision: Precision
    """Of the products in training. Weights, their updates and every measured loss are float32."""
    epochs: Positive
    """Passes over the train split."""
    learning_rate: PositiveFloat | dict[Mlp, PositiveFloat]
    """Peak rate, of all models or by feedforward; there is no decay, the average takes its
    place."""
    warmup_steps: Count
    """Steps over which the learning rate rises from zero."""
    betas: tuple[Decay, Decay]
    """Decay of the averages of gradient and squared gradient; the first is schedule-free's
    interpolation between the iterate and the average."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled decay of every weight, times the learning rate, per step."""
    max_grad_norm: PositiveFloat
    """Gradients are scaled down to this norm."""
    centring: Annotated[float, Field(ge=0, le=1)]
    """A sparse feedforward's encoder reads its input minus a running mean of it, of which each step
    replaces this share; 0 turns it off. It ends in the bias."""
    bias_step: Annotated[float, Field(ge=0)]
    """Added in each step to the encoder bias of a latent of a sparse feedforward that has been
    silent for `silent_steps`; 0 turns it off."""
    silent_steps: Positive
    """Steps without a token that activates a latent, after which its bias is raised."""
    eval_steps: Positive
    """Steps between two measurements of the validation loss."""

    def of(self, mlp: str) -> Train:
        """Return the settings of the model with one feedforward, with its own rate."""
        rate = self.learning_rate
        own = {str(name): value for name, value in rate.items()} if isinstance(rate, dict) else {}
        return self.model_copy(update={"learning_rate": own.get(mlp, rate)})

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Train:
        if self.batch_size % self.grad_acc_steps:
            raise ValueError("batch_size must be a multiple of grad_acc_steps")
        return self


class Match(Frozen):
    """Pairing of the sparse with the dense model."""

    tolerance: PositiveFloat
    """A difference of validation loss above this many nats is flagged."""
