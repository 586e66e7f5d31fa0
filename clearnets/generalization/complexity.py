"""Complexity measures of a trained classifier that predict its generalization gap.

They need training data only, and take functions and tensors, no model classes: `classify` maps
inputs to logits, `loss` maps named weights to a scalar. Random draws come from the generator that
is passed in. Where there is nothing to measure the value is NaN.

Shape suffixes: N inputs, P mixed pairs, C classes, D features, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Classify = Callable[[Tensor], Tensor]
Loss = Callable[[Weights], Tensor]
NAN = float("nan")
# Mixed inputs that are classified at a time.
BATCH = 1024
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def davies_bouldin(features_ND: Tensor, labels_N: Tensor) -> float:
    """Return the Davies–Bouldin index of a layer's features by class, at least 0.

    Lower is better separated. Mean over classes of the worst ratio of the spreads of two classes to
    the distance of their centres (Davies and Bouldin 1979), by scikit-learn. No units. NaN with
    fewer than two classes, or where no class has two members.
    """
    from sklearn.metrics import davies_bouldin_score

    classes = len(labels_N.unique())
    if not 1 < classes < len(labels_N):
        return NAN
    features = features_ND.detach().reshape(len(features_ND), -1).double().cpu().numpy()
    return float(davies_bouldin_score(features, labels_N.cpu().numpy()))


@torch.no_grad()
def mixup_accuracy(
    classify: Classify,
    inputs_N: Tensor,
    labels_N: Tensor,
    *,
    pairs: int,
    rng: torch.Generator,
) -> float:
    """Return the share of midpoints of two inputs of a class that are assigned to that class.

    From 0 to 1: the mean over classes, each over all of its pairs or over `pairs` drawn at random
    where it has more (Natekar and Sharma 2020, label-wise mixup at 0.5). NaN where no class has a
    pair.

    Args:
        classify: inputs (P, ...) -> logits (P, C).
        inputs_N: (N, ...), floating point; for tokens their embeddings.
        labels_N: (N,) integers below C, on the CPU or where the inputs are.
        pairs: at most this many of each class.
        rng: a generator of the CPU.
    """
    shares = []
    for label in labels_N.unique():
        members = (labels_N == label).nonzero().reshape(-1)
        i_P, j_P = torch.triu_indices(len(members), len(members), offset=1)
        if not len(i_P):
            continue
        if len(i_P) > pairs:
            drawn_P = torch.randperm(len(i_P), generator=rng)[:pairs]
            i_P, j_P = i_P[drawn_P], j_P[drawn_P]
        first_P, second_P = members[i_P.to(members.device)], members[j_P.to(members.device)]
        right = 0
        for at in torch.arange(len(first_P)).split(BATCH):
            mixed = (inputs_N[first_P[at]] + inputs_N[second_P[at]]) / 2
            right += int((classify(mixed).argmax(dim=-1) == label).sum())
        shares.append(right / len(first_P))
    return sum(shares) / len(shares) if shares else NAN


def pgdl(separation: float, mixup: float) -> float:
    """Return the measure that won "Predicting Generalization in Deep Learning" (PGDL).

    It is index × (1 - accuracy), at least 0, no units; higher should generalize worse. `separation`
    is the Davies–Bouldin index of an early layer's features of training data, `mixup` their mixup
    accuracy (Natekar and Sharma 2020, "Representation based complexity measures"). It is 0 for all
    models that classify every mixed pair right.
    """
    return separation * (1 - mixup)


@torch.no_grad()
def average_sharpness(
    loss: Loss, weights: Weights, *, size: float, draws: int, rng: torch.Generator
) -> float:
    """Return the mean rise of the loss when every weight moves by ± `size` of its magnitude.

    In the units of the loss: E[L(w + size·|w|·ε) - L(w)] over random signs ε, each draw with its
    opposite, so that the slope at w cancels. For a quadratic loss with diagonal curvature h it is
    size²/2 · Σ h w² from one draw. Magnitude-aware as in Jiang et al. 2020; as the step is purely
    relative, rescaling a ReLU unit's input weights by c and its output weights by 1/c changes
    nothing (Dinh et al. 2017). Any sign; near 0 for a flat minimum.
    """
    start = loss(weights).double()
    total = torch.zeros((), dtype=torch.float64)
    for _ in range(draws):
        step = {name: size * w.abs() * _signs(w, rng) for name, w in weights.items()}
        for sign in (1, -1):
            moved = {name: w + sign * step[name] for name, w in weights.items()}
            total += (loss(moved).double() - start).cpu()
    return float(total) / (2 * draws)


def margins(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Return normalised output margins (N,) in float64; negative where the answer is wrong.

    No units. (f_y - max f_other) / (√2 ν), ν² the total variance of the logits over the N inputs:
    the distance to the decision boundary in logit space in units of the logits' spread, which does
    not change when all logits are scaled (Jiang et al. 2019, at the last layer). All NaN where the
    logits do not vary.
    """
    logits_NC = logits_NC.detach().double()
    own_N1 = labels_N.reshape(-1, 1)
    right_N = logits_NC.gather(1, own_N1).squeeze(1)
    other_N = logits_NC.scatter(1, own_N1, -math.inf).max(dim=1).values
    spread = logits_NC.var(dim=0, correction=0).sum().sqrt()
    spread = torch.where(spread > 0, spread, torch.nan)
    return (right_N - other_N) / (math.sqrt(2) * spread)


def margin_quantiles(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Return quantiles of the margins by name: `margin_q10`, `margin_q25`, ... (see `margins`).

    Jiang et al. 2019 predict the gap from such quantiles; linear interpolation between values.
    """
    values_N = margins(logits_NC, labels_N)
    at_Q = torch.tensor(QUANTILES, dtype=torch.float64, device=values_N.device)
    found = torch.quantile(values_N, at_Q).tolist()
    return {f"margin_q{100 * q:g}": value for q, value in zip(QUANTILES, found)}


def _signs(like: Tensor, rng: torch.Generator) -> Tensor:
    return (2 * torch.randint(0, 2, like.shape, generator=rng) - 1).to(like)
