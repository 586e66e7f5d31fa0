"""Parameters of explanations and scores: clients, explainers, scorers, judges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clearnets.config.fields import Count, Fraction, Frozen, Positive, PositiveFloat
from clearnets.config.names import ALL, FamilyOrAll
from clearnets.families import FAMILIES


class OpenAIClient(Frozen):
    """A model behind an OpenAI-compatible server. Where it listens, and how many requests run at
    once, comes from the environment: see `clearnets.autointerp.llm.openai_client`."""

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


ClientSettings = Annotated[OpenAIClient | GGUFClient, Field(discriminator="kind")]


class TokensExplainer(Frozen):
    """The embedded explainer: a short rule over trigger words, as a sentence."""

    kind: Literal["tokens"]


class DelphiExplainer(Frozen):
    """A language model, prompted by delphi."""

    kind: Literal["delphi"]
    explainer: Literal["default", "contrastive", "no-op"]
    """delphi's explainer: from active windows, from active and non-activating ones, or none (what a
    judge answers without an explanation)."""
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


JudgedBy = Literal["detection", "fuzzing", "intruder", "simulation", "surprisal"]


class DelphiScorer(Frozen):
    """A language model as judge, prompted by delphi."""

    kind: Literal["delphi"]
    scorers: Annotated[tuple[JudgedBy, ...], Field(min_length=1)]
    """delphi's scorers. `intruder` looks at the windows alone, without the explanation.
    `simulation` and `surprisal` take a prompt or two for every window; `surprisal` needs a server
    that gives the log-probabilities of a prompt, as vLLM does."""
    client: ClientSettings
    """The model."""
    shuffled: Count = 1
    """Explanations of other latents of the layer that each latent is judged by as well: a control,
    which must lie at chance. Each costs as much as the latent's own."""
    reasked: Count = 10
    """Latents per layer that are judged twice more: on the same windows in another order and with
    another seed, and on windows drawn anew. What differs is noise."""
    n_examples_shown: Positive = 5
    """Windows per prompt of detection, fuzzing and intruder."""
    log_prob: bool = False
    """Ask for the probabilities of the answers, for AUROC. Not every server gives them."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of the answers."""
    max_tokens: Positive = 100
    """Longest answer, but of `simulation`, whose length delphi sets."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> DelphiScorer:
        if "surprisal" in self.scorers and self.client.kind != "openai":
            raise ValueError(
                f"the client {self.client.kind} gives no log-probabilities of a prompt, which the "
                "scorer surprisal needs: serve the model with vLLM and use the client openai"
            )
        return self


Protocol = Literal["held-out", "delphi"]
TrainType = Literal["top", "random", "quantiles", "mix"]
NonActivating = Literal[
    "trigger",
    "random",
    "co-occurrence",
    "decoder-similarity",
    "encoder-similarity",
    "similar",
]


class Explain(Frozen):
    """Explanations of a uniform sample of latents."""

    latents: Positive
    """Latents drawn per layer and family, uniformly from all."""
    seed: Count
    """Seed of the draw and of the examples."""
    window: Annotated[int, Field(ge=4)]
    """Tokens per example window; windows never cross a row."""
    center_examples: bool
    """Whether the active windows, of explaining and of scoring, are moved so that the latent's
    strongest activation in each stands in the middle, at `window // 2`; near the end of a document
    it stands nearer to the window's. False: windows are those of a fixed grid. They are drawn from
    the grid either way, and non-activating windows stay on it. (delphi's option of this name does
    the reverse of what it says.)"""
    min_windows: Positive
    """A latent is explainable with at least this many active and as many non-activating windows
    in each of the splits `explain` and `score`."""
    protocol: Protocol
    """Where explanations are scored: `held-out`, on text that the explainer never saw; `delphi`, on
    the text that it saw, by delphi's sampler, so that explaining and scoring share windows."""
    n_examples_train: Positive
    """Active windows that the explainer sees."""
    train_type: TrainType
    """How they are chosen by their strongest activation: the `top` ones, `random` ones, evenly from
    `quantiles`, or a `mix` of the top ones and quantiles of the rest."""
    n_quantiles: Positive
    """Quantiles of `quantiles` and `mix`."""
    ratio_top: Fraction
    """Share of the top ones in a `mix`."""
    n_non_activating: Positive
    """Non-activating windows that the explainer sees."""
    non_activating: NonActivating
    """Which non-activating windows: `random` ones; `trigger`, half random and half with the word at
    which the latent is active most; those in which the latents are active that are nearest by
    `co-occurrence`, `decoder-similarity` or `encoder-similarity`; or those `similar` in meaning to
    active windows (`embed.splits` must hold explain). Random ones fill up."""
    max_words: Positive
    """Cap on the number of quoted words in a sentence of `tokens`, the same for every family."""
    explainer: Annotated[TokensExplainer | DelphiExplainer, Field(discriminator="kind")]
    """Who explains."""


class Score(Frozen):
    """Scores of explanations on held-out windows."""

    n_examples_test: Positive
    """Active windows per latent, evenly from quantiles of their strongest activation."""
    n_quantiles: Positive
    """Those quantiles."""
    n_non_activating: Positive
    """Non-activating windows per latent."""
    non_activating: NonActivating
    """Which non-activating windows, as in `explain`."""
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


class Execute(Frozen):
    """Executed explanations: the models run on latents that are simulated from their sentences (see
    `clearnets.autointerp.execution`). All latents of every layer are explained, by `tokens`; the
    rest is as in `explain`."""

    families: tuple[FamilyOrAll, ...]
    """Those of the families that are compared for which it is done; `[all]` means all whose latents
    write into a model."""
    fit_rows: Positive
    """Rows of `explain`, evenly spaced, on which what stands in for latents is fitted; all where
    there are fewer."""
    rows: Positive
    """Rows of `valid`, evenly spaced, on which the models run; all where there are fewer."""
    ridge: PositiveFloat
    """Penalty of maps from codes to the output, in mean variances of a code."""
    seed: Count
    """Seed of the shuffling of sentences within each layer."""

    @model_validator(mode="after")
    def _can_be_executed(self) -> Execute:
        for family in self.families:
            if family != ALL and not FAMILIES[family].writes:
                raise ValueError(
                    f"families: nothing can stand in for the latents of {family}, which do not "
                    "write to the output of their own layer alone: remove it"
                )
        return self


class Effects(Frozen):
    """What explained latents do to the next token, of the families that `execute` names."""

    rows: Positive
    """Rows of `explain` and of `score`, evenly spaced, in which latents are ablated."""
    tokens: Positive
    """Active tokens of each latent and split at which it is ablated, at most."""
    min_tokens: Positive
    """Least number of them, in either split, from which a latent gets a sentence."""
    words: Positive
    """Cap on the words that a sentence names in each direction."""
    seed: Count
    """Seed of the draw of tokens, and of random directions."""


class Intervene(Frozen):
    """Interventions on single latents, of the families that `execute` names."""

    rows: Positive
    """Rows of `concept_test`, evenly spaced, in which latents of concepts are ablated, at most."""
    steered_rows: Positive
    """Rows of `score`, evenly spaced, in which explained latents are added, at most."""
    latents: Positive
    """Latents of each layer that are steered with, drawn from those with a sentence on what they
    do."""
    tokens: Positive
    """Tokens of `score` at which each is steered, one by one, whether it is active there or not."""
    divergence: PositiveFloat
    """By how much every steering moves predictions, nats per token."""
    trials: Positive
    """How often its strength is corrected to reach that."""
    seed: Count
    """Seed of the draw of latents and tokens, and of random directions."""


class Overlap(Frozen):
    """What it is worth to score explanations on windows that their explainer has seen: `tokens` and
    its judge on the same latents under delphi's protocol and under cleaner ones. What is not named
    here is as in `explain`."""

    latents: Positive
    """Latents drawn per layer and family, uniformly from all."""
    n_examples_train: Positive
    """Active windows that the explainer sees, evenly from quantiles."""
    n_examples_test: Positive
    """Active windows that its explanation is scored on, evenly from quantiles."""
    n_quantiles: Positive
    """Those quantiles."""
    n_non_activating: Positive
    """Non-activating windows that each of them sees, chosen as `explain.non_activating` says."""
    seed: Count
    """Seed of the draw of latents and of non-activating windows."""


class Qualify(Frozen):
    """The test that a language model must pass before its scores enter the paper: to tell windows
    that hold a concept of the corpus from windows that do not, given the concept's name; and where
    it is asked for fuzzing, to tell marks on the concept from marks elsewhere."""

    min_auroc: Fraction
    """Mean over concepts of the AUROC of its answers that qualifies it."""
    concepts: Positive
    """Concepts drawn, from those with enough windows in `concept_fit`."""
    windows: Positive
    """Windows that hold a concept, and as many that do not, per concept."""
    seed: Count
    """Seed of both draws."""
