"""What an experiment costs before it is run: parameters, FLOPs, and the coders' fair budget.

Pure arithmetic on the parameters, and the config of a pretrained model; nothing is trained or
loaded. The sparse model spends more per token than its dense twin. That surplus, spent on coders of
the twin instead, is the budget within which SAEs and transcoders cost no more than sparsity by
construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from clearnets import bases, compute
from clearnets.compute import Architecture
from clearnets.config import TRAINED_CODERS, Config, Mlp, Pretrained


@dataclass(frozen=True)
class Cost:
    """One model, or the coders of one family for all layers together.

    Attributes:
        name: feedforward mode or family.
        parameters: weights and biases.
        forward, training: FLOPs per token; a coder's training includes running the model it reads.
        tokens: training tokens that the parameters ask for.
    """

    name: str
    parameters: int
    forward: int
    training: int
    tokens: int

    @property
    def total(self) -> int:
        """FLOPs of the whole training."""
        return self.training * self.tokens


def architecture(config: Config, mlp: str) -> Architecture:
    """Sizes of the experiment's model with this feedforward; a pretrained one is as it is."""
    model = config.model
    if isinstance(model, Pretrained):
        return Architecture.of(bases.read_config(model.member(mlp)), config.data.ctx_len)
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
    """Parameters of a GPT-NeoX with untied embeddings and biases, in closed form."""
    d, inner, latents = sizes.hidden_size, sizes.intermediate_size, sizes.num_latents
    match sizes.mlp:
        case "dense":
            mlp = d * inner + inner + inner * d + d
        case "sparse_low_rank":
            mlp = 2 * d * sizes.rank + 2 * latents * sizes.rank + latents + d
        case _:
            mlp = 2 * latents * d + latents + d
    attention = 4 * (d * d + d)
    norms = 4 * d
    return (attention + norms + mlp) * sizes.num_hidden_layers + 2 * d + 2 * d * sizes.vocab_size


def models(config: Config) -> list[Cost]:
    """Every feedforward mode, trained on the experiment's tokens; or a base, trained elsewhere."""
    if isinstance(config.model, Pretrained):
        costs = []
        for mlp in config.models:
            flops = compute.model(architecture(config, mlp))
            size = _parameters_of(config.model.member(mlp))
            costs.append(Cost(mlp, size, flops.forward, flops.training, 0))
        return costs
    rows = config.data.tokens.train // config.data.ctx_len * config.train.epochs
    steps = rows // config.train.batch_size
    tokens = steps * config.train.batch_size * config.data.ctx_len
    costs = []
    for mlp in get_args(Mlp):
        sizes = architecture(config, mlp)
        flops = compute.model(sizes)
        costs.append(Cost(mlp, parameters(sizes), flops.forward, flops.training, tokens))
    return costs


def coders(config: Config) -> list[Cost]:
    """Every trained coder family on the dense model, all layers together."""
    model, settings = config.model, config.coders
    sizes = {"d_in": model.hidden_size, "num_latents": model.num_latents, "k": model.k}
    reading = compute.trunk(architecture(config, "dense")).forward
    step = settings.batch_size * settings.grad_acc_steps * config.data.ctx_len
    tokens = settings.tokens // step * step
    costs = []
    for family in TRAINED_CODERS:
        flops = compute.coder(family, **sizes, multi_topk=settings.multi_topk) * model.num_layers
        weights = 2 * model.num_latents * model.hidden_size + model.num_latents + model.hidden_size
        if family == "skip-transcoder":
            weights += model.hidden_size**2
        training = flops.training + reading
        costs.append(Cost(family, weights * model.num_layers, flops.forward, training, tokens))
    return costs


def _parameters_of(base: bases.Base) -> int:
    """Parameters of a base, counted on its class without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import clearnets.models  # noqa: F401  # Our own kind is one, too.

    values = bases.read_config(base)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    return model.num_parameters()


def surplus(config: Config) -> int | None:
    """Training FLOPs of the sparse model beyond its dense twin's, at equal tokens; None where the
    experiment trains no sparse model."""
    if config.sparse is None or isinstance(config.model, Pretrained):
        return None
    by_name = {cost.name: cost for cost in models(config)}
    return by_name[config.sparse].total - by_name["dense"].total


def report(config: Config) -> Iterator[str]:
    """The tables as lines of text."""
    head = ("", "parameters", "forward", "training", "tokens", "training in all")
    trained = coders(config)
    yield "FLOPs per token; coders of all layers together, their training with the model they read"
    yield ""
    yield from _columns([head, *(_cells(cost) for cost in (*models(config), *trained))])
    extra = surplus(config)
    if extra is None:
        return
    yield ""
    if extra <= 0:
        yield "The sparse model costs no more to train than its dense twin."
        return
    yield f"The sparse model costs {extra:.2e} FLOPs more to train than its dense twin: as much as"
    for cost in trained:
        yield f"{extra // cost.training:>15,} tokens of training {cost.name}s for all layers"


def _cells(cost: Cost) -> tuple[str, ...]:
    numbers = (cost.parameters, cost.forward, cost.training, cost.tokens)
    return (cost.name, *(f"{number:,}" for number in numbers), f"{cost.total:.2e}")


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Text in columns, numbers and the first row to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    for row in rows:
        cells = [
            cell.rjust(width) if cell[:1].isdigit() or row is rows[0] else cell.ljust(width)
            for cell, width in zip(row, widths)
        ]
        yield "  ".join(cells).rstrip()
