"""Circuits of latents: which latents, at which positions, make a model answer as it does.

A node is a latent of one layer at one position of a task's prompts. What coders leave out of a
feedforward's output, their error, is a node too, one per layer and position. A circuit is a set of
nodes: in its run all other nodes have their mean over the task's prompts at that position, and
nodes of the circuit have the value that follows from what comes in there. Attention, embeddings,
decoder biases and skip connections are never changed.

Shapes: N prompts, S positions, D width, L latents of a layer, K active ones per token, Y layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clearnets.coders import objective
from clearnets.coders.written import Written
from clearnets.coders.written import of_coders as plain_of_coders
from clearnets.models import hookpoints, sparse_ops

if TYPE_CHECKING:
    from sparsify import SparseCoder

    from clearnets.models.latent_encoders import LatentEncoder

ROWS = 64
"""Prompts of one forward pass."""


class Questions(NamedTuple):
    """Prompts of one task, with the right and the wrong next token of each."""

    tokens_NS: Tensor
    right_N: Tensor
    wrong_N: Tensor

    def batches(self) -> Iterator[Questions]:
        """Yield them some at a time."""
        yield from (Questions(*part) for part in zip(*(x.split(ROWS) for x in self)))


class Nodes(NamedTuple):
    """A number for every node.

    Attributes:
        latents_YSL: of latents.
        errors_YS: of errors.
    """

    latents_YSL: Tensor
    errors_YS: Tensor


@dataclass(frozen=True)
class Subject:
    """A model with what the latents of its layers write, and the means of its nodes.

    Attributes:
        mean_YSL, error_YSD: of latents and errors, over the prompts of a task.
    """

    model: Any
    written: Sequence[Written]
    mean_YSL: Tensor
    error_YSD: Tensor

    @classmethod
    def of(cls, model: Any, written: Sequence[Written], questions: Questions) -> Subject:
        """Take the means over some prompts."""
        length = questions.tokens_NS.shape[1]
        size, width = written[0].weight_LD.shape
        mean_YSL = written[0].weight_LD.new_zeros(len(written), length, size)
        error_YSD = mean_YSL.new_zeros(len(written), length, width)

        def add(layer: int, codes: Codes) -> None:
            mean_YSL[layer] += codes.by_latent(codes.acts_NSK.flatten(1), size)
            error_YSD[layer] += codes.error_NSD.sum(0)

        with torch.no_grad():
            for batch in questions.batches():
                with hooked(model, written, add):
                    model.base_model(batch.tokens_NS, use_cache=False)
        count = len(questions.tokens_NS)
        return cls(model, written, mean_YSL / count, error_YSD / count)

    def everything(self, value: float) -> Nodes:
        """Return the same number for every node."""
        like = self.mean_YSL
        return Nodes(torch.full_like(like, value), torch.full_like(like[:, :, 0], value))


@dataclass
class Codes:
    """What one layer's latents do at all positions of some prompts.

    Attributes:
        acts_NSK, indices_NSK: the active latents.
        error_NSD: what the feedforward writes besides.
        rest_NSD: what is never changed: bias and skip connection.
    """

    acts_NSK: Tensor
    indices_NSK: Tensor
    error_NSD: Tensor
    rest_NSD: Tensor

    @classmethod
    def read(cls, written: Written, x_NSD: Tensor, y_NSD: Tensor) -> Codes:
        x_MD, y_MD = x_NSD.flatten(0, 1), y_NSD.flatten(0, 1)
        acts_MK, indices_MK = written.encode(x_MD, y_MD)
        rest_MD = (written.bias_D + written.skipped(x_MD)).expand_as(y_MD)
        if written.whole:
            error_MD = torch.zeros_like(y_MD)
        else:
            error_MD = y_MD - rest_MD - sparse_ops.decode(acts_MK, indices_MK, written.weight_LD)
        parts = (acts_MK, indices_MK, error_MD, rest_MD)
        return cls(*(part.unflatten(0, x_NSD.shape[:2]) for part in parts))

    @classmethod
    def native(
        cls, encoder: LatentEncoder, written: Written, x_NSD: Tensor, active_NSK: Tensor | None
    ) -> Codes:
        """Return the codes of a layer that is sparse by construction, from its input.

        Args:
            active_NSK: which latents are active, whether or not others are larger; None leaves
                the choice to the layer.
        """
        x_MD = x_NSD.flatten(0, 1)
        if active_NSK is None:
            acts_MK, indices_MK = written.encode(x_MD, x_MD)
        else:
            indices_MK = active_NSK.flatten(0, 1)
            every_ML = encoder.products(x_MD) + encoder.bias
            acts_MK = every_ML.gather(1, indices_MK).relu()
            acts_MK = nn.functional.gelu(acts_MK) if encoder.gelu else acts_MK
        shape = x_NSD.shape[:2]
        acts_NSK, indices_NSK = acts_MK.unflatten(0, shape), indices_MK.unflatten(0, shape)
        error_NSD = torch.zeros_like(x_NSD)
        return cls(acts_NSK, indices_NSK, error_NSD, written.bias_D.expand_as(x_NSD))

    def written(self, written: Written) -> Tensor:
        """Return what the latents write, (N, S, D)."""
        flat = (self.acts_NSK.flatten(0, 1), self.indices_NSK.flatten(0, 1))
        return sparse_ops.decode(*flat, written.weight_LD).unflatten(0, self.acts_NSK.shape[:2])

    def output(self, written: Written) -> Tensor:
        """Return the whole output of the feedforward, (N, S, D)."""
        return self.rest_NSD + self.written(written) + self.error_NSD

    def by_latent(self, values_NZ: Tensor, size: int) -> Tensor:
        """Return for values (N, S * K) of the active latents their sums over prompts, (S, L)."""
        _, length, _ = self.indices_NSK.shape
        start_S1 = torch.arange(length, device=values_NZ.device)[:, None] * size
        place_NZ = (self.indices_NSK + start_S1).flatten(1)
        sums = values_NZ.new_zeros(length * size)
        for place_Z, values_Z in zip(place_NZ, values_NZ):
            sums.index_add_(0, place_Z, values_Z)
        return sums.view(length, size)


Act = Callable[[int, Codes], Tensor | None]


@contextmanager
def hooked(
    model: Any, written: Sequence[Written], act: Act, active: Sequence[Tensor] = ()
) -> Iterator[None]:
    """Call `act` with each layer's number and codes; it may return another output.

    Args:
        active: by layer, which latents of a model that is sparse by construction are active,
            (N, S, K), whatever comes in; without it the model chooses.
    """

    def hook(layer: int) -> Any:
        def on_mlp(_: Any, args: tuple[Tensor, ...], y_NSD: Tensor) -> Any:
            return act(layer, Codes.read(written[layer], args[0], y_NSD))

        return on_mlp

    def in_place_of(layer: int, encoder: LatentEncoder) -> Any:
        def forward(x_NSD: Tensor) -> Tensor:
            held = active[layer] if active else None
            codes = Codes.native(encoder, written[layer], x_NSD, held)
            output_NSD = act(layer, codes)
            return codes.output(written[layer]) if output_NSD is None else output_NSD

        return forward

    with ExitStack() as stack:
        for layer, module in enumerate(hookpoints.modules(model)):
            encoder = _encoder(model, layer)
            if encoder is None:
                stack.callback(module.register_forward_hook(hook(layer)).remove)
            else:  # Such a layer is its latents, which need not be computed twice.
                module.forward = in_place_of(layer, encoder)
                stack.callback(delattr, module, "forward")
        yield


def answers_of(model: Any, batch: Questions) -> Tensor:
    """Return the logit of the right minus that of the wrong token, (N,)."""
    last_ND = model.base_model(batch.tokens_NS, use_cache=False).last_hidden_state[:, -1]
    weight_VD = model.get_output_embeddings().weight
    return (last_ND * (weight_VD[batch.right_N] - weight_VD[batch.wrong_N])).sum(-1)


@torch.no_grad()
def answers(model: Any, questions: Questions) -> np.ndarray:
    """Return the logit differences (N,) of a model as it is."""
    parts = [answers_of(model, batch) for batch in questions.batches()]
    return torch.cat(parts).double().numpy(force=True)


@torch.no_grad()
def run(subject: Subject, questions: Questions, kept: Nodes) -> np.ndarray:
    """Return the logit differences (N,) of a circuit.

    Args:
        kept: 1 for the nodes of the circuit and 0 for all others.
    """
    place_S1 = torch.arange(questions.tokens_NS.shape[1], device=kept.errors_YS.device)[:, None]
    held_YSD = torch.stack(
        [
            ((1 - own_SL) * mean_SL) @ written.weight_LD
            for own_SL, mean_SL, written in zip(kept.latents_YSL, subject.mean_YSL, subject.written)
        ]
    )

    def act(layer: int, codes: Codes) -> Tensor:
        on_NSK = kept.latents_YSL[layer][place_S1, codes.indices_NSK]
        kept_S1 = kept.errors_YS[layer][:, None]
        error_NSD = kept_S1 * codes.error_NSD + (1 - kept_S1) * subject.error_YSD[layer]
        on = replace(codes, acts_NSK=codes.acts_NSK * on_NSK)
        written_NSD = on.written(subject.written[layer])
        return codes.rest_NSD + held_YSD[layer] + written_NSD + error_NSD

    with hooked(subject.model, subject.written, act):
        return answers(subject.model, questions)


@dataclass
class Gradients:
    """What one pass computes with all nodes a share of the way from their mean to their value.

    Attributes:
        seen: by layer, its codes and what goes on from it.
    """

    subject: Subject
    share: float
    seen: list[tuple[Codes, Tensor]] = field(default_factory=list)

    def act(self, layer: int, codes: Codes) -> Tensor:
        written = self.subject.written[layer]
        mean_SD = self.subject.mean_YSL[layer] @ written.weight_LD
        value_NSD = codes.written(written) + codes.error_NSD
        mean_SD = mean_SD + self.subject.error_YSD[layer]
        output_NSD = codes.rest_NSD + mean_SD + self.share * (value_NSD - mean_SD)
        if not output_NSD.requires_grad:
            output_NSD.requires_grad_()
        output_NSD.retain_grad()
        self.seen.append((codes, output_NSD))
        return output_NSD

    def effects(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield by layer the derivatives by each node's share of the way, summed over prompts."""
        for layer, (codes, output_NSD) in enumerate(self.seen):
            weight_LD, grad_NSD = self.subject.written[layer].weight_LD, output_NSD.grad
            assert grad_NSD is not None
            flat = (grad_NSD.flatten(0, 1), weight_LD, codes.indices_NSK.flatten(0, 1))
            slope_NSK = sparse_ops.row_products(*flat).view_as(codes.acts_NSK)
            change_NZ = (slope_NSK * codes.acts_NSK).detach().flatten(1)
            active_SL = codes.by_latent(change_NZ, len(weight_LD))
            mean_SL = self.subject.mean_YSL[layer] * (grad_NSD.sum(0) @ weight_LD.mT)
            from_mean_NSD = codes.error_NSD.detach() - self.subject.error_YSD[layer]
            yield active_SL - mean_SL, (grad_NSD * from_mean_NSD).sum((0, 2))


def _encoder(model: Any, layer: int) -> LatentEncoder | None:
    """Return what chooses the active latents of a layer that is sparse by construction."""
    return getattr(hookpoints.modules(model)[layer], "encoder", None)


def of_coders(coders: Sequence[SparseCoder]) -> list[Written]:
    """Return what coders write, by layer, with codes that autograd goes through."""

    def encode(coder: SparseCoder, x_ND: Tensor, y_ND: Tensor) -> tuple[Tensor, Tensor]:
        made = objective.forward(coder, x_ND if coder.cfg.transcode else y_ND)
        return made.acts_Nk, made.indices_Nk

    for coder in coders:
        coder.requires_grad_(False)
    plain = plain_of_coders(coders)
    return [replace(one, encode=partial(encode, coder)) for one, coder in zip(plain, coders)]


def active_latents(subject: Subject, questions: Questions) -> list[list[Tensor]]:
    """Return by batch and layer which latents are active as the model is, (n, S, K); nothing of a
    dense model."""
    found: list[list[Tensor]] = []
    for batch in questions.batches():
        layers: list[Tensor] = []
        if _encoder(subject.model, 0) is not None:
            with (
                torch.no_grad(),
                hooked(
                    subject.model,
                    subject.written,
                    lambda _, codes, layers=layers: layers.append(codes.indices_NSK),
                ),
            ):
                subject.model.base_model(batch.tokens_NS, use_cache=False)
        found.append(layers)
    return found


def gradients(subject: Subject, questions: Questions, shares: Sequence[float]) -> list[Nodes]:
    """Return the derivatives of the mean logit difference by how far each node is between its mean
    (0) and its value (1), for each of some shares of the way that all nodes are.

    At 1 this is attribution patching (Nanda 2023), against the mean.
    """
    totals = [subject.everything(0.0) for _ in shares]
    for batch, active in zip(questions.batches(), active_latents(subject, questions)):
        for share, total in zip(shares, totals):
            one = Gradients(subject, share)
            with torch.enable_grad(), hooked(subject.model, subject.written, one.act, active):
                answers_of(subject.model, batch).sum().backward()
            for layer, (latents_SL, errors_S) in enumerate(one.effects()):
                total.latents_YSL[layer] += latents_SL / len(questions.tokens_NS)
                total.errors_YS[layer] += errors_S / len(questions.tokens_NS)
    return totals


class Effects(NamedTuple):
    """Effects of all nodes on the mean logit difference, by two ways."""

    integrated: Nodes
    patching: Nodes


def effects(subject: Subject, questions: Questions, steps: int) -> Effects:
    """Return integrated gradients (Sundararajan et al. 2017) of all nodes from their means to their
    values, by Gauss and Legendre's rule, and attribution patching.

    All nodes go together, and what follows from them is computed anew at each step; only which
    native latents are active is held as in the model as it is. So the sum over all nodes is what
    they change together: jumps, which have no gradient, are left out at no cost at either end.
    """
    at, weight = np.polynomial.legendre.leggauss(steps)
    *inner, patching = gradients(subject, questions, [*((at + 1) / 2).tolist(), 1.0])
    integrated = subject.everything(0.0)
    for part, found in zip(weight / 2, inner):
        for sums, slopes in zip(integrated, found):
            sums += float(part) * slopes
    return Effects(integrated, patching)


def ranked(found: Nodes) -> Tensor:
    """Return the latents by falling absolute effect, as places in (Y, S, L) laid out flat; those
    without any effect are left out."""
    size_Z = found.latents_YSL.abs().flatten()
    order_Z = size_Z.argsort(descending=True, stable=True)
    return order_Z[: int((size_Z > 0).sum())]


def circuit(subject: Subject, members_Z: Tensor, *, errors: bool) -> Nodes:
    """Return the circuit of some latents, with all error nodes or none."""
    kept = subject.everything(0.0)
    kept.latents_YSL.view(-1)[members_Z] = 1.0
    kept.errors_YS.fill_(float(errors))
    return kept


def ablations(subject: Subject, questions: Questions, nodes_Z: Sequence[int]) -> np.ndarray:
    """Return how much the mean logit difference falls when single latents have their mean."""
    whole = answers(subject.model, questions).mean()
    found = []
    for node in nodes_Z:
        kept = subject.everything(1.0)
        kept.latents_YSL.view(-1)[node] = 0.0
        found.append(whole - run(subject, questions, kept).mean())
    return np.array(found)


def differences(
    subject: Subject, questions: Questions, order_Z: Tensor, sizes: Sequence[int], chance_Z: Tensor
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield kind, number of latents and logit differences (N,) of circuits.

    Args:
        order_Z: latents by falling effect.
        chance_Z: the same in random order.
    """
    every, none = subject.everything(1.0), subject.everything(0.0)
    yield "whole", len(order_Z), answers(subject.model, questions)
    yield "none", 0, run(subject, questions, none)
    if not subject.written[0].whole:
        yield "errors", 0, run(subject, questions, none._replace(errors_YS=every.errors_YS))
        latents = every._replace(errors_YS=none.errors_YS)
        yield "latents", len(order_Z), run(subject, questions, latents)
    for size in sizes:
        best = circuit(subject, order_Z[:size], errors=True)
        yield "kept", size, run(subject, questions, best)
        if not subject.written[0].whole:
            yield "alone", size, run(subject, questions, best._replace(errors_YS=none.errors_YS))
    for size in sizes[1::2]:
        best = circuit(subject, order_Z[:size], errors=False)
        others = Nodes(every.latents_YSL - best.latents_YSL, every.errors_YS)
        yield "without", size, run(subject, questions, others)
        drawn = circuit(subject, chance_Z[:size], errors=True)
        yield "random", size, run(subject, questions, drawn)
