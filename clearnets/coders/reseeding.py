"""Train the coders of one model once more, with other initial weights and another order of text.

What is the same: the model, its layers, the recipe, the number of tokens. What `fitting.fit` names
by the training seed, the model among it, is named by two seeds here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearnets.coders import batches, library, training
from clearnets.config import Config
from clearnets.data.tokens import open_tokens
from clearnets.families import FAMILIES
from clearnets.models.loading import load
from clearnets.models.matching import attention_within, checkpoint_of
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import Runtime, progress, seed_for

if TYPE_CHECKING:
    from sparsify import SparseCoder


def refit(
    config: Config,
    seed: int,
    states: Mapping[str, Path],
    layers: Sequence[int],
    runtime: Runtime,
    *,
    label: str,
) -> dict[str, training.Chain]:
    """Train the coders of families of one model at some layers; return them by family.

    Args:
        config: with the recipe.
        seed: training seed of the model; the coders' own follows from it.
        states: by family, the file of the resume state. Untrained families are only centred.
        layers: to train.
        runtime: where.
        label: of the progress bar.
    """
    device, settings, store = runtime.torch_device(), config.coders, open_tokens(paths.data())
    first, own_seed = FAMILIES[next(iter(states))], seed_for(seed, "again")
    model: Any = load(checkpoint_of(first, seed))
    model.to(device).requires_grad_(False)
    within, split = attention_within(seed), store.split("train")
    rows = batches.plan_rows(
        len(split),
        tokens=settings.tokens,
        batch_size=settings.batch_size,
        grad_acc_steps=settings.grad_acc_steps,
        ctx_len=store.ctx_len,
        seed=own_seed,
    )
    chains = {
        family: training.Chain(
            _new_coders(config, family, own_seed, layers, model),
            state,
            learning_rate=settings.rate(family),
        )
        for family, state in states.items()
    }
    steps = len(rows) // settings.grad_acc_steps if first.trained else 0
    tokens_per_step = settings.batch_size * settings.grad_acc_steps * store.ctx_len
    with progress(label, steps * tokens_per_step, "tokens") as bar:
        training.train(
            model,
            list(chains.values()),
            lambda some: batches.make_batch(
                store, split[rows[some.start : some.stop].ravel()], device, within=within
            ),
            training.Schedule.of(settings, steps, first.name),
            per_read=max(1, training.READ_TOKENS // (settings.batch_size * store.ctx_len)),
            on_step=lambda _: bar.advance(tokens_per_step),
        )
    return chains


def _new_coders(
    config: Config, family: str, own_seed: int, layers: Sequence[int], model: Any
) -> dict[str, SparseCoder]:
    """Return the coders of some layers at their initial weights, on the model's device."""
    return {
        name: library.new_coder(
            name,
            **FAMILIES[family].coder_kind,
            d_in=model.config.hidden_size,
            num_latents=config.model.num_latents,
            k=config.model.k,
            seed=own_seed,
            multi_topk=config.coders.multi_topk,
        ).to(model.device)
        for name in config.hookpoints(family, layers)
    }
