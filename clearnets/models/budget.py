"""Compute what an experiment costs before it runs: parameters, FLOPs, the coders' fair budget.

Pure arithmetic on the parameters, and the config of a pretrained model; nothing is trained or
loaded. The sparse model spends more per token than its dense twin. That surplus, spent on coders of
the twin instead, is the budget within which SAEs and transcoders cost no more than sparsity by
construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

from clearnets import UserError
from clearnets.config import Config, Pretrained
from clearnets.families import FAMILIES
from clearnets.models import flops as compute
from clearnets.models import pretrained
from clearnets.models.flops import Architecture, nearest_factors

DASH = "–"
"""Where a number is not known."""


@dataclass(frozen=True)
class Cost:
    """One model, or the coders of one family for all layers together.

    Attributes:
        name: feedforward mode or family.
        parameters: weights and biases.
        forward, training: FLOPs per token; a coder's training includes running the model it reads.
        tokens: training tokens that the parameters ask for; None for a model that is taken over.
    """

    name: str
    parameters: int
    forward: int
    training: int
    tokens: int | None

    @property
    def total(self) -> int | None:
        """FLOPs of the whole training."""
        return None if self.tokens is None else self.training * self.tokens


def architecture(config: Config, mlp: str) -> Architecture:
    """Return the sizes of the model with this feedforward; a pretrained one's are its own."""
    model = config.model
    if isinstance(model, Pretrained):
        member = model.member(mlp)
        with _readable(member):
            completed = _completed(member)
            pretrained.check_completed(model, completed, mlp)
            return Architecture.of(completed.to_dict(), config.data.ctx_len)
    return Architecture(
        mlp=mlp,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_layers,
        query_width=model.hidden_size,
        key_width=model.hidden_size,
        intermediate_size=model.hidden_size * model.mlp_ratio,
        vocab_size=config.data.vocab_size,
        ctx_len=config.data.ctx_len,
        num_latents=model.num_latents,
        k=model.k,
        rank=model.hidden_size // model.rank_ratio,
    )


def parameters(sizes: Architecture) -> int:
    """Return parameters of a GPT-NeoX with untied embeddings and biases, in closed form."""
    d, inner, latents = sizes.hidden_size, sizes.intermediate_size, sizes.num_latents
    match sizes.mlp:
        case "dense" | "dense_weight_sparse":
            mlp = d * inner + inner + inner * d + d
        case "sparse_low_rank":
            mlp = 2 * d * sizes.rank + 2 * latents * sizes.rank + latents + d
        case "sparse_product_key":
            mlp = d * d + isqrt(latents) * d + latents * d + latents + d
        case "sparse_kronecker":
            (high, wide), (rows, columns) = nearest_factors(latents), nearest_factors(d)
            mlp = high * rows + wide * columns + latents * d + latents + d
        case _:
            mlp = 2 * latents * d + latents + d
    attention = 4 * (d * d + d)
    norms = 4 * d
    return (attention + norms + mlp) * sizes.num_hidden_layers + 2 * d + 2 * d * sizes.vocab_size


def models(config: Config) -> list[Cost]:
    """Return the experiment's models, trained on its tokens; or bases, trained elsewhere."""
    if isinstance(config.model, Pretrained):
        costs = []
        for mlp in config.models:
            flops = compute.model(architecture(config, mlp))
            size = _parameters_of(config.model.member(mlp))
            costs.append(Cost(mlp, size, flops.forward, flops.training, None))
        return costs
    rows = config.data.tokens.train // config.data.ctx_len * config.train.epochs
    steps = rows // config.train.batch_size
    tokens = steps * config.train.batch_size * config.data.ctx_len
    costs = []
    for mlp in config.models:
        sizes = architecture(config, mlp)
        flops = compute.model(sizes)
        costs.append(Cost(mlp, parameters(sizes), flops.forward, flops.training, tokens))
    return costs


def coders(config: Config) -> list[Cost]:
    """Return the cost of each family of coders that is trained, all layers together."""
    model, settings = config.model, config.coders
    sizes = {"d_in": model.hidden_size, "num_latents": model.num_latents, "k": model.k}
    step = settings.batch_size * settings.grad_acc_steps * config.data.ctx_len
    tokens = settings.tokens // step * step
    costs = []
    for name in config.coder_families:
        family = FAMILIES[name]
        assert family.model, "coders read a model"
        if not family.trained or name in config.coders.existing:
            continue
        flops = compute.coder(family, **sizes, multi_topk=settings.multi_topk) * len(model.layers)
        weights = 2 * model.num_latents * model.hidden_size + model.num_latents + model.hidden_size
        if family.skip:
            weights += model.hidden_size**2
        reading = compute.trunk(architecture(config, family.model)).forward
        training = flops.training + reading
        costs.append(Cost(name, weights * len(model.layers), flops.forward, training, tokens))
    return costs


def _parameters_of(base: pretrained.Base) -> int:
    """Return parameters of a base, counted on its class without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with _readable(base), torch.device("meta"):
        return AutoModelForCausalLM.from_config(_completed(base)).num_parameters()


def completed_config(base: pretrained.Base) -> Any:
    """Return a base's config with its class's defaults for what `config.json` leaves out.

    Raises:
        UserError: as `pretrained.read_config`, or the values make no model.
    """
    with _readable(base):
        return _completed(base)


def _completed(base: pretrained.Base) -> Any:
    """Return a base's config with its class's defaults for what `config.json` leaves out."""
    from transformers import AutoConfig
    from transformers.utils import logging

    import clearnets.models.sparse_gptneox  # noqa: F401  # Registers its kind.

    verbosity = logging.get_verbosity()
    # What it warns of is refused below, or not a matter of size.
    logging.set_verbosity_error()
    try:
        return AutoConfig.for_model(**pretrained.read_config(base))
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _readable(base: pretrained.Base) -> Iterator[None]:
    """Turn what transformers, or arithmetic, says of values that make no model into one line."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (
        *(KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError),
        *(RuntimeError, StrictDataclassError),
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{pretrained.config_path(base)} describes no model ({reason:.160}); restore it"
        ) from None


def surplus(config: Config) -> dict[str, int]:
    """Return by model the training FLOPs of the dense one's twins beyond its own, at equal tokens.

    Empty where the experiment trains no twin.
    """
    totals = {cost.name: cost.total for cost in models(config) if cost.total is not None}
    return {name: total - totals["dense"] for name, total in totals.items() if name != "dense"}


def report(config: Config) -> Iterator[str]:
    """Return the tables as lines of text."""
    head = ("", "parameters", "forward", "training", "tokens", "training in all")
    trained = coders(config)
    if not config.models:
        yield "The experiment compares no models; what its tasks cost is not counted."
        return
    yield "FLOPs per token; coders of all layers together, their training with the model they read"
    yield ""
    yield from _columns([head, *(_cells(cost) for cost in (*models(config), *trained))])
    if isinstance(config.model, Pretrained):
        yield ""
        named = "The dense model is taken over as it is; how long it was"
        if len(config.models) > 1:
            named = "The models are taken over as they are; how long they were"
        yield f"{named} trained is not known."
    for mlp, extra in surplus(config).items():
        yield ""
        if extra <= 0:
            yield f"The model {mlp} costs no more to train than its dense twin."
            continue
        cost = f"costs {extra:.2e} FLOPs more to train than its dense twin: as much as"
        yield f"The model {mlp} {cost}"
        for coder in trained:
            yield f"{extra // coder.training:>15,} tokens of training {coder.name}s for all layers"


def _cells(cost: Cost) -> tuple[str, ...]:
    numbers = (cost.parameters, cost.forward, cost.training, cost.tokens)
    cells = (DASH if number is None else f"{number:,}" for number in numbers)
    return (cost.name, *cells, DASH if cost.total is None else f"{cost.total:.2e}")


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows of text in columns, all but the first aligned to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    for row in rows:
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        yield "  ".join(cells).rstrip()
