"""What the pair and its coders are worth on held-out text.

Everything is carried as sums and divided once, in double precision, so that no number depends on
how the rows were batched. fvu is 1 - R² of the reconstruction about the target's mean over the
whole split. Interventions change a feedforward's output at counted positions only.

Shapes: B rows, S positions, N counted tokens of a batch, D width of a feedforward, L latents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clearnets.coders import feedforward
from clearnets.coders.baselines import Baselines, Sums
from clearnets.coders.batches import Batch
from clearnets.coders.objective import reconstruct

if TYPE_CHECKING:
    from sparsify import SparseCoder

Row = dict[str, Any]
"""One line of a table."""


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
    """Summed loss in nats of the predicted tokens, and how many there are."""
    predicted_BS = batch.predicted_BS[:, 1:]
    logits_MV = model.get_output_embeddings()(hidden_BSD[:, :-1][predicted_BS])
    targets_M = batch.tokens_BS[:, 1:][predicted_BS]
    return F.cross_entropy(logits_MV, targets_M, reduction="none").double().sum(), len(targets_M)


@torch.no_grad()
def survey(model: Any, batches: Iterable[Batch]) -> Survey:
    """Held-out loss, mean outputs, and the activity of native latents where there are any."""
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
    model: Any, batches: Iterable[Batch], *, k: int, vocab_size: int
) -> list[Baselines]:
    """The baselines of each layer, fitted on these batches."""
    sums: list[Sums] = []
    for batch in batches:
        reading, _ = feedforward.read(model, batch.tokens_BS, batch.positions_BS)
        counted = batch.counted_BS
        tokens_N = batch.tokens_BS[counted]
        if not sums:
            widths = [(x.shape[-1], y) for x, y in zip(reading.inputs, reading.outputs)]
            sums = [Sums(d_in, y.shape[-1], vocab_size, y.device) for d_in, y in widths]
        for part, x_BSD, y_BSD in zip(sums, reading.inputs, reading.outputs):
            part.add(tokens_N, x_BSD[counted], y_BSD[counted])
    return [part.fit(k) for part in sums]


@torch.no_grad()
def ablate(model: Any, batches: Iterable[Batch], means: Sequence[Tensor]) -> list[Row]:
    """Per layer the loss with its feedforward's output replaced by its mean."""
    clean, ablated = Mean(), [Mean() for _ in means]
    for batch in batches:
        reading, hidden_BSD = feedforward.read(model, batch.tokens_BS)
        clean.add(*nll_sum(model, hidden_BSD, batch))
        for layer, mean_D in enumerate(means):
            y_ND = reading.outputs[layer][batch.counted_BS]
            ablated[layer].add(*_nll_with(model, batch, reading, layer, mean_D.to(y_ND) - y_ND))
    return [
        {
            "layer": layer,
            "loss_clean": clean.value,
            "loss_ablate": mean.value,
            "cost": mean.value - clean.value,
        }
        for layer, mean in enumerate(ablated)
    ]


@dataclass
class _CoderSums:
    residual: Tensor | float = 0.0
    activity: Activity = field(default_factory=Activity)
    spliced: Mean = field(default_factory=Mean)


@torch.no_grad()
def evaluate_coders(
    model: Any,
    coders: Mapping[str, Sequence[SparseCoder]],
    baselines: Sequence[Baselines],
    means: Sequence[Tensor],
    ablation: Sequence[Row] | None,
    *,
    intervened: Iterable[Batch],
    others: Iterable[Batch],
) -> list[Row]:
    """One row per family and layer.

    Args:
        model: the dense model that they were trained on.
        coders: by family, one coder per layer.
        baselines: per layer, fitted elsewhere.
        means: per layer the mean output over the whole split.
        ablation: what `ablate` found on `intervened`; None where losses are not asked for, as of
            an untrained model, which has none to lose.
        intervened: batches of the rows on which coders are also spliced in, one layer at a time.
        others: batches of the other rows of the split.
    """
    depth = len(means)
    sums = {family: [_CoderSums() for _ in range(depth)] for family in coders}
    total: list[Tensor | float] = [0.0] * depth
    plain: list[dict[str, Tensor]] = [{} for _ in range(depth)]

    def visit(batch: Batch, *, splice: bool) -> None:
        counted = batch.counted_BS
        tokens_N = batch.tokens_BS[counted]
        reading, _ = feedforward.read(model, batch.tokens_BS)
        for layer in range(depth):
            x_ND, y_ND = reading.inputs[layer][counted], reading.outputs[layer][counted]
            total[layer] = total[layer] + (y_ND.double() - means[layer]).pow(2).sum()
            for name, value in baselines[layer].residuals(tokens_N, x_ND, y_ND).items():
                plain[layer][name] = plain[layer].get(name, 0.0) + value
            for family, per_layer in coders.items():
                coder, part = per_layer[layer], sums[family][layer]
                made = reconstruct(coder, x_ND if coder.cfg.transcode else y_ND)
                error_ND = made.output_ND - y_ND
                part.residual = part.residual + error_ND.double().pow(2).sum()
                part.activity.add(made.acts_Nk, made.indices_Nk, coder.num_latents)
                if splice:
                    part.spliced.add(*_nll_with(model, batch, reading, layer, error_ND))

    for batch in intervened:
        visit(batch, splice=ablation is not None)
    for batch in others:
        visit(batch, splice=False)

    rows: list[Row] = []
    for family, per_layer in coders.items():
        for layer, (coder, part) in enumerate(zip(per_layer, sums[family])):
            fvu = {name: float(value / total[layer]) for name, value in plain[layer].items()}
            if not coder.cfg.transcode:
                # An SAE reads what it reconstructs: a linear map would be the identity.
                fvu["fvu_linear"] = None  # pyright: ignore
            rows.append(
                {
                    "family": family,
                    "layer": layer,
                    "reads": "input" if coder.cfg.transcode else "output",
                    "reconstructs": "output",
                    "num_latents": coder.num_latents,
                    "k": coder.cfg.k,
                    "fvu": float(part.residual / total[layer]),
                    **fvu,
                    "l0": part.activity.l0,
                    "dead": part.activity.dead,
                    **(_spliced(ablation[layer], part.spliced) if ablation else {}),
                }
            )
    return rows


def _spliced(ablation: Row, spliced: Mean) -> Row:
    return _recovered(ablation["loss_clean"], ablation["loss_ablate"], spliced.value)


@torch.no_grad()
def splice_all(
    model: Any,
    coders: Mapping[str, Sequence[SparseCoder]],
    means: Sequence[Tensor],
    batches: Sequence[Batch],
) -> list[Row]:
    """Per family the loss with all its coders in place at once, against all layers ablated."""

    def loss(replacements: Mapping[int, feedforward.PartialReplacement]) -> float:
        mean = Mean()
        for batch in batches:
            with feedforward.replaced(model, replacements, batch.counted_BS):
                _, hidden_BSD = feedforward.read(model, batch.tokens_BS)
            mean.add(*nll_sum(model, hidden_BSD, batch))
        return mean.value

    def ablated(mean_D: Tensor) -> feedforward.PartialReplacement:
        return lambda x_ND, y_ND: mean_D.to(y_ND).expand_as(y_ND)

    def spliced(coder: SparseCoder) -> feedforward.PartialReplacement:
        transcode = coder.cfg.transcode
        return lambda x_ND, y_ND: reconstruct(coder, x_ND if transcode else y_ND).output_ND

    clean = loss({})
    floor = loss({layer: ablated(mean_D) for layer, mean_D in enumerate(means)})
    return [
        {
            "family": family,
            **_recovered(
                clean, floor, loss({i: spliced(coder) for i, coder in enumerate(per_layer)})
            ),
        }
        for family, per_layer in coders.items()
    ]


def _nll_with(
    model: Any, batch: Batch, reading: feedforward.Reading, layer: int, change_ND: Tensor
) -> tuple[Tensor, int]:
    """Loss where `change_ND` is added to one feedforward's output at the counted positions."""
    residual_BSD = reading.residual[layer].clone()
    residual_BSD[batch.counted_BS] += change_ND
    hidden_BSD = feedforward.run_above(model, layer, residual_BSD, batch.tokens_BS)
    return nll_sum(model, hidden_BSD, batch)


def _recovered(clean: float, ablated: float, spliced: float) -> Row:
    """Losses, and 1 - (spliced - clean) / (ablated - clean): 1 is the model's own, 0 no better
    than the mean. Empty where ablation changes nothing."""
    cost = ablated - clean
    return {
        "loss_clean": clean,
        "loss_ablate": ablated,
        "loss_splice": spliced,
        "loss_recovered": 1 - (spliced - clean) / cost if cost else None,
    }
