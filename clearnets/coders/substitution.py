"""Run a model with something else in the place of a family's latents, and compare predictions.

Two numbers per row of text: the loss in nats, and the Kullback-Leibler divergence to the model with
the exact latents in the same places, each summed over the predicted tokens that the held-out loss
counts. A skip connection stays true: it is computed from what the running model gives it.

Shapes: B rows, S positions, N counted positions, D width of a feedforward, M predicted tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearnets.coders import feedforward
from clearnets.coders.batches import Batch
from clearnets.coders.written import Written

Output = Callable[[slice], np.ndarray]
"""From counted positions of all rows to what is written there, (n, D)."""
EXACT = "exact"
CLEAN = "clean"


class Told(NamedTuple):
    """What one forward pass predicts, by row: sums in double precision."""

    nll_B: Tensor
    kl_B: Tensor
    """To the model with the exact latents."""


class _Reference:
    """Predictions of the model with the exact latents, which others are compared with."""

    def __init__(self, model: Any, hidden_BSD: Tensor, batch: Batch) -> None:
        self._head, self._batch = model.get_output_embeddings(), batch
        logits_MV = self._logits(hidden_BSD)
        log_MV = logits_MV.log_softmax(-1)
        # Of each row of probabilities: what its logits are expected to be, given a hidden state.
        chance_MV = log_MV.exp()
        self._entropy_M = -(chance_MV * log_MV).sum(-1, dtype=torch.float64)
        self._expected_MD = chance_MV @ self._head.weight
        bias_V = getattr(self._head, "bias", None)
        self._offset_M = 0.0 if bias_V is None else (chance_MV @ bias_V).double()
        self.told = self._told(hidden_BSD, logits_MV)._replace(
            kl_B=torch.zeros(len(batch.tokens_BS), dtype=torch.float64, device=log_MV.device)
        )

    def compare(self, hidden_BSD: Tensor) -> Told:
        """Return loss and divergence of other predictions on the same rows."""
        return self._told(hidden_BSD, self._logits(hidden_BSD))

    def _told(self, hidden_BSD: Tensor, logits_MV: Tensor) -> Told:
        total_M = logits_MV.logsumexp(-1).double()
        hidden_MD = self._predicting(hidden_BSD).double()
        expected_M = (hidden_MD * self._expected_MD.double()).sum(-1) + self._offset_M
        targets_M = self._batch.tokens_BS[:, 1:][self._batch.predicted_BS[:, 1:]]
        reached_M = logits_MV.gather(1, targets_M[:, None])[:, 0].double()
        kl_M = total_M - expected_M - self._entropy_M
        return Told(self._by_row(total_M - reached_M), self._by_row(kl_M))

    def _logits(self, hidden_BSD: Tensor) -> Tensor:
        return self._head(self._predicting(hidden_BSD))

    def _predicting(self, hidden_BSD: Tensor) -> Tensor:
        return hidden_BSD[:, :-1][self._batch.predicted_BS[:, 1:]]

    def _by_row(self, values_M: Tensor) -> Tensor:
        predicted_BS = self._batch.predicted_BS[:, 1:]
        values_BS = values_M.new_zeros(predicted_BS.shape)
        values_BS[predicted_BS] = values_M
        return values_BS.sum(1)


class Layer(NamedTuple):
    """One layer's latents, and what may stand in for them, by name."""

    written: Written
    stand_ins: Mapping[str, Output]


@torch.no_grad()
def substitute(
    model: Any, layers: Sequence[Layer], batch: Batch, positions: slice
) -> Iterator[tuple[int | None, str, Told]]:
    """Yield layer, what stands in and what the model then predicts; each layer alone, then all
    layers at once, whose number is None. The first of each is `EXACT`; before all comes the model
    as it is, `CLEAN`.

    Args:
        positions: the batch's among the counted positions of all rows.
    """
    reading, hidden_BSD = feedforward.read(model, batch.tokens_BS)
    clean = _Reference(model, hidden_BSD, batch)
    yield None, CLEAN, clean.told
    for number, layer in enumerate(layers):
        x_ND = reading.inputs[number][batch.counted_BS]
        y_ND = reading.outputs[number][batch.counted_BS]

        def hidden(output_ND: Tensor, number: int = number, y_ND: Tensor = y_ND) -> Tensor:
            residual_BSD = reading.residual[number].clone()
            residual_BSD[batch.counted_BS] += output_ND - y_ND
            return feedforward.run_above(model, number, residual_BSD, batch.tokens_BS)

        exact = clean
        if not layer.written.whole:
            exact = _Reference(model, hidden(layer.written.output(x_ND, y_ND)), batch)
        yield number, EXACT, exact.told
        skipped_ND = layer.written.skipped(x_ND)
        for name, output in layer.stand_ins.items():
            written_ND = torch.from_numpy(output(positions)).to(y_ND)
            yield number, name, exact.compare(hidden(written_ND + skipped_ND))
    yield from _together(model, layers, batch, positions, clean)


def _together(
    model: Any, layers: Sequence[Layer], batch: Batch, positions: slice, clean: _Reference
) -> Iterator[tuple[None, str, Told]]:
    def hidden(replacements: Mapping[int, feedforward.PartialReplacement]) -> Tensor:
        with feedforward.replaced(model, replacements, batch.counted_BS):
            return feedforward.read(model, batch.tokens_BS)[1]

    def replacement(layer: Layer, name: str) -> feedforward.PartialReplacement:
        written = layer.stand_ins[name](positions)
        return lambda x_ND, y_ND: torch.from_numpy(written).to(y_ND) + layer.written.skipped(x_ND)

    exact = clean
    if not all(layer.written.whole for layer in layers):
        outputs = {number: layer.written.output for number, layer in enumerate(layers)}
        exact = _Reference(model, hidden(outputs), batch)
    yield None, EXACT, exact.told
    for name in layers[0].stand_ins:
        replaced = {number: replacement(layer, name) for number, layer in enumerate(layers)}
        yield None, name, exact.compare(hidden(replaced))


def measure(
    model: Any, layers: Sequence[Layer], batch: Batch, positions: slice, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return what `substitute` yields as arrays: `nll` and `kl` by place (the layers, and then all
    at once), name and row; `clean`, the loss of the model as it is, and `tokens`, by row.

    Args:
        names: `EXACT` and those of the stand-ins, in the order that is wanted.
    """
    shape = (len(layers) + 1, len(names), len(batch.tokens_BS))
    found = {"nll": np.zeros(shape), "kl": np.zeros(shape)}
    for number, name, told in substitute(model, layers, batch, positions):
        if name == CLEAN:
            found["clean"] = told.nll_B.cpu().numpy()
            continue
        at = len(layers) if number is None else number, names.index(name)
        found["nll"][at], found["kl"][at] = told.nll_B.cpu().numpy(), told.kl_B.cpu().numpy()
    return found | {"tokens": batch.predicted_BS.sum(1).cpu().numpy()}


@torch.no_grad()
def outputs(model: Any, batch: Batch, written: Sequence[Written]) -> list[Tensor]:
    """Return by layer what the feedforward writes at counted positions, (N, D), without what the
    skip connection of the latents does."""
    reading, _ = feedforward.read(model, batch.tokens_BS)
    at = batch.counted_BS
    return [
        y_BSD[at] - one.skipped(x_BSD[at])
        for one, x_BSD, y_BSD in zip(written, reading.inputs, reading.outputs)
    ]


@torch.no_grad()
def codes(model: Any, batch: Batch, written: Sequence[Written]) -> list[tuple[Tensor, Tensor]]:
    """Return by layer values and indices (N, K) of the latents at counted positions."""
    reading, _ = feedforward.read(model, batch.tokens_BS)
    at = batch.counted_BS
    return [
        one.encode(x_BSD[at], y_BSD[at])
        for one, x_BSD, y_BSD in zip(written, reading.inputs, reading.outputs)
    ]
