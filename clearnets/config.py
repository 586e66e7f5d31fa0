"""`params.yaml` as frozen types that forbid unknown keys, and overlays over it.

Every field changes results and so is tracked by DVC; what does not change a result (device,
threads, layers to work on) is a command-line option and has no place here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from clearnets.artifacts import UserError
from clearnets.paths import EXPERIMENTS, PARAMS

Mlp = Literal["dense", "sparse", "sparse_topk", "sparse_low_rank"]
Split = Literal["train", "valid", "explain", "score", "concept_fit", "concept_test"]
Family = Literal[
    "native",
    "transcoder",
    "sae",
    "skip-transcoder",
    "neurons",
    "random-native",
    "random-transcoder",
    "random-sae",
    "token-unigram",
]

MLPS: tuple[Mlp, ...] = get_args(Mlp)
SPLITS: tuple[Split, ...] = get_args(Split)
FAMILIES: tuple[Family, ...] = get_args(Family)
# Families whose coders `clearnets sparsify` writes, trained or, as controls, untrained.
TRAINED_CODERS: tuple[Family, ...] = ("sae", "transcoder", "skip-transcoder")
UNTRAINED_CODERS: tuple[Family, ...] = ("random-sae", "random-transcoder")
CODER_FAMILIES: tuple[Family, ...] = TRAINED_CODERS + UNTRAINED_CODERS
# The untrained twin of each family that has one.
TWINS: dict[Family, Family] = {
    "native": "random-native",
    "transcoder": "random-transcoder",
    "skip-transcoder": "random-transcoder",
    "sae": "random-sae",
}
# What stands for a family where the native latents' null is meant.
DIRECTIONS = "random-directions"
# The null of concept recovery: random directions of the space that a family's latents read, of
# which as many are active per token. Untrained SAEs and transcoders are just that.
NULLS: dict[Family, str] = {
    "native": DIRECTIONS,
    "transcoder": "random-transcoder",
    "skip-transcoder": "random-transcoder",
    "sae": "random-sae",
    "neurons": "random-transcoder",
}

# Families whose latents a sparse model computes with.
NATIVE_FAMILIES: tuple[Family, ...] = ("native", "random-native")

# Modules in every layer of a transformer: what its base model is called, its list of layers, the
# layer's number, a path below the layer.
HOOKPOINTS = r"^(?:(?:transformer|gpt_neox|model)\.)?(?:h|layers)\.\*(?:\.\w+)+$"

# Stages that also write `artifacts/metrics/`.
STAGES_WITH_METRICS = (
    *("data", "train", "match", "sparsify", "evaluate"),
    *("cache", "score", "concepts"),
)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]


class Frozen(BaseModel):
    """Base: immutable, no unknown keys, no silent conversion of strings to numbers."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Storybook(Frozen):
    """The embedded corpus of simple English stories."""

    kind: Literal["storybook"]
    seed: Count = 0
    """Seed of the generator."""


class _Text(Frozen):
    """What corpora of found text have in common."""

    text_column: str = "text"
    """Column or key that holds a document's text (Parquet, JSONL, hub)."""
    streaming: bool = False
    """Read documents one after the other and never all at once, for a corpus larger than memory
    or disk. A document's split is then drawn by a hash of its text, so the splits are in
    proportion on average only, and the train split keeps the corpus's order. Otherwise the
    documents are shuffled and divided exactly."""
    seed: Count = 0
    """Seed of the assignment of documents to splits."""

    @field_validator("split", check_fields=False)
    @classmethod
    def _readable(cls, split: str | None) -> str | None:
        one = r"\w+(\.\w+)*(\[(-?\d+%?)?:(-?\d+%?)?\])?"
        if split is not None and not re.fullmatch(rf"{one}(\+{one})*", split, re.ASCII):
            raise ValueError("write a split as train, train[:2%], train[1000:2000] or train+test")
        return split


class LocalText(_Text):
    """A Parquet, JSONL or text file, or a folder of such files in the hub's layout."""

    kind: Literal["local"]
    path: str
    """The file or folder."""
    split: str | None = None
    """As in datasets, e.g. `train` or `train[:2%]`: read these files of a folder in the hub's
    layout (`train.parquet`, `data/train-00000-of-00002.parquet`, `train/...`) and a slice of
    their documents. null reads every file."""
    fingerprint: str | None = None
    """Of the files' content. `clearnets exp` fills it in, so that DVC notices changed files; with
    a local corpus in params.yaml itself only `clearnets data` does."""


class HubText(_Text):
    """A dataset of the Hugging Face hub."""

    kind: Literal["hub"]
    name: str
    """Its id, e.g. `roneneldan/TinyStories`."""
    config: str | None = None
    """Configuration name, e.g. `sample-10BT`; null where the dataset has one only."""
    split: str = "train"
    """As in datasets: a split's name, or a slice such as `train[:2%]`."""
    revision: str | None = None
    """Commit, tag or branch. Only a commit stands for the same text for ever."""


class SplitTokens(Frozen):
    """Tokens per split. The splits are disjoint by document."""

    train: Positive
    """For the models and the coders."""
    valid: Positive
    """For held-out losses, the pairing and the evaluation of coders."""
    explain: Positive
    """All that the explainer sees."""
    score: Positive
    """All that explanations are judged on; shares no 32-token window with the former."""
    concept_fit: Count
    """For choosing latents and thresholds per concept."""
    concept_test: Count
    """For measuring them."""


class TrainedTokenizer(Frozen):
    """Byte-level BPE learned from the corpus."""

    kind: Literal["trained"]
    vocab_size: Annotated[int, Field(ge=260)]
    """Tokens, special ones included."""


class _FoundTokenizer(Frozen):
    """What tokenizers that exist already have in common."""

    name: str
    """A folder that transformers reads, or the id of a model on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    fingerprint: str | None = None
    """Of the folder's files; `clearnets exp` fills it in, as that of a local corpus."""


class PretrainedTokenizer(_FoundTokenizer):
    """An existing tokenizer as it is; special tokens that it lacks come behind its vocabulary."""

    kind: Literal["pretrained"]
    vocab_size: Positive | None = None
    """Rows of the models' embeddings: at least the tokenizer's tokens and its special ones, more
    to round the number up. null takes just these, which only `clearnets data` can count."""


class RestrictedTokenizer(_FoundTokenizer):
    """An existing byte-level BPE, cut down to the tokens that the corpus uses most."""

    kind: Literal["restricted"]
    vocab_size: Annotated[int, Field(ge=260)]
    """Tokens that stay: the 256 bytes, the special tokens, and the most used ones with the
    tokens that they are merged from."""


AnyTokenizer = TrainedTokenizer | PretrainedTokenizer | RestrictedTokenizer


class Data(Frozen):
    """Corpus, tokenizer and packing."""

    corpus: Annotated[Storybook | LocalText | HubText, Field(discriminator="kind")]
    """Where the documents come from."""
    tokenizer: Annotated[AnyTokenizer, Field(discriminator="kind")]
    """What cuts them into tokens."""
    ctx_len: Annotated[int, Field(ge=8)]
    """Tokens per row. Every row begins with bos."""
    tokens: SplitTokens

    @property
    def vocab_size(self) -> int:
        """Tokens that the models tell apart, known without the tokenizer.

        Raises:
            UserError: a pretrained tokenizer of unknown size.
        """
        if self.tokenizer.vocab_size is None:
            raise UserError(
                f"the size of tokenizer {self.tokenizer.name!r} is not in the parameters; "
                "set data.tokenizer.vocab_size"
            )
        return self.tokenizer.vocab_size


class Transformer(Frozen):
    """What every stage needs to know of the model, whether it is trained here or taken over."""

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
        """Indices of all layers."""
        return tuple(range(self.num_layers))

    def hookpoint(self, layer: int) -> str:
        """Name of a layer's feedforward, relative to the base model, as sparsify writes it."""
        return f"layers.{layer}.mlp"


class GPTNeoX(Transformer):
    """A GPT-NeoX that is trained here; the members of the pair share all but their feedforward."""

    kind: Literal["gptneox"]
    num_heads: Positive
    """Attention heads per layer."""
    mlp_ratio: Positive
    """Width of the dense feedforward, in multiples of hidden_size."""
    rank_ratio: Positive
    """sparse_low_rank factors encoder and decoder through hidden_size / rank_ratio."""
    parallel_residual: bool
    """Attention and feedforward read the same residual stream (GPT-NeoX) or one after the other."""
    rotary_fraction: Fraction
    """Share of a head's dimensions that rotate with the position."""
    zero_unembedding: bool
    """Start the unembedding at zero, as the original does."""
    init_std: PositiveFloat
    """Standard deviation of the initial weights."""

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

    @property
    def rotary_dims(self) -> int:
        """Dimensions of a head that rotate."""
        return int(self.hidden_size // self.num_heads * self.rotary_fraction)


class PretrainedSparse(Frozen):
    """A model of our own kind with sparse feedforwards that was trained elsewhere, such as
    `clearnets import` writes. `clearnets train --mlp MODE` takes it over as it is."""

    at: ClassVar = "model.sparse"
    name: str
    """A folder with `config.json` and safetensors, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; none means its main branch."""
    fingerprint: str | None = None
    """Of its files, or of its commit; `clearnets exp` fills it in, as that of the dense model."""


class Pretrained(Transformer):
    """A dense model that others trained. `clearnets train --mlp dense` takes it over as it is.

    The sizes repeat what its own config says, so that every stage knows them without the model;
    taking it over refuses any that differ.
    """

    at: ClassVar = "model"
    kind: Literal["pretrained"]
    name: str
    """A folder with `config.json` and safetensors, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; none means its main branch."""
    hookpoints: Annotated[str, Field(pattern=HOOKPOINTS)]
    """The module that is read in each layer, `*` for the layer's number: `transformer.h.*.mlp`,
    or relative to the base model, as the names on disk are, `h.*.mlp`."""
    fingerprint: str | None = None
    """Of the model's files, or of its commit. `clearnets exp` fills it in, so that DVC notices a
    change; with a pretrained model in params.yaml itself only `clearnets train` does."""
    sparse: PretrainedSparse | None = None
    """Its sparse twin, of the same sizes; the second of `models` is its feedforward."""

    @model_validator(mode="after")
    def _twin_is_read_alike(self) -> Self:
        if self.sparse is not None and self.relative_hookpoints != "layers.*.mlp":
            raise ValueError(
                f"a sparse model is read at layers.*.mlp and its dense twin at {self.hookpoints}; "
                "they have no layers in common: remove model.sparse, or set model.hookpoints"
            )
        return self

    def member(self, mlp: str) -> Pretrained | PretrainedSparse:
        """Where the model with this feedforward comes from: this one, or its twin."""
        if mlp == "dense":
            return self
        assert self.sparse is not None, "the config has no such model without it"
        return self.sparse

    @property
    def relative_hookpoints(self) -> str:
        """`hookpoints` relative to the base model."""
        layers_on = re.search(r"(?:h|layers)\.\*", self.hookpoints)
        assert layers_on, "the pattern of the field sees to it"
        return self.hookpoints[layers_on.start() :]

    def hookpoint(self, layer: int) -> str:
        """Name of a layer's hookpoint, relative to the base model, as sparsify writes it."""
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
    learning_rate: PositiveFloat
    """Peak rate; there is no decay, the average takes its place."""
    warmup_steps: Count
    """Steps over which the learning rate rises from zero."""
    betas: tuple[Decay, Decay]
    """Decay of the averages of gradient and squared gradient; the first is schedule-free's
    interpolation between the iterate and the average."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled decay of every weight, times the learning rate, per step."""
    max_grad_norm: PositiveFloat
    """Gradients are scaled down to this norm."""
    eval_steps: Positive
    """Steps between two measurements of the validation loss."""

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Train:
        if self.batch_size % self.grad_acc_steps:
            raise ValueError("batch_size must be a multiple of grad_acc_steps")
        return self


class Match(Frozen):
    """Pairing of the sparse with the dense model."""

    tolerance: PositiveFloat
    """A difference of validation loss above this many nats is flagged."""


def _resumable(optimizer: str) -> str:
    if optimizer == "muon":
        raise ValueError("sparsify's muon does not resume exactly; take signum or adam")
    return optimizer


class Existing(Frozen):
    """Coders that others trained: a folder per hookpoint in sparsify's format."""

    name: str
    """A folder, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; none means its main branch."""
    fingerprint: str | None = None
    """Of the files, or of the commit. `clearnets exp` fills it in, so that DVC notices a change;
    with existing coders in params.yaml itself only `clearnets sparsify` does."""


def _given(existing: Any) -> Any:
    """Without the nulls of families that are trained here, which DVC wants to see."""
    if not isinstance(existing, dict):
        return existing
    return {
        name: source
        for name, source in existing.items()
        if source is not None or name not in CODER_FAMILIES
    }


class Coders(Frozen):
    """Training of SAEs and transcoders with sparsify. Their width and k are the model's."""

    families: tuple[Family, ...]
    """Those of the experiment's families that `clearnets sparsify` writes."""
    existing: Annotated[dict[Family, Existing], BeforeValidator(_given)]
    """By family, coders that take the place of trained ones, with a width and k of their own; null
    where they are trained here."""
    tokens: Positive
    """Training tokens, from the train split."""
    batch_size: Positive
    """Rows per forward pass, as in sparsify: a step has grad_acc_steps times as many."""
    grad_acc_steps: Positive
    """Batches per step; the loss is the mean of their fvu."""
    micro_acc_steps: Positive
    """Pieces that a batch's activations are cut into, to save memory. The fvu stays that of the
    batch, so that only rounding changes."""
    multi_topk: bool
    """Add an eighth of the fvu with 4 k latents to the loss. Here it reaches the encoder, which
    sparsify's own does not (1.3.3)."""
    precision: Precision
    """Of the coders' products. Weights, their updates, fvu and the model they read are float32."""
    optimizer: Annotated[Literal["signum", "adam"], BeforeValidator(_resumable)]
    """As in sparsify, whose muon is left out: it does not resume to the same bits."""
    learning_rate: PositiveFloat
    """Peak rate; it decays linearly to zero, as in sparsify."""
    warmup_steps: Count
    """Steps over which the learning rate rises from zero."""


class Cache(Frozen):
    """Caching of latent activations."""

    batch_size: Positive
    """Rows per forward pass; one shard of the cache on disk while it is being made."""
    latent_splits: Positive
    """Files per hookpoint, each for a range of latents (delphi's n_splits)."""


class OpenAIClient(Frozen):
    """A model behind an OpenAI-compatible server. Where it listens, and how many requests run at
    once, comes from the environment: see `clearnets.autointerp.clients.openai`."""

    kind: Literal["openai"]
    model: str
    """The model's name on the server."""
    revision: str = ""
    """What its name does not say, such as a commit or a quantization. Answers of another revision
    are not used again."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key, if the server wants one."""


class GGUFClient(Frozen):
    """A GGUF file in process, through xllamacpp (the extra `local-llm`)."""

    kind: Literal["gguf"]
    model: str
    """The file, or `package:NAME` for an installed package that carries one."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the file; another one is refused."""
    ctx_len: Positive = 8192
    """Tokens that prompt and answer may have together."""


class VLLMClient(Frozen):
    """A model in process through vLLM (the extra `gpu`)."""

    kind: Literal["vllm"]
    model: str
    """Name on the hub, or folder."""
    revision: str = ""
    """What its name does not say, such as a commit. Answers of another one are not used again."""
    ctx_len: Positive = 8192
    """Tokens that prompt and answer may have together."""


ClientSettings = Annotated[
    OpenAIClient | GGUFClient | VLLMClient,
    Field(discriminator="kind"),
]


class TokensExplainer(Frozen):
    """The embedded explainer: a short rule over trigger words, as a sentence."""

    kind: Literal["tokens"]


class DelphiExplainer(Frozen):
    """A language model, prompted by delphi."""

    kind: Literal["delphi"]
    explainer: Literal["default", "contrastive", "no-op"]
    """delphi's explainer: from active windows, from active and silent ones, or no explanation (what
    a judge makes of none)."""
    client: ClientSettings
    """The model. `no-op` does not ask it."""
    activations: bool = True
    """Whether the prompt lists activations."""
    cot: bool = False
    """Whether it asks for reasoning first (`default` only)."""
    threshold: Fraction = 0.3
    """Share of a window's largest activation above which a token is marked."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of the first attempt."""
    max_tokens: Positive = 500
    """Longest answer."""
    retries: Count = 2
    """Further attempts, with other seeds, where an answer holds no explanation."""
    retry_temperature: Annotated[float, Field(ge=0)] = 0.7
    """Of these."""


class RuleScorer(Frozen):
    """The judge of rules: rule-detection and rule-fuzzing. Needs the explainer `tokens`."""

    kind: Literal["rules"]


JudgedBy = Literal["detection", "fuzzing", "intruder"]


class DelphiScorer(Frozen):
    """A language model as judge, prompted by delphi."""

    kind: Literal["delphi"]
    scorers: Annotated[tuple[JudgedBy, ...], Field(min_length=1)]
    """delphi's scorers. `intruder` looks at the windows alone, without the explanation."""
    client: ClientSettings
    """The model."""
    n_examples_shown: Positive = 5
    """Windows per prompt."""
    log_prob: bool = False
    """Ask for the probabilities of the answers, for AUROC. Not every server gives them."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of the answers."""
    max_tokens: Positive = 100
    """Longest answer."""


class Explain(Frozen):
    """Explanations of a uniform sample of latents."""

    latents: Positive
    """Latents drawn per layer and family, uniformly from all."""
    seed: Count
    """Seed of the draw and of the examples."""
    window: Annotated[int, Field(ge=4)]
    """Tokens per example window; windows never cross a row."""
    min_windows: Positive
    """A latent is explainable with at least this many active and as many silent windows in
    each of the splits `explain` and `score`."""
    active: Positive
    """Active windows that the explainer sees."""
    silent: Positive
    """Silent windows that the explainer sees: half random, half with a trigger token."""
    max_words: Positive
    """Cap on the number of quoted words in a sentence of `tokens`, the same for every family."""
    explainer: Annotated[TokensExplainer | DelphiExplainer, Field(discriminator="kind")]
    """Who explains."""


class Score(Frozen):
    """Scores of explanations on held-out windows."""

    active: Positive
    """Active windows per latent."""
    silent: Positive
    """Silent windows per latent: half random, half with a trigger token."""
    seed: Count
    """Seed of the draw of windows."""
    scorers: Annotated[
        tuple[Annotated[RuleScorer | DelphiScorer, Field(discriminator="kind")], ...],
        Field(min_length=1, max_length=2),
    ]
    """Who judges: the rules' own judge, a language model, or both."""

    @model_validator(mode="after")
    def _one_of_a_kind(self) -> Score:
        if len({scorer.kind for scorer in self.scorers}) != len(self.scorers):
            raise ValueError("scorers must be of different kinds")
        return self

    @property
    def rules(self) -> bool:
        """Whether the judge of rules is among the scorers."""
        return any(scorer.kind == "rules" for scorer in self.scorers)

    @property
    def judge(self) -> DelphiScorer | None:
        """The language model among the scorers, if there is one."""
        return next((scorer for scorer in self.scorers if scorer.kind == "delphi"), None)


class Qualify(Frozen):
    """The test that a language model must pass before its scores enter the paper: to tell windows
    that hold a concept of the corpus from windows that do not, given the concept's name."""

    min_auroc: Fraction
    """Mean over concepts of the AUROC of its answers that qualifies it."""
    concepts: Positive
    """Concepts drawn, from those with enough windows in `concept_fit`."""
    windows: Positive
    """Windows that hold a concept, and as many that do not, per concept."""
    seed: Count
    """Seed of both draws."""


class Concepts(Frozen):
    """Recovery of the corpus's concepts by single latents, all of them."""

    candidates: Positive
    """Latents that a family may choose from where families are compared: this many are drawn
    uniformly from all its latents, dead ones among them."""
    resamples: Positive
    """Draws of so many candidates."""
    seed: Count
    """Seed of the draws."""
    recovered: Fraction
    """A concept is recovered by a latent with at least this F1 on `concept_test`."""
    lexical: Fraction
    """A concept is lexical where a set of token ids, chosen on `concept_fit`, predicts it with at
    least this F1 on `concept_test`; the others are contextual."""
    split_gain: Fraction
    """A concept is split where a second latent of the layer, beside the first, raises F1 on
    `concept_fit` by at least this."""
    purity: Fraction
    """A latent is of a concept where at least this share of its firings on `concept_fit` are."""
    absorbed: Fraction
    """A concept is absorbed where its main latents miss at least this share of its positions on
    `concept_test` at which another latent of the concept fires."""
    named_from: Fraction
    """Explanations are asked to name a latent's concept where its F1 is at least this."""
    tolerance: Fraction
    """A rule predicts a concept as well as a latent where its F1 is lower by at most this."""


class Collate(Frozen):
    """Tables and their statistics."""

    resamples: Positive
    """Bootstrap resamples."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Level of the intervals."""
    min_ablation_cost: PositiveFloat
    """Layers whose mean-ablation costs less than this many nats are left out of the second
    kind of summary."""
    min_stratum: Positive
    """Latents that a stratum of firing rate must hold of both families to be compared."""
    margin: PositiveFloat
    """Balanced accuracies that differ by less than this count as equal: a control lies at chance
    where its interval lies within this of 0.5."""
    seed: Count
    """Seed of the bootstrap and of the matching."""


class Config(Frozen):
    """One experiment: the whole of `params.yaml`."""

    experiment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name; its tables go to `paper/results/<experiment>/`."""
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Training seeds; each is trained and carried into every table."""
    models: tuple[Mlp, ...]
    """Feedforwards of the models that are trained: `dense`, and after it at most one that is sparse
    by construction, its twin. A model is called by its feedforward in paths and tables."""
    families: Annotated[dict[Family, str], Field(min_length=1)]
    """Kinds of latent that are compared, controls among them, in the order of tables. The values
    are the artifacts with their weights: dvc.yaml needs them; they cannot be chosen."""
    data: Data
    model: Model
    train: Train
    match: Match
    coders: Coders
    cache: Cache
    explain: Explain
    score: Score
    concepts: Concepts
    qualify: Qualify
    collate: Collate

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.data.ctx_len % self.explain.window:
            raise ValueError("data.ctx_len must be a multiple of explain.window")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        if self.score.rules and self.explain.explainer.kind != "tokens":
            raise ValueError(
                "the scorer `rules` executes sentences of the explainer `tokens` only; choose "
                "score.scorers of kind delphi"
            )
        if self.models[:1] != ("dense",) or len(self.models) > 2 or self.models[1:] == ("dense",):
            modes = ", ".join(MLPS[1:])
            raise ValueError(f"models must be dense alone, or dense and then one of {modes}")
        if isinstance(self.model, Pretrained):
            if self.sparse is not None and self.model.sparse is None:
                raise ValueError(
                    "a pretrained model has no sparse twin: set `models: [dense]`, or name one "
                    "with model.sparse"
                )
            if self.sparse is None and self.model.sparse is not None:
                modes = ", ".join(MLPS[1:])
                raise ValueError(f"model.sparse is not used: add its mode to `models` ({modes})")
        for family, weights in self.families.items():
            if family in NATIVE_FAMILIES and self.sparse is None:
                modes = ", ".join(MLPS[1:])
                raise ValueError(
                    f"families.{family} needs a sparse model: add one of {modes} to `models`, or "
                    f"remove the family with `{family}: null`"
                )
            if weights != self.weights(family):
                raise ValueError(f"families.{family} must be {self.weights(family)}")
        coders = {family for family in self.families if family in CODER_FAMILIES}
        if coders != set(self.coders.families):
            listed = ", ".join(sorted(coders)) or "none"
            raise ValueError(f"coders.families must be those of families with coders: {listed}")
        for family in self.coders.existing:
            if family not in self.coders.families or family not in TRAINED_CODERS:
                trained = [name for name in self.coders.families if name in TRAINED_CODERS]
                listed = ", ".join(trained) or "none"
                raise ValueError(f"coders.existing.{family}: families that it may name: {listed}")
        return self

    @property
    def sparse(self) -> Mlp | None:
        """Feedforward of the sparse model, where there is one."""
        return self.models[1] if len(self.models) > 1 else None

    def weights(self, family: Family) -> str:
        """The artifact that holds the weights of a family."""
        if family in CODER_FAMILIES:
            return f"coders/{family}"
        if family in NATIVE_FAMILIES:
            return f"train/{self.sparse}"
        return "train/dense" if family == "neurons" else "data"

    @property
    def concept_splits(self) -> tuple[Split, ...]:
        """The splits on which concepts are chosen and measured; none where the corpus has no
        labels or one of them holds no tokens."""
        sizes = self.data.tokens
        there = sizes.concept_fit > 0 and sizes.concept_test > 0
        labelled = isinstance(self.data.corpus, Storybook)
        return ("concept_fit", "concept_test") if labelled and there else ()

    def dump(self, *keys: str) -> dict[str, Any]:
        """The values under dotted `keys` as JSON values, for settings and fingerprints."""
        whole = self.model_dump(mode="json")
        return {key: _get(whole, key) for key in keys}


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def parse(values: Any, source: str) -> Config:
    """Check plain values and give the typed config.

    Raises:
        UserError: one line that names the source, the key and what is expected.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected a mapping of keys to values")
    try:
        return Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        faults = [_fault(e, values) for e in error.errors()]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{source}: {faults[0]}{more}") from None


def _fault(error: Any, values: Any) -> str:
    key = ".".join(_keys(error["loc"], values)) or "parameters"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}; remove it or correct its spelling"
        case "missing":
            return f"key {key!r} is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]} (got {error['input']!r:.80})"


def _keys(loc: Iterable[str | int], values: Any) -> Iterator[str]:
    """The keys of a pydantic location, without the kinds that it names in the midst of them."""
    for part in loc:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            continue
        yield str(part)
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list):
            values = values[int(part)]


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        UserError: it is missing or not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path} is not readable YAML: {line:.160}") from None


def load(path: Path = PARAMS) -> Config:
    """The typed config of a params file."""
    return parse(read_yaml(path), str(path))


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places; mappings merge, all else replaces.

    None removes a key. A mapping of another `kind` replaces the whole: it is another variant.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(old, dict) and isinstance(value, dict) and _same_kind(old, value):
            merged[key] = overlay(old, value)
        else:
            merged[key] = value
    return merged


def _same_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "kind" not in new or new["kind"] == old.get("kind")


def overlays() -> list[str]:
    """Names of the experiments in `experiments/`."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def parse_layers(text: str | None, config: Config) -> tuple[int, ...]:
    """Layers of "0-7", "2,5" or "0,3-5", sorted; None means all.

    Raises:
        UserError: not a range, the wrong way round, or beyond the model.
    """
    every = config.model.layers
    if text is None:
        return every
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--layers {text!r}: write layers as 0-7 or 2,5")
        low, high = int(first), int(last) if dash else int(first)
        if low > high:
            raise UserError(f"--layers {text!r}: {low}-{high} is backwards; write {high}-{low}")
        if high not in every:
            count = len(every)
            raise UserError(
                f"--layers {text!r}: layer {high} of {count}; layers go from 0 to {count - 1}"
            )
        chosen.update(range(low, high + 1))
    return tuple(sorted(chosen))
