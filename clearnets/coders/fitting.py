"""Fit the coders of families on the pair of one training seed: model, text, weights and trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.coders import batches, cross_layer, end_to_end, library, training
from clearnets.coders.training import Chain, separately
from clearnets.config import Config
from clearnets.data.tokens import open_tokens
from clearnets.families import FAMILIES
from clearnets.models.loading import load
from clearnets.models.matching import attention_within, checkpoint_of
from clearnets.models.untrained import untrained as begun
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime, progress

if TYPE_CHECKING:
    import torch
    from sparsify import SparseCoder

    from clearnets.families import FamilySpec


@dataclass(frozen=True)
class Fitted:
    """Coders of some layers of a family.

    Attributes:
        coders: by hookpoint.
        told: steps, tokens, and by layer how the training ended.
        model: that they read.
    """

    coders: Mapping[str, SparseCoder]
    told: dict[str, Any]
    model: Any


def fit(
    config: Config,
    seed: int,
    states: Mapping[str, Path],
    layers: Sequence[int],
    runtime: Runtime,
    *,
    label: str,
) -> dict[str, Fitted]:
    """Train the coders of families that read one model, or leave untrained ones centred.

    Args:
        config: with the recipe.
        seed: of training.
        states: by family, the file of the resume state.
        layers: to train; all of them for families that are trained jointly.
        runtime: where.
        label: of the progress bar.
    """
    device, settings, store = runtime.torch_device(), config.coders, open_tokens(paths.data())
    within, split = attention_within(seed), store.split("train")
    rows = batches.plan_rows(
        len(split),
        tokens=settings.tokens,
        batch_size=settings.batch_size,
        grad_acc_steps=settings.grad_acc_steps,
        ctx_len=store.ctx_len,
        seed=seed,
    )
    first = FAMILIES[next(iter(states))]
    model = _model(seed, device, first)
    chains = [
        _chain(config, family, seed, layers, model, state) for family, state in states.items()
    ]
    steps = len(rows) // settings.grad_acc_steps if first.trained else 0
    tokens_per_step = settings.batch_size * settings.grad_acc_steps * store.ctx_len
    with progress(label, steps * tokens_per_step, "tokens") as bar:
        reports = training.train(
            model,
            chains,
            lambda some: batches.make_batch(
                store, split[rows[some.start : some.stop].ravel()], device, within=within
            ),
            training.Schedule.of(settings, steps, first.name),
            per_read=max(1, training.READ_TOKENS // (settings.batch_size * store.ctx_len)),
            on_step=lambda _: bar.advance(tokens_per_step),
        )
    numbers = {"steps": steps, "tokens": steps * tokens_per_step}
    return {
        family: Fitted(chain.coders, numbers | {"layers": report.layers()}, model)
        for family, chain, report in zip(states, chains, reports, strict=True)
    }


def _model(seed: int, device: torch.device, family: FamilySpec) -> Any:
    """Return the model that a family reads, as trained or before, frozen."""
    trained = checkpoint_of(family, seed)
    model: Any = begun(trained, seed) if family.untrained_model else load(trained)
    return model.to(device).requires_grad_(False)


def _chain(
    config: Config, family: str, seed: int, layers: Sequence[int], model: Any, state: Path
) -> Chain:
    """Return new coders of some layers, and what they are trained on."""
    spec, coders = FAMILIES[family], _new_coders(config, family, seed, layers, model)
    add_gradient: Any = separately
    if spec.cross_layer:
        cross_layer.extend(coders)
        add_gradient = cross_layer.add_gradient
    if spec.objective == "kl":
        add_gradient = partial(end_to_end.add_gradient, model, fvu=config.coders.end_to_end_fvu)
    return Chain(coders, state, add_gradient, config.coders.rate(family))


def _new_coders(
    config: Config, family: str, seed: int, layers: Sequence[int], model: Any
) -> dict[str, SparseCoder]:
    """Return the coders of some layers at their initial weights, on the model's device."""
    return {
        name: library.new_coder(
            name,
            **FAMILIES[family].coder_kind,
            d_in=model.config.hidden_size,
            num_latents=config.model.num_latents,
            k=config.model.k,
            seed=seed,
            multi_topk=config.coders.multi_topk and not FAMILIES[family].joint,
        ).to(model.device)
        for name in config.hookpoints(family, layers)
    }
