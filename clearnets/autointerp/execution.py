"""Execute explanations: simulate a layer's latents from their sentences, and fit what stands in.

A latent's simulated activation takes two values: its mean over the positions of `explain` at which
its sentence fires, and its mean over all others (the least squares of its activation on whether the
sentence fires). A latent without a sentence stays at its mean. So what simulated latents write
depends on the text alone and is known before the model runs: see `StandIn`.

Bills et al. (2023) simulated activations by a language model and ablated a layer to the simulation;
rules can be simulated for all latents of all layers at once.

Shapes: N counted positions of some rows, in their order; L latents, D width of the feedforward's
output, V vocabulary, F features of a stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.linalg import solve
from scipy.sparse import csc_array, csr_array

from clearnets.autointerp.rules.language import Clause, Rule, parse
from clearnets.autointerp.rules.matcher import Rows, Text
from clearnets.latents.examples import Entries, Windows

# What may stand in the place of a layer's latents: themselves, or what `fit` makes.
EXACT = "exact"
STAND_INS = (
    *("bits", "joint", "rules", "graded", "trigger", "token-latents", "token-output"),
    *("shuffled", "mean"),
)
NAMES = (EXACT, *STAND_INS)

# In the folder of a unit of `clearnets execute`.
ROWS, SUMMARY = "rows.safetensors", "summary.json"


def rules_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Rule | None]]:
    """Return the rules that stand for latents, by kind: their sentences (`rules`), and their
    trigger words alone (`trigger`); None for latents without a sentence.

    Args:
        records: of explanations (`clearnets.autointerp.records`), one for each latent.
    """
    sentences = [record["explanation"] for record in records]
    words = [record["trigger"] if record["explanation"] else None for record in records]
    return {
        "rules": [None if one is None else parse(one) for one in sentences],
        "trigger": [None if one is None else Rule((Clause((one,)),)) for one in words],
    }


def whole_rows(rows: Rows, row_R: np.ndarray) -> Text[Windows]:
    """Return whole rows of a split as windows, so that a rule has all of a row as its context."""
    counted_RS = rows.counted_RS
    windows = Windows(counted_RS.shape[1], counted_RS, row_R, np.zeros(len(row_R), dtype=np.int64))
    return Text(rows, windows)


def fires(text: Text[Windows], rules: Sequence[Rule | None]) -> csc_array:
    """Return where rules fire, (N, L): ones at the counted positions of the text's windows.

    None never fires.
    """
    counted_RS = text.windows.cut(text.rows.counted_RS)
    place_Z = np.cumsum(counted_RS) - 1
    found: dict[Rule | None, np.ndarray] = {None: np.zeros(0, dtype=np.int64)}
    for rule in rules:
        if rule is not None and rule not in found:
            bits_RB = text.fires(rule).view(np.uint8)
            flags_RS = np.unpackbits(bits_RB, axis=-1, count=counted_RS.shape[1])
            # Of booleans numpy finds those that hold far faster than of numbers.
            found[rule] = place_Z[np.flatnonzero(flags_RS.view(bool))]
    return _columns([found[rule] for rule in rules], int(counted_RS.sum()))


def _columns(places: Sequence[np.ndarray], size: int) -> csc_array:
    """Return a matrix with ones at the given places of each column."""
    ends = np.concatenate([[0], np.cumsum([len(place) for place in places])])
    indices = np.concatenate([np.zeros(0, dtype=np.int64), *places])
    ones = np.ones(len(indices), dtype=np.float64)
    return csc_array((ones, indices, ends), shape=(size, len(places)))


def cached_codes(entries: Entries, counted_RS: np.ndarray, row_R: np.ndarray) -> csc_array:
    """Return a layer's cached activations at the counted positions of some rows, (N, L).

    Args:
        counted_RS: of the whole split.
        row_R: rows of the split, in the order that is wanted.
    """
    place_RS = np.full(counted_RS.shape, -1, dtype=np.int64)
    chosen_RS = counted_RS[row_R]
    place_RS[row_R] = np.where(chosen_RS, (np.cumsum(chosen_RS) - 1).reshape(chosen_RS.shape), -1)
    place_E = place_RS[entries.row, entries.position]
    kept_E = place_E >= 0
    latent_E = np.repeat(np.arange(entries.num_latents), np.diff(entries.offsets))[kept_E]
    counts_L = np.bincount(latent_E, minlength=entries.num_latents)
    ends = np.concatenate([[0], np.cumsum(counts_L)])
    shape = (int(chosen_RS.sum()), entries.num_latents)
    return csc_array((entries.act[kept_E].astype(np.float64), place_E[kept_E], ends), shape=shape)


def sparse_codes(acts_NK: np.ndarray, indices_NK: np.ndarray, num_latents: int) -> csc_array:
    """Return codes as a matrix (N, L); zeros are not active."""
    on_NK = acts_NK > 0
    ends = np.concatenate([[0], np.cumsum(on_NK.sum(axis=1))])
    shape = (len(acts_NK), num_latents)
    codes = csr_array((acts_NK[on_NK].astype(np.float64), indices_NK[on_NK], ends), shape=shape)
    return codes.tocsc()


@dataclass(frozen=True)
class Levels:
    """The two simulated activations of each latent: where its explanation fires, and elsewhere."""

    on_L: np.ndarray
    off_L: np.ndarray

    def squared_errors(self, fires_NL: csc_array, codes_NL: csc_array) -> np.ndarray:
        """Return per latent the sum over positions of (activation - simulated activation)²."""
        size, fired_L, total_L, inside_L = _sums(fires_NL, codes_NL)
        products_L = self.on_L * inside_L + self.off_L * (total_L - inside_L)
        squares_L = self.on_L**2 * fired_L + self.off_L**2 * (size - fired_L)
        return (codes_NL * codes_NL).sum(axis=0) - 2 * products_L + squares_L


def calibrate(fires_NL: csc_array, codes_NL: csc_array) -> Levels:
    """Return each latent's mean activation where its explanation fires and where it does not.

    That is the least squares of its activation on whether the explanation fires. One that fires
    nowhere, or everywhere, gives the mean twice.
    """
    size, fired_L, total_L, inside_L = _sums(fires_NL, codes_NL)
    mean_L, silent_L = total_L / size, size - fired_L
    on_L = np.where(fired_L > 0, inside_L / np.maximum(fired_L, 1), mean_L)
    off_L = np.where(silent_L > 0, (total_L - inside_L) / np.maximum(silent_L, 1), mean_L)
    return Levels(on_L, off_L)


def _sums(
    fires_NL: csc_array, codes_NL: csc_array
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of positions, and per latent how often its explanation fires, and the sums
    of its activations everywhere and where it fires."""
    size: int = codes_NL.shape[0]  # pyright: ignore[reportOptionalSubscript]
    inside_NL = fires_NL * codes_NL
    return size, fires_NL.sum(axis=0), codes_NL.sum(axis=0), inside_NL.sum(axis=0)


@dataclass(frozen=True)
class StandIn:
    """What is written in the place of a layer's latents: features @ weight + bias, by position.

    Attributes:
        features_NF: of the text on which the model will run.
    """

    features_NF: csr_array
    weight_FD: np.ndarray
    bias_D: np.ndarray

    def output(self, positions: slice) -> np.ndarray:
        """Return what is written at some of the positions, (n, D) float32."""
        return (self.features_NF[positions] @ self.weight_FD + self.bias_D).astype(np.float32)


@dataclass(frozen=True)
class Decoder:
    """What the latents of one layer write: codes @ weight + bias."""

    weight_LD: np.ndarray
    bias_D: np.ndarray

    def simulated(self, fires_NL: csc_array, levels: Levels) -> StandIn:
        """Return what simulated latents write where their explanations fire as given."""
        weight_LD = (levels.on_L - levels.off_L)[:, None] * self.weight_LD
        return StandIn(fires_NL.tocsr(), weight_LD, levels.off_L @ self.weight_LD + self.bias_D)

    def graded(self, fitted: Passage, shown: Passage, levels: Levels) -> StandIn:
        """Return what latents write that are simulated from their sentences, with a level for each
        token at which a sentence fires: the mean activation there, with one position more at the
        level of the whole sentence."""
        fires_NL = fitted.fires_NL["rules"]
        size = 1 + int(max(fitted.token_N.max(), shown.token_N.max()))
        tokens_VN = _one_hot(fitted.token_N, size).T
        beyond_NL = fires_NL * fitted.codes_NL - fires_NL * levels.on_L
        counts_VL = (tokens_VN @ fires_NL).tocsr()
        counts_VL.data = 1 / (counts_VL.data + 1)
        beyond_VL = counts_VL * (tokens_VN @ beyond_NL)
        shown_NL = shown.fires_NL["rules"].tocsr()
        features_NL = shown_NL * beyond_VL.tocsr()[shown.token_N]
        features_NL += shown_NL * (levels.on_L - levels.off_L)
        bias_D = levels.off_L @ self.weight_LD + self.bias_D
        return StandIn(csr_array(features_NL), self.weight_LD, bias_D)

    def refit(
        self,
        what: Literal["decoder", "bias"],
        codes_NL: csc_array,
        output_ND: np.ndarray,
        penalty: float,
    ) -> Decoder:
        """Return a decoder of these codes that is fitted to the output; with `bias`, only its
        bias."""
        if what == "decoder":
            return ridge(codes_NL, output_ND, penalty)
        written_D = codes_NL.sum(axis=0) @ self.weight_LD / len(output_ND)
        return replace(self, bias_D=output_ND.mean(axis=0, dtype=np.float64) - written_D)


def ridge(features_NF: csc_array, target_ND: np.ndarray, penalty: float) -> Decoder:
    """Return the linear map from features to a target that minimises the squared error plus
    `penalty` times the mean variance of a feature times N times the squared weights.

    The bias is free. Features that never vary get no weight.
    """
    size = len(target_ND)
    mean_F, mean_D = features_NF.sum(axis=0) / size, target_ND.mean(axis=0, dtype=np.float64)
    gram_FF = (features_NF.T @ features_NF).toarray() - size * np.outer(mean_F, mean_F)
    products_FD = features_NF.T @ target_ND.astype(np.float64) - size * np.outer(mean_F, mean_D)
    variances_F = np.diagonal(gram_FF)
    if not variances_F.any():
        return Decoder(np.zeros_like(products_FD), mean_D)
    gram_FF[np.diag_indices_from(gram_FF)] += penalty * variances_F.mean()
    weight_FD = solve(gram_FF, products_FD, assume_a="pos")
    return Decoder(weight_FD, mean_D - mean_F @ weight_FD)


def by_token(token_N: np.ndarray, values_ND: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return the mean value at each token (V, D); the mean of all for tokens that do not occur."""
    sums_VD = _one_hot(token_N, vocab_size).T @ values_ND.astype(np.float64)
    counts_V1 = np.bincount(token_N, minlength=vocab_size)[:, None]
    mean_D = values_ND.mean(axis=0, dtype=np.float64)
    return np.where(counts_V1 > 0, sums_VD / np.maximum(counts_V1, 1), mean_D)


def _one_hot(token_N: np.ndarray, vocab_size: int) -> csr_array:
    size = len(token_N)
    ones = np.ones(size, dtype=np.float64)
    return csr_array((ones, token_N, np.arange(size + 1)), shape=(size, vocab_size))


@dataclass(frozen=True)
class Passage:
    """One layer's latents, and their explanations, on some text.

    Attributes:
        token_N: the token at each position.
        codes_NL: the latents' activations.
        fires_NL: by kind of explanation (`rules`, `trigger`), where those fire.
    """

    token_N: np.ndarray
    codes_NL: csc_array
    fires_NL: Mapping[str, csc_array]

    @property
    def bits_NL(self) -> csc_array:
        """Where the latents are active."""
        codes = self.codes_NL
        ones = np.ones(codes.nnz, dtype=np.float64)
        return csc_array((ones, codes.indices, codes.indptr), shape=codes.shape)

    def shuffled(self, order_L: np.ndarray) -> Passage:
        """Return the same with each latent's rule exchanged for that of latent `order_L`."""
        fires = {**self.fires_NL, "shuffled": self.fires_NL["rules"][:, order_L]}
        return replace(self, fires_NL={**fires, "bits": self.bits_NL})


@dataclass(frozen=True)
class Fitted:
    """What stands in for the latents of one layer, fitted on `explain` for other text.

    Attributes:
        stand_ins: by name.
        levels: the simulated activations, of those that give each latent two.
        mean_L: mean activations on `explain`.
    """

    stand_ins: dict[str, StandIn]
    levels: dict[str, Levels]
    mean_L: np.ndarray


def fit(
    fitted: Passage,
    shown: Passage,
    output_ND: np.ndarray,
    decoder: Decoder,
    *,
    order_L: np.ndarray,
    penalty: float,
) -> Fitted:
    """Fit everything that stands in for the latents of one layer.

    | name | what is written |
    |---|---|
    | bits | latents at their mean where they are active (in the model as it is), else zero |
    | joint | the ridge of the feedforward's output on where all rules fire |
    | rules | latents simulated from their sentences |
    | graded | the same, with a mean for each token at which a sentence fires |
    | trigger | latents simulated from their trigger words alone |
    | token-latents | latents at their mean at the current token; of native ones the next |
    | token-output | the mean output at the current token |
    | shuffled | latents simulated from the sentences of others, calibrated to their own activity |
    | mean | latents at their mean |

    Args:
        fitted: on `explain`, from which all numbers are.
        shown: on the text on which the model will run; of its activations only bits are used.
        output_ND: the feedforward's output on `explain`, without what a coder's skip connection
            writes, which stays true in all stand-ins.
        decoder: of the latents.
        order_L: whose sentence each latent gets in `shuffled`.
        penalty: see `ridge`.
    """
    fitted, shown = fitted.shuffled(order_L), shown.shuffled(order_L)
    kinds = ("bits", "rules", "trigger", "shuffled")
    levels = {kind: calibrate(fitted.fires_NL[kind], fitted.codes_NL) for kind in kinds}
    made = {kind: decoder.simulated(shown.fires_NL[kind], levels[kind]) for kind in kinds}
    made["graded"] = decoder.graded(fitted, shown, levels["rules"])
    joint = ridge(fitted.fires_NL["rules"], output_ND, penalty)
    made["joint"] = StandIn(shown.fires_NL["rules"].tocsr(), joint.weight_LD, joint.bias_D)
    written_ND = fitted.codes_NL.tocsr() @ decoder.weight_LD + decoder.bias_D
    for name, values_ND in (("token-latents", written_ND), ("token-output", output_ND)):
        vocab_size = 1 + int(max(fitted.token_N.max(), shown.token_N.max()))
        table_VD = by_token(fitted.token_N, values_ND, vocab_size)
        one_hot_NV = _one_hot(shown.token_N, vocab_size)
        made[name] = StandIn(one_hot_NV, table_VD, np.zeros(table_VD.shape[1]))
    mean_L = fitted.codes_NL.sum(axis=0) / len(fitted.token_N)
    nowhere = _columns([np.zeros(0, dtype=np.int64)] * len(mean_L), len(shown.token_N))
    made["mean"] = decoder.simulated(nowhere, Levels(mean_L, mean_L))
    return Fitted({name: made[name] for name in STAND_INS}, levels, mean_L)


def others(explained_L: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return whose sentence each latent gets where they are shuffled: that of another explained
    one, if there is any. Those without a sentence keep none.

    Args:
        explained_L: which latents have a sentence.
    """
    order_L = np.arange(len(explained_L))
    drawn = rng.permutation(np.flatnonzero(explained_L))
    order_L[drawn] = np.roll(drawn, 1)
    return order_L


def documents(rows_RS: np.ndarray, eos: int) -> np.ndarray:
    """Return the number of each row's document: a row goes on with that of a row without eos."""
    ended_R = (rows_RS == eos).any(axis=1)
    return np.cumsum(np.concatenate([[0], ended_R[:-1]]))


def tell(
    records: Sequence[Mapping[str, Any]], made: Fitted, shown: Passage, decoder: Decoder
) -> list[dict[str, Any]]:
    """Return the records of a layer's latents with what their simulation is and how good it is.

    Adds `on` and `off` (`Levels`), `norm` (of the decoder's row), and on the text on which the
    model runs, summed over its positions, `error`, of (activation - simulation)², and `variance`,
    of (activation - its mean on `explain`)². R² is 1 - error / variance; that of several latents is
    of the sums, weighted by the squared norm: what their errors and variances come to in the
    output, where latents are independent.
    """
    levels, mean = made.levels["rules"], Levels(made.mean_L, made.mean_L)
    errors = (one.squared_errors(shown.fires_NL["rules"], shown.codes_NL) for one in (levels, mean))
    norm_L = np.sqrt((decoder.weight_LD**2).sum(axis=1))
    columns = np.stack([levels.on_L, levels.off_L, norm_L, *errors], axis=1)
    keys = ("on", "off", "norm", "error", "variance")
    return [
        {**record, **{key: float(f"{value:.6g}") for key, value in zip(keys, row)}}
        for record, row in zip(records, columns.tolist())
    ]


def pooled(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how many latents a layer has (`latents`, `explained`), given its records, and the sums
    of `error` and `variance`, weighted by squared norms."""
    explained = sum(record["explanation"] is not None for record in told)
    sums = {
        key: float(np.sum([record["norm"] ** 2 * record[key] for record in told]))
        for key in ("error", "variance")
    }
    return {"latents": len(told), "explained": explained, **sums}


def kept(
    kl_PCR: np.ndarray, places: Sequence[str], names: Sequence[str]
) -> dict[str, float | None]:
    """Return the share of the computation that rules keep, 1 - KL(exact, rules) / KL(exact, mean),
    by place, and of the layers behind the first one together (`later`).

    Args:
        kl_PCR: sums by place, stand-in and row.
        places: the layers, and all of them at once.
        names: of the stand-ins.
    """
    rules_P, mean_P = (kl_PCR[:, names.index(name)].sum(axis=-1) for name in ("rules", "mean"))
    pairs = {place: (rules_P[i], mean_P[i]) for i, place in enumerate(places)}
    pairs["later"] = rules_P[1:-1].sum(), mean_P[1:-1].sum()
    return {
        place: round(float(1 - rules / mean), 6) if mean > 0 else None
        for place, (rules, mean) in pairs.items()
    }
