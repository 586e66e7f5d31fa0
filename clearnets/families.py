"""The table of families: every kind of latent that can be compared, one row each.

A new family is a new row here, and a trainer in `clearnets.coders` if it is a new kind of coder.
Everything else that names families reads this table: parameters, commands, `dvc.yaml`, readers,
tables and figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

# The hookpoint of a family that reads tokens and no layer, and its number in tables.
TOKENS = "tokens"
NO_LAYER = -1
Selection = Literal["topk", "groupmax", "batchtopk", "jumprelu", "matryoshka"]


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """One family.

    Attributes:
        name: what `--aux` takes; also the name of its folders and its value in tables.
        label: its name in figures.
        about: what it is, for the feature browser.
        kind: where its latents come from: a model's own sparse feedforwards (`native`), a coder
            trained by `clearnets sparsify` (`coder`), the units of dense feedforwards (`neurons`),
            or the tokens themselves (`tokens`).
        model: the model that it reads, by its feedforward (one of the parameter `models`); None
            where it reads tokens alone.
        untrained_model: whether that model is taken before its training.
        trained: whether the latents' own weights are trained.
        transcode: of a coder, whether it goes from a feedforward's input to its output; otherwise
            it reconstructs the output that it reads.
        skip: of a coder, whether a linear path runs beside its latents.
        selection: how active latents are chosen: the maximum of each of k groups (`groupmax`), the
            k largest of a token (`topk`) or k per token on average, the largest of a batch
            (`batchtopk`), those above a threshold that each latent learns (`jumprelu`), or the k
            largest with nested reconstructions (`matryoshka`). None where nothing is chosen so.
        objective: what a coder is trained on: the fvu of its reconstruction, or (`kl`, end to end)
            the Kullback-Leibler divergence of the model's predictions with all coders in place from
            those without.
        frozen: of a coder, the half that keeps its initial weights.
        cross_layer: of a coder, whether the latents of a layer also write to all layers above.
        equal_loss: of native latents, the coders that choose the checkpoint of the model: the one
            whose loss is nearest to the dense model's with all of them in place (equal end-to-end
            loss). None takes the checkpoint of the dense model's own loss.
        reads, reconstructs: the same in words, for tables.
        contrast: where native latents are compared with it, the kind of that contrast. The primary
            one is between families of the same selection.
        untrained_twin: the family with the same kind of latents and untrained weights.
        untrained_model_twin: the family of the same coders, trained on the untrained model.
        null: its null in concept recovery: random directions of the space that it reads.
        control_of_all: whether every trained family is compared with it.
        planted: of latents that are made for a test of the scores, what they are active on (see
            `latents.planted`); None of all others.
        clearer: of planted latents, the family that is clearer by construction.
        color, marker, fill: how figures draw it. Controls have the colour and marker of their
            family, with a hollow (`none`) or half-filled (`left`) marker.
    """

    name: str
    label: str
    about: str
    kind: Literal["native", "coder", "neurons", "tokens"]
    model: str | None = "dense"
    untrained_model: bool = False
    trained: bool = True
    transcode: bool = False
    skip: bool = False
    selection: Selection | None = None
    objective: Literal["fvu", "kl"] = "fvu"
    frozen: Literal["encoder", "decoder"] | None = None
    cross_layer: bool = False
    equal_loss: str | None = None
    reads: str
    reconstructs: str
    contrast: Literal["primary", "secondary"] | None = None
    untrained_twin: str | None = None
    untrained_model_twin: str | None = None
    null: str | None = None
    control_of_all: bool = False
    planted: Literal["rule", "noisy", "mixture"] | None = None
    clearer: str | None = None
    color: str
    marker: str
    fill: Literal["full", "none", "left"] = "full"

    @property
    def is_coder(self) -> bool:
        """Whether `clearnets sparsify` writes its latents."""
        return self.kind == "coder"

    @property
    def joint(self) -> bool:
        """Whether its coders of all layers are trained together."""
        return self.objective == "kl" or self.cross_layer

    @property
    def writes(self) -> bool:
        """Whether its latents write to the feedforward output of their own layer and of no other,
        so that something else can be put in their place there."""
        return self.model is not None and not self.cross_layer

    @property
    def refits(self) -> Literal["decoder", "bias"] | None:
        """What is fitted to its codes before they are put in place: the decoder of untrained
        coders, which begins at zero or at random; the bias of neurons, which makes up for the mean
        of all that are not among the k largest."""
        if self.is_coder and not self.trained:
            return "decoder"
        return "bias" if self.kind == "neurons" else None

    @property
    def coder_kind(self) -> dict[str, Any]:
        """What kind of coder it is, as arguments of `clearnets.coders.library.new_coder`."""
        return {
            "transcode": self.transcode,
            "skip": self.skip,
            "selection": self.selection,
            "frozen": self.frozen,
        }

    @property
    def is_subject(self) -> bool:
        """Whether it is compared with controls, and so no control itself."""
        return self.untrained_twin is not None

    @property
    def model_state(self) -> str:
        """Name the model that it reads, as trained or untrained; families of one name can be
        read in one pass."""
        at = f", of the loss of {self.equal_loss}" if self.equal_loss else ""
        return f"{self.model or TOKENS}{', untrained' if self.untrained_model else ''}{at}"

    @property
    def weights(self) -> str:
        """The folder below `artifacts/` with its weights."""
        if self.is_coder:
            return f"coders/{self.name}"
        if self.equal_loss:
            return f"equalize/{self.name}"
        return f"train/{self.model}" if self.model else "data"

    def hookpoints(self, layers: Iterable[str]) -> list[str]:
        """Return where its latents are, given the hookpoints of a model's layers."""
        return list(layers) if self.model else [TOKENS]

    def identity(self) -> dict[str, object]:
        """Return what the family's own latents, cache and explanations follow from.

        The other fields only name it, draw it, or say what it is compared with.
        """
        computed = (
            *("kind", "model", "untrained_model", "trained", "transcode", "skip", "null"),
            *("selection", "objective", "frozen", "cross_layer", "equal_loss", "planted"),
        )
        return {key: value for key, value in asdict(self).items() if key in computed}


_IN, _OUT = "feedforward input", "feedforward output"
# Okabe and Ito's colours.
_BLUE, _RED, _ORANGE, _GREEN, _SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9"
_PINK, _GREY = "#CC79A7", "#666666"


def _native(
    model: str, selection: Selection, prefix: str, how: str, color: str, kind: str = ""
) -> FamilySpec:
    """Return the latents that one kind of sparse feedforward computes with."""
    return FamilySpec(
        name=f"{prefix}native",
        label=f"{kind} native".strip(),
        about=f"the sparse model's own feedforward latents, {how}",
        kind="native",
        model=model,
        selection=selection,
        reads=_IN,
        reconstructs="nothing: it is the feedforward",
        null=f"random-{prefix}directions",
        color=color,
        marker="o",
    )


def _transcoder(
    prefix: str = "", how: str = "", model: str = "dense", **changes: Any
) -> FamilySpec:
    """Return transcoders of a dense model."""
    fields: dict[str, Any] = {
        "name": f"{prefix}transcoder",
        "label": f"{prefix}transcoder",
        "about": f"transcoders on the dense model, from a feedforward's input to its output{how}",
        "selection": "topk",
        "reconstructs": _OUT,
        "contrast": "secondary",
        "null": "random-transcoder",
        "color": _RED,
        "marker": "s",
    }
    return FamilySpec(kind="coder", model=model, transcode=True, reads=_IN, **fields | changes)


def _sae(prefix: str = "", how: str = "", **changes: Any) -> FamilySpec:
    """Return SAEs of the dense model."""
    fields: dict[str, Any] = {
        "name": f"{prefix}sae",
        "label": f"{prefix}SAE",
        "about": f"SAEs on the output of the dense model's feedforwards{how}",
        "selection": "topk",
        "contrast": "secondary",
        "null": "random-sae",
        "color": _GREEN,
        "marker": "^",
    }
    return FamilySpec(kind="coder", reads=_OUT, reconstructs=_OUT, **fields | changes)


def _neurons(prefix: str, model: str, about: str, **changes: Any) -> FamilySpec:
    """Return the neurons of a dense model."""
    fields: dict[str, Any] = {
        "name": f"{prefix}neurons",
        "label": f"{prefix}neurons",
        "null": "random-transcoder",
        "color": _PINK,
        "marker": "v",
    }
    return FamilySpec(
        kind="neurons",
        model=model,
        about=f"{about}, each sign for itself",
        reads=_IN,
        reconstructs="nothing: the feedforward's own units",
        **fields | changes,
    )


# Other selections than the primary ones: selection, name in figures, in words.
_SELECTIONS = (
    ("batchtopk", "BatchTopK", ", k per token on average"),
    ("jumprelu", "JumpReLU", ", above a learned threshold"),
    ("matryoshka", "Matryoshka", ", nested"),
)


def _on_tokens(name: str, label: str, about: str, **changes: Any) -> FamilySpec:
    """Return latents that read tokens and no model."""
    return FamilySpec(
        name=name,
        label=label,
        about=about,
        kind="tokens",
        model=None,
        reads="current token" if name == "token-unigram" else "tokens",
        reconstructs="nothing",
        color=_GREY,
        **changes,
    )


# Kinds of latent whose clarity is the question. Each has an untrained twin, its own or another's.
_SUBJECTS = (
    _native("sparse", "groupmax", "", "the maximum of each of k groups (GroupMax)", _BLUE),
    _native("sparse_topk", "topk", "topk-", "the k largest (top-k)", _SKY, "top-k"),
    _native(
        *("sparse_low_rank", "topk", "low-rank-", "factored through few dimensions", _SKY),
        "low-rank",
    ),
    _native(
        *("sparse_product_key", "topk", "product-key-", "the sums of two halves", _SKY),
        "product-key",
    ),
    _native(
        *("sparse_kronecker", "topk", "kronecker-", "an encoder that is a product", _SKY),
        "Kronecker",
    ),
    _transcoder(contrast="primary", untrained_model_twin="step0-transcoder"),
    _transcoder(
        *("groupmax-", ", the maximum of each of k groups (GroupMax)"),
        label="GroupMax transcoder",
        selection="groupmax",
        contrast="primary",
        null="random-groupmax-transcoder",
        color=_ORANGE,
    ),
    _sae(untrained_model_twin="step0-sae"),
    _transcoder(
        *("skip-", ", with a linear path beside their latents"),
        skip=True,
        reconstructs="feedforward output, with a linear skip",
        untrained_model_twin="step0-transcoder",
        color=_ORANGE,
        marker="D",
    ),
    *(
        make(f"{selection}-", how, selection=selection, label=f"{name} {noun}", marker=marker)
        for make, noun, markers in ((_transcoder, "transcoder", "pXh"), (_sae, "SAE", "<>*"))
        for (selection, name, how), marker in zip(_SELECTIONS, markers)
    ),
    _transcoder(
        *("e2e-", ", trained end to end on the model's predictions"),
        label="end-to-end transcoder",
        objective="kl",
        reconstructs="the model's predictions, by way of the feedforward output",
        color=_PINK,
        marker="d",
    ),
    _transcoder(
        *("cross-layer-", " and those of all layers above"),
        label="cross-layer transcoder",
        cross_layer=True,
        reconstructs="outputs of its own and all later feedforwards",
        color=_PINK,
        marker="P",
    ),
    _transcoder(
        *("wide-", " (the dense twin of as many parameters)", "dense_wide"),
        label="wide transcoder",
        marker="H",
    ),
)
# The name of a subject's untrained twin, where that is not its own; `None` of no one.
_OTHERS_TWIN = {
    row.name: "random-transcoder" if row.transcode else "random-sae"
    for row in _SUBJECTS
    if row.is_coder and row.name not in ("transcoder", "sae", "groupmax-transcoder")
}


def _control(subject: FamilySpec, kind: str, how: str, **changes: Any) -> FamilySpec:
    """Return a control of a subject, which no contrast and no null of its own concerns."""
    compared = ("contrast", "untrained_twin", "untrained_model_twin", "null")
    fields = {"about": f"control: {subject.about}; {how}", **dict.fromkeys(compared), **changes}
    return replace(subject, label=f"{kind} {subject.label}", **fields)


def _untrained(subject: FamilySpec) -> FamilySpec:
    """Return a subject's own untrained twin."""
    native = subject.kind == "native"
    return _control(
        subject,
        "untrained",
        "the sparse model before its training" if native else "untrained weights",
        name=f"random-{subject.name}",
        untrained_model=native,
        trained=False,
        reconstructs="nothing: an untrained feedforward" if native else f"{_OUT}, untrained",
        fill="none",
    )


def _on_step_0(subject: FamilySpec) -> FamilySpec:
    """Return the same coders, trained on the model before its training."""
    return _control(
        subject,
        "step-0",
        "trained on the model before its training",
        name=f"step0-{subject.name}",
        untrained_model=True,
        reconstructs=f"{_OUT}, of the untrained model",
        fill="left",
    )


def _early(native: FamilySpec, coders: FamilySpec) -> FamilySpec:
    """Return the latents of a sparse model of equal end-to-end loss."""
    return replace(
        native,
        name=f"early-{native.name}",
        label=f"early {native.label}",
        about=f"{native.about}, at the loss of the dense model with all {coders.name}s in place",
        equal_loss=coders.name,
        untrained_twin=f"random-{native.name}",
        null=None,
        fill="left",
    )


_ROWS = (
    *(
        replace(row, untrained_twin=_OTHERS_TWIN.get(row.name, f"random-{row.name}"))
        for row in _SUBJECTS
    ),
    *(
        _early(native, coders)
        for native in _SUBJECTS[:2]
        for coders in _SUBJECTS
        if coders.contrast == "primary" and coders.selection == native.selection
    ),
    _neurons("", "dense", "the dense model's neurons", control_of_all=True),
    _neurons(
        *("weight-sparse-", "dense_weight_sparse", "neurons of a model with few weights"),
        marker="8",
    ),
    *(_untrained(row) for row in _SUBJECTS if row.name not in _OTHERS_TWIN),
    *(_on_step_0(row) for row in _SUBJECTS if row.untrained_model_twin == f"step0-{row.name}"),
    # Sanity checks of 2026 found such coders close to trained ones.
    _transcoder(
        *("frozen-decoder-", "; control: the decoder keeps its initial weights"),
        label="frozen-decoder transcoder",
        frozen="decoder",
        contrast=None,
        null=None,
        fill="left",
        marker="D",
    ),
    _transcoder(
        *("frozen-encoder-", "; control: the encoder keeps its initial weights"),
        label="frozen-encoder transcoder",
        frozen="encoder",
        contrast=None,
        null=None,
        fill="left",
        marker="X",
    ),
    _on_tokens(
        *("token-unigram", "token unigram", "control: active on one fixed token"),
        control_of_all=True,
        marker="P",
    ),
    _on_tokens(
        *("planted-rule", "planted rule", "test: active on a frequent word or pair of words"),
        planted="rule",
        marker="1",
    ),
    _on_tokens(
        *("planted-noisy", "planted noisy rule", "test: half as planted rules, half at random"),
        planted="noisy",
        clearer="planted-rule",
        marker="2",
    ),
    _on_tokens(
        *("planted-mixture", "planted mixture", "test: active on two planted rules"),
        planted="mixture",
        clearer="planted-rule",
        marker="3",
    ),
)

# By name, in the order of tables.
FAMILIES: dict[str, FamilySpec] = {row.name: row for row in _ROWS}

# The nulls of native latents in concept recovery: random directions of the space that they read. By
# name. They are cached with them and are no families.
DIRECTIONS: dict[str, FamilySpec] = {
    row.null: replace(
        row,
        name=row.null,
        label=row.label.replace("native", "random directions"),
        about=f"null: random directions of the space that the {row.label} latents read",
        trained=False,
        untrained_twin=None,
        null=None,
        fill="none",
    )
    for row in _ROWS
    if row.kind == "native" and row.null
}
