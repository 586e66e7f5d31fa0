"""Links of a circuit: what its latents do to the answer through each other.

The link from a latent u to a later latent v is the part of u's effect on the answer that v passes
on and that reaches v on no way through other nodes:

    mean over prompts of  (u - mean of u) * dv/du * dm/dv

m is the logit difference; dm/dv has all that follows from v; dv/du goes through attention, norms
and skip connections, while all that feedforwards write in between is held. The link from u to the
answer has m in the place of v, and no dm/dv. So the links from u to all latents, all error nodes
and the answer sum to u's effect by attribution patching.

Shapes: N prompts, S positions, D width, Z latents that may be linked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearnets.coders.circuits import (
    Codes,
    Gradients,
    Questions,
    Subject,
    active_latents,
    answers_of,
    hooked,
)


class Node(NamedTuple):
    """A latent at a position."""

    layer: int
    position: int
    latent: int

    def value(self, codes: Codes) -> Tensor:
        """Return its values (N,) among those of its layer."""
        own_NK = codes.indices_NSK[:, self.position] == self.latent
        return (codes.acts_NSK[:, self.position] * own_NK).sum(-1)

    def written(self, subject: Subject) -> Tensor:
        """Return what a unit of it writes, (D,)."""
        return subject.written[self.layer].weight_LD[self.latent]

    def mean(self, subject: Subject) -> Tensor:
        """Return its mean."""
        return subject.mean_YSL[self.layer, self.position, self.latent]

    def before(self, other: Node) -> bool:
        """Return whether it can change another one."""
        return self.layer < other.layer and self.position <= other.position


def nodes(subject: Subject, nodes_Z: Sequence[int]) -> list[Node]:
    """Return latents by their places in (Y, S, L) laid out flat."""
    places = np.unravel_index(list(nodes_Z), subject.mean_YSL.shape)
    return [Node(*map(int, place)) for place in zip(*places)]


@dataclass
class _Cut:
    """A pass in which no layer's output depends on what comes in there, but for skip connections.

    Attributes:
        seen: by layer, its codes and what it writes, as a variable of its own.
    """

    subject: Subject
    seen: list[tuple[Codes, Tensor]] = field(default_factory=list)

    def act(self, layer: int, codes: Codes) -> Tensor:
        written_NSD = codes.written(self.subject.written[layer]) + codes.error_NSD
        own_NSD = written_NSD.detach().requires_grad_()
        self.seen.append((codes, own_NSD))
        return codes.rest_NSD + own_NSD


def links(subject: Subject, questions: Questions, linked: Sequence[Node]) -> np.ndarray:
    """Return the weights of links in logits, (Z, Z + 1): from each latent (row) to each later one,
    0 to all others, and in the last column to the answer."""
    weights = np.zeros((len(linked), len(linked) + 1))
    for batch, held in zip(questions.batches(), active_latents(subject, questions)):
        total, cut = Gradients(subject, 1.0), _Cut(subject)
        with torch.enable_grad():
            with hooked(subject.model, subject.written, total.act, held):
                answers_of(subject.model, batch).sum().backward()
            with hooked(subject.model, subject.written, cut.act, held):
                answer = answers_of(subject.model, batch).sum()
            ends = [*_ends(subject, linked, total, cut), (len(linked), answer)]
            for column, end in ends:
                weights[:, column] += _reaching(subject, linked, cut, end)
    return weights / len(questions.tokens_NS)


def _ends(
    subject: Subject, linked: Sequence[Node], total: Gradients, cut: _Cut
) -> Iterator[tuple[int, Tensor]]:
    """Yield each latent that others stand before, and its value times its slope, over prompts."""
    for column, node in enumerate(linked):
        if any(other.before(node) for other in linked):
            grad_NSD = total.seen[node.layer][1].grad
            assert grad_NSD is not None
            slope_N = grad_NSD[:, node.position] @ node.written(subject)
            yield column, (node.value(cut.seen[node.layer][0]) * slope_N).sum()


def _reaching(subject: Subject, linked: Sequence[Node], cut: _Cut, end: Tensor) -> np.ndarray:
    """Return the effect (Z,) of each latent on a number, summed over prompts."""
    own = [own_NSD for _, own_NSD in cut.seen]
    grads = torch.autograd.grad(end, own, retain_graph=True, allow_unused=True)
    found = np.zeros(len(linked))
    for row, node in enumerate(linked):
        grad_NSD = grads[node.layer]
        if grad_NSD is not None:
            change_N = node.value(cut.seen[node.layer][0]) - node.mean(subject)
            slope_N = grad_NSD[:, node.position] @ node.written(subject)
            found[row] = float((change_N * slope_N).sum().detach())
    return found


@torch.no_grad()
def cut_links(
    subject: Subject, questions: Questions, pairs: Sequence[tuple[Node, Node | None]]
) -> np.ndarray:
    """Return how much the mean logit difference falls when one link after the other is cut: when
    its target, and nothing else, sees its source at its mean. None is the answer."""
    lost = np.zeros(len(pairs))
    for batch in questions.batches():
        plain: list[Codes] = []
        with hooked(subject.model, subject.written, lambda _, codes, to=plain: to.append(codes)):
            whole_N = answers_of(subject.model, batch)
        for number, (source, target) in enumerate(pairs):
            without_N = _without(subject, batch, plain, source, target)
            lost[number] += float((whole_N - without_N).sum())
    return lost / len(questions.tokens_NS)


def _without(
    subject: Subject, batch: Questions, plain: Sequence[Codes], source: Node, target: Node | None
) -> Tensor:
    """Return the logit differences (N,) with one link cut, given the codes of the plain model."""
    held = [codes.output(written) for codes, written in zip(plain, subject.written)]
    change_N = source.mean(subject) - source.value(plain[source.layer])
    held[source.layer][:, source.position] += change_N[:, None] * source.written(subject)
    seen: list[Codes] = []

    def hold(layer: int, codes: Codes) -> Tensor:
        seen.append(codes)
        return held[layer]

    with hooked(subject.model, subject.written, hold):
        without_N = answers_of(subject.model, batch)
    if target is None:
        return without_N
    own_N = target.value(seen[target.layer]) - target.value(plain[target.layer])
    return _moved(subject, batch, target, own_N)


def _moved(subject: Subject, batch: Questions, node: Node, change_N: Tensor) -> Tensor:
    """Return the logit differences (N,) with one latent changed."""

    def move(layer: int, codes: Codes) -> Tensor | None:
        if layer != node.layer:
            return None
        output_NSD = codes.output(subject.written[layer])
        output_NSD[:, node.position] += change_N[:, None] * node.written(subject)
        return output_NSD

    with hooked(subject.model, subject.written, move):
        return answers_of(subject.model, batch)
