"""Measure a model and its coders on held-out text: losses, ablations, fvu, l0, dead latents.

Everything is carried as sums and divided once, in double precision, so that no number depends on
how the rows were batched. fvu is 1 - R² of the reconstruction about the target's mean over the
whole split. Interventions change a feedforward's output at counted positions only.

Shapes: B rows, S positions, N counted tokens of a batch, D width of a feedforward, L latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clearnets.coders import feedforward
from clearnets.coders.baselines import Baselines, Sums, places
from clearnets.coders.batches import Batch
from clearnets.coders.cross_layer import InOrder
from clearnets.models import hookpoints

if TYPE_CHECKING:
    from sparsify import SparseCoder

Row = dict[str, Any]
"""One line of a table."""
Replacements = Mapping[int, feedforward.PartialReplacement]


@dataclass
class Mean:
    """A mean that is divided once."""

    total: Tensor | float = 0.0
    count: int = 0

    def add(self, total: Tensor, count: int) -> None:
        self.total = self.total + total
        self.count += count

    @property
    def value(self) -> float:
        return float(self.total) / self.count


@dataclass
class Activity:
    """How often the latents of one layer are active at counted tokens."""

    active: Tensor | int = 0
    tokens: int = 0
    fired_L: Tensor | None = None

    def add(self, acts_Nk: Tensor, indices_Nk: Tensor, num_latents: int) -> None:
        """Count a batch; a zero is not active."""
        on_Nk = acts_Nk > 0
        if self.fired_L is None:
            self.fired_L = torch.zeros(num_latents, dtype=torch.bool, device=acts_Nk.device)
        self.active = self.active + on_Nk.sum()
        self.tokens += len(acts_Nk)
        self.fired_L[indices_Nk[on_Nk]] = True

    @property
    def l0(self) -> float:
        """Active latents per token."""
        return int(self.active) / self.tokens

    @property
    def dead(self) -> float:
        """Share of the latents that no token activated."""
        assert self.fired_L is not None
        return 1 - int(self.fired_L.sum()) / len(self.fired_L)


@dataclass
class Survey:
    """A model on a whole split, as it is."""

    nll: Mean = field(default_factory=Mean)
    means: list[Tensor] = field(default_factory=list)
    """Per layer the mean output of its feedforward at counted positions, (D,) float64."""
    activity: list[Activity] = field(default_factory=list)
    """Per layer of a model that is sparse by construction."""


@torch.no_grad()
def nll_sum(model: Any, hidden_BSD: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return the summed loss in nats of the predicted tokens, and their number."""
    predicted_BS = batch.predicted_BS[:, 1:]
    logits_MV = model.get_output_embeddings()(hidden_BSD[:, :-1][predicted_BS])
    targets_M = batch.tokens_BS[:, 1:][predicted_BS]
    return F.cross_entropy(logits_MV, targets_M, reduction="none").double().sum(), len(targets_M)


@torch.no_grad()
def survey(model: Any, batches: Iterable[Batch]) -> Survey:
    """Return held-out loss, mean outputs, and the activity of native latents if there are any."""
    found = Survey()
    read = feedforward.modules(model)
    sums: list[Mean] = [Mean() for _ in read]
    encoders = [getattr(module, "encoder", None) for module in read]
    captured: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(index: int) -> Any:
        return lambda _, __, output: captured.__setitem__(index, output)

    handles = [
        encoder.register_forward_hook(keep(index))
        for index, encoder in enumerate(encoders)
        if encoder is not None
    ]
    found.activity = [Activity() for _ in handles]
    try:
        for batch in batches:
            reading, hidden_BSD = feedforward.read(model, batch.tokens_BS)
            found.nll.add(*nll_sum(model, hidden_BSD, batch))
            for mean, y_BSD in zip(sums, reading.outputs):
                y_ND = y_BSD[batch.counted_BS]
                mean.add(y_ND.double().sum(0), len(y_ND))
            for index, (acts_BSK, indices_BSK) in captured.items():
                num_latents = model.config.num_latents
                counted = batch.counted_BS
                found.activity[index].add(acts_BSK[counted], indices_BSK[counted], num_latents)
    finally:
        for handle in handles:
            handle.remove()
    found.means = [mean.total / mean.count for mean in sums]  # pyright: ignore
    return found


@torch.no_grad()
def fit_baselines(
    model: Any, batches: Iterable[Batch], *, k: int, rows_RS: np.ndarray, vocab_size: int
) -> list[Baselines]:
    """Return the baselines of each layer, fitted on batches of the text `rows_RS`."""
    place_V, num_held = places(rows_RS, vocab_size)
    sums: list[Sums] = []
    for batch in batches:
        reading, _ = feedforward.read(model, batch.tokens_BS, batch.positions_BS)
        counted = batch.counted_BS
        tokens_N = batch.tokens_BS[counted]
        if not sums:
            place_V = place_V.to(tokens_N.device)
            sums = [
                Sums(x.shape[-1], y.shape[-1], place_V, num_held, y.device)
                for x, y in zip(reading.inputs, reading.outputs)
            ]
        for part, x_BSD, y_BSD in zip(sums, reading.inputs, reading.outputs):
            part.add(tokens_N, x_BSD[counted], y_BSD[counted])
    # Of no two layers at once there are both sums and means.
    return [sums.pop(0).fit(k) for _ in range(len(sums))]


@torch.no_grad()
def ablate(model: Any, batches: Iterable[Batch], means: Sequence[Tensor]) -> list[Row]:
    """Return per layer the loss with its feedforward's output replaced by its mean."""
    clean, ablated = Mean(), [Mean() for _ in means]
    for batch in batches:
        reading, hidden_BSD = feedforward.read(model, batch.tokens_BS)
        clean.add(*nll_sum(model, hidden_BSD, batch))
        for layer, mean_D in enumerate(means):
            y_ND = reading.outputs[layer][batch.counted_BS]
            ablated[layer].add(*_nll_with(model, batch, reading, layer, mean_D.to(y_ND) - y_ND))
    return [
        {
            "layer": number,
            "loss_clean": clean.value,
            "loss_ablate": mean.value,
            "cost": mean.value - clean.value,
        }
        for number, mean in zip(hookpoints.numbers(model), ablated)
    ]


@dataclass
class _CoderSums:
    residual: Tensor | float = 0.0
    activity: Activity = field(default_factory=Activity)
    spliced: Mean = field(default_factory=Mean)


class _Layer:
    """Sums over the held-out tokens of one layer: its output, the baselines and the coders."""

    def __init__(
        self, coders: Mapping[str, SparseCoder], baselines: Baselines | None, mean_D: Tensor
    ) -> None:
        self._coders, self._baselines, self._mean_D = coders, baselines, mean_D
        self._total: Tensor | float = 0.0
        self._plain: dict[str, Tensor] = {}
        self.sums = {family: _CoderSums() for family in coders}

    def add(
        self, tokens_N: Tensor, x_ND: Tensor, y_ND: Tensor, made: Mapping[str, InOrder]
    ) -> dict[str, Tensor]:
        """Count a batch; return by family the reconstruction minus the output, (N, D).

        Args:
            made: by family the batch's reconstruction, layers up to the one below.
        """
        self._total = self._total + (y_ND.double() - self._mean_D).pow(2).sum()
        plain = self._baselines.residuals(tokens_N, x_ND, y_ND) if self._baselines else {}
        for name, value in plain.items():
            self._plain[name] = self._plain.get(name, 0.0) + value
        errors = {}
        for family, coder in self._coders.items():
            sums = self.sums[family]
            errors[family] = made[family](x_ND, y_ND) - y_ND
            sums.residual = sums.residual + errors[family].double().pow(2).sum()
            codes = made[family].made[-1]
            sums.activity.add(codes.acts_Nk, codes.indices_Nk, coder.num_latents)
        return errors

    def row(self, family: str, layer: int, ablation: Row | None) -> Row:
        """Return the numbers of one family."""
        coder, sums = self._coders[family], self.sums[family]
        plain = {name: float(value / self._total) for name, value in self._plain.items()}
        if not coder.cfg.transcode:
            # An SAE reads what it reconstructs: a linear map would be the identity.
            plain["fvu_linear"] = None  # pyright: ignore
        return {
            "family": family,
            "layer": layer,
            "reads": "input" if coder.cfg.transcode else "output",
            "reconstructs": "output",
            "num_latents": coder.num_latents,
            "k": coder.cfg.k,
            "fvu": float(sums.residual / self._total),
            **plain,
            "l0": sums.activity.l0,
            "dead": sums.activity.dead,
            **(_spliced(ablation, sums.spliced) if ablation else {}),
        }


@torch.no_grad()
def evaluate_coders(
    model: Any,
    coders: Mapping[str, Sequence[SparseCoder]],
    baselines: Sequence[Baselines] | None,
    means: Sequence[Tensor],
    ablation: Sequence[Row] | None,
    *,
    intervened: Iterable[Batch],
    others: Iterable[Batch],
) -> list[Row]:
    """Return one row per family and layer.

    Args:
        model: the dense model that they were trained on.
        coders: by family, one coder per layer.
        baselines: per layer, fitted elsewhere; None where they are not asked for.
        means: per layer the mean output over the whole split.
        ablation: what `ablate` found on `intervened`; None where losses are not asked for, as of
            an untrained model, which has none to lose.
        intervened: batches of the rows on which coders are also spliced in, one layer at a time.
        others: batches of the other rows of the split.
    """
    layers = [
        _Layer({family: chain[layer] for family, chain in coders.items()}, plain, mean_D)
        for layer, (plain, mean_D) in enumerate(zip(baselines or [None] * len(means), means))
    ]

    def visit(batch: Batch, *, splice: bool) -> None:
        counted = batch.counted_BS
        tokens_N = batch.tokens_BS[counted]
        reading, _ = feedforward.read(model, batch.tokens_BS)
        made = {family: InOrder(chain) for family, chain in coders.items()}
        for number, layer in enumerate(layers):
            x_ND, y_ND = reading.inputs[number][counted], reading.outputs[number][counted]
            errors = layer.add(tokens_N, x_ND, y_ND, made)
            for family, error_ND in errors.items() if splice else ():
                layer.sums[family].spliced.add(*_nll_with(model, batch, reading, number, error_ND))

    for batch in intervened:
        visit(batch, splice=ablation is not None)
    for batch in others:
        visit(batch, splice=False)
    return [
        layer.row(family, number, ablated)
        for family in coders
        for number, layer, ablated in zip(
            hookpoints.numbers(model), layers, ablation or [None] * len(layers), strict=True
        )
    ]


def _spliced(ablation: Row, spliced: Mean) -> Row:
    return _recovered(ablation["loss_clean"], ablation["loss_ablate"], spliced.value)


@torch.no_grad()
def loss_with(
    model: Any, replacements: Callable[[], Replacements], batches: Iterable[Batch]
) -> float:
    """Return the loss with feedforwards replaced, by layer, at counted positions.

    `replacements` gives those of one forward pass.
    """
    mean = Mean()
    for batch in batches:
        with feedforward.replaced(model, replacements(), batch.counted_BS):
            _, hidden_BSD = feedforward.read(model, batch.tokens_BS)
        mean.add(*nll_sum(model, hidden_BSD, batch))
    return mean.value


def loss_spliced(model: Any, coders: Sequence[SparseCoder], batches: Iterable[Batch]) -> float:
    """Return the loss with the coders of all layers in place."""
    return loss_with(model, lambda: InOrder(coders).replacements, batches)


def _ablated(means: Iterable[tuple[int, Tensor]]) -> Replacements:
    """Return what puts the mean output, (D,), in the place of each given layer's."""

    def replacement(mean_D: Tensor) -> feedforward.PartialReplacement:
        return lambda x_ND, y_ND: mean_D.to(y_ND).expand_as(y_ND)

    return {layer: replacement(mean_D) for layer, mean_D in means}


def ablate_together(model: Any, batches: Sequence[Batch], means: Sequence[Tensor]) -> Row:
    """Return the cost in nats of replacing all feedforwards by their means at once (`joint_all`),
    and all but the model's first, which see its output (`joint`)."""
    clean = loss_with(model, dict, batches)
    every = list(enumerate(means))
    later = [one for one, number in zip(every, hookpoints.numbers(model)) if number > 0]
    return {
        "joint": loss_with(model, lambda: _ablated(later), batches) - clean,
        "joint_all": loss_with(model, lambda: _ablated(every), batches) - clean,
    }


@torch.no_grad()
def splice_all(
    model: Any,
    coders: Mapping[str, Sequence[SparseCoder]],
    means: Sequence[Tensor],
    batches: Sequence[Batch],
) -> list[Row]:
    """Return per family the loss with all its coders in place, against all layers ablated."""

    clean = loss_with(model, dict, batches)
    ablated = loss_with(model, lambda: _ablated(enumerate(means)), batches)
    return [
        {
            "family": family,
            **_recovered(clean, ablated, loss_spliced(model, per_layer, batches)),
        }
        for family, per_layer in coders.items()
    ]


def _nll_with(
    model: Any, batch: Batch, reading: feedforward.Reading, layer: int, change_ND: Tensor
) -> tuple[Tensor, int]:
    """Return the loss with `change_ND` added to a feedforward's output at counted positions."""
    residual_BSD = reading.residual[layer].clone()
    residual_BSD[batch.counted_BS] += change_ND
    hidden_BSD = feedforward.run_above(model, layer, residual_BSD, batch.tokens_BS)
    return nll_sum(model, hidden_BSD, batch)


def _recovered(clean: float, ablated: float, spliced: float) -> Row:
    """Return losses, and 1 - (spliced - clean) / (ablated - clean): 1 is as good as the model's
    own output, 0 as the mean. None where ablation changes nothing."""
    cost = ablated - clean
    return {
        "loss_clean": clean,
        "loss_ablate": ablated,
        "loss_splice": spliced,
        "loss_recovered": 1 - (spliced - clean) / cost if cost else None,
    }
