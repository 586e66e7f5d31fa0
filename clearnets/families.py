"""The table of families: every kind of latent that can be compared, one row each.

A new family is a new row here, and a trainer in `clearnets.coders` if it is a new kind of coder.
Everything else that names families reads this table: parameters, commands, `dvc.yaml`, readers,
tables and figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

# The hookpoint of a family that reads tokens and no layer, and its number in tables.
TOKENS = "tokens"
NO_LAYER = -1
# The null of the native latents in concept recovery. It is cached with them and is no family.
DIRECTIONS = "random-directions"


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
        model: the model of the pair that it reads; None where it reads tokens alone.
        untrained_model: whether that model is taken before its training.
        trained: whether the latents' own weights are trained.
        transcode: of a coder, whether it goes from a feedforward's input to its output; otherwise
            it reconstructs the output that it reads.
        skip: of a coder, whether a linear path runs beside its latents.
        reads, reconstructs: the same in words, for tables.
        contrast: where the native latents are compared with it, the kind of that contrast.
        untrained_twin: the family with the same kind of latents and untrained weights.
        untrained_model_twin: the family of the same coders, trained on the untrained model.
        null: its null in concept recovery: random directions of the space that it reads.
        control_of_all: whether every trained family is compared with it.
        color, marker, fill: how figures draw it. Controls have the colour and marker of their
            family, with a hollow (`none`) or half-filled (`left`) marker.
    """

    name: str
    label: str
    about: str
    kind: Literal["native", "coder", "neurons", "tokens"]
    model: Literal["dense", "sparse"] | None = "dense"
    untrained_model: bool = False
    trained: bool = True
    transcode: bool = False
    skip: bool = False
    reads: str
    reconstructs: str
    contrast: Literal["primary", "secondary"] | None = None
    untrained_twin: str | None = None
    untrained_model_twin: str | None = None
    null: str | None = None
    control_of_all: bool = False
    color: str
    marker: str
    fill: Literal["full", "none", "left"] = "full"

    @property
    def is_coder(self) -> bool:
        """Whether `clearnets sparsify` writes its latents."""
        return self.kind == "coder"

    @property
    def coder_kind(self) -> dict[str, bool]:
        """What kind of coder it is, as arguments of `clearnets.coders.library.new_coder`."""
        return {"transcode": self.transcode, "skip": self.skip}

    @property
    def is_subject(self) -> bool:
        """Whether it is compared with controls, and so no control itself."""
        return self.untrained_twin is not None

    @property
    def model_state(self) -> str:
        """Name the model that it reads, as trained or untrained; families of one name can be
        read in one pass."""
        return f"{self.model or TOKENS}{', untrained' if self.untrained_model else ''}"

    def weights(self, sparse: str | None) -> str:
        """Return the folder below `artifacts/` with its weights.

        Args:
            sparse: the feedforward of the pair's sparse model, which names that model's folder.
        """
        if self.is_coder:
            return f"coders/{self.name}"
        return f"train/{sparse if self.model == 'sparse' else 'dense'}" if self.model else "data"

    def hookpoints(self, layers: Iterable[str]) -> list[str]:
        """Return where its latents are, given the hookpoints of a model's layers."""
        return list(layers) if self.model else [TOKENS]

    def identity(self) -> dict[str, object]:
        """Return what the family's own latents, cache and explanations follow from.

        The other fields only name it, draw it, or say what it is compared with.
        """
        computed = ("kind", "model", "untrained_model", "trained", "transcode", "skip", "null")
        return {key: value for key, value in asdict(self).items() if key in computed}


_IN, _OUT = "feedforward input", "feedforward output"
_BLUE, _RED, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#E69F00", "#009E73"  # Okabe and Ito's

_ROWS = (
    FamilySpec(
        name="native",
        label="native",
        about="the sparse model's own feedforward latents",
        kind="native",
        model="sparse",
        reads=_IN,
        reconstructs="nothing: it is the feedforward",
        untrained_twin="random-native",
        null=DIRECTIONS,
        color=_BLUE,
        marker="o",
    ),
    FamilySpec(
        name="transcoder",
        label="transcoder",
        about="transcoders on the dense model, from a feedforward's input to its output",
        kind="coder",
        transcode=True,
        reads=_IN,
        reconstructs=_OUT,
        contrast="primary",
        untrained_twin="random-transcoder",
        untrained_model_twin="step0-transcoder",
        null="random-transcoder",
        color=_RED,
        marker="s",
    ),
    FamilySpec(
        name="sae",
        label="SAE",
        about="SAEs on the output of the dense model's feedforwards",
        kind="coder",
        reads=_OUT,
        reconstructs=_OUT,
        contrast="secondary",
        untrained_twin="random-sae",
        untrained_model_twin="step0-sae",
        null="random-sae",
        color=_GREEN,
        marker="^",
    ),
    FamilySpec(
        name="skip-transcoder",
        label="skip-transcoder",
        about="transcoders with a linear path beside their latents",
        kind="coder",
        transcode=True,
        skip=True,
        reads=_IN,
        reconstructs="feedforward output, with a linear skip",
        contrast="secondary",
        # The skip begins at zero, so the untrained transcoder is its twin, too.
        untrained_twin="random-transcoder",
        untrained_model_twin="step0-transcoder",
        null="random-transcoder",
        color=_ORANGE,
        marker="D",
    ),
    FamilySpec(
        name="neurons",
        label="neurons",
        about="the dense model's neurons, each sign for itself",
        kind="neurons",
        reads=_IN,
        reconstructs="nothing: the feedforward's own units",
        null="random-transcoder",
        control_of_all=True,
        color="#CC79A7",
        marker="v",
    ),
    FamilySpec(
        name="random-native",
        label="untrained native",
        about="control: the sparse model before its training",
        kind="native",
        model="sparse",
        untrained_model=True,
        trained=False,
        reads=_IN,
        reconstructs="nothing: an untrained feedforward",
        color=_BLUE,
        marker="o",
        fill="none",
    ),
    FamilySpec(
        name="random-transcoder",
        label="untrained transcoder",
        about="control: untrained transcoders on the dense model",
        kind="coder",
        trained=False,
        transcode=True,
        reads=_IN,
        reconstructs="feedforward output, untrained",
        color=_RED,
        marker="s",
        fill="none",
    ),
    FamilySpec(
        name="random-sae",
        label="untrained SAE",
        about="control: untrained SAEs on the dense model",
        kind="coder",
        trained=False,
        reads=_OUT,
        reconstructs="feedforward output, untrained",
        color=_GREEN,
        marker="^",
        fill="none",
    ),
    FamilySpec(
        name="step0-transcoder",
        label="step-0 transcoder",
        about="control: transcoders fitted to the dense model before its training",
        kind="coder",
        untrained_model=True,
        transcode=True,
        reads=_IN,
        reconstructs="feedforward output, of the untrained model",
        color=_RED,
        marker="s",
        fill="left",
    ),
    FamilySpec(
        name="step0-sae",
        label="step-0 SAE",
        about="control: SAEs fitted to the dense model before its training",
        kind="coder",
        untrained_model=True,
        reads=_OUT,
        reconstructs="feedforward output, of the untrained model",
        color=_GREEN,
        marker="^",
        fill="left",
    ),
    FamilySpec(
        name="token-unigram",
        label="token unigram",
        about="control: active on one fixed token",
        kind="tokens",
        model=None,
        reads="current token",
        reconstructs="nothing",
        control_of_all=True,
        color="#666666",
        marker="P",
    ),
)

# By name, in the order of tables.
FAMILIES: dict[str, FamilySpec] = {row.name: row for row in _ROWS}
