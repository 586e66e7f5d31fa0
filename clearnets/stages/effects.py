"""`clearnets effects`: what explained latents do to the next token, said in a sentence and checked.

Each latent is ablated at tokens at which it is active, one token at a time: what it adds to the
output of its feedforward is taken away. On the split `explain` this gives a sentence that names the
words that it moves most, and on `score` it is seen how well the sentence names what it moves there.
Two more sentences are made for comparison, from the logit lens of the latent's direction and from
that of a random direction; and random directions of the same size are taken away at the same tokens
of `score`.

effects.jsonl   a record per explained latent: layer, latent; tokens_explain, tokens_score: at how
                many tokens it was ablated; and where these are enough, else null: divergence of the
                prediction, divergence_random of that with the random direction, and cost, the rise
                in loss, all in nats per token of `score`; for each source of a sentence (effect,
                lens, random) the sentence, SOURCE_auroc and, over the sentences of all other
                latents of the layer, SOURCE_auroc_shuffled: see `autointerp.effects.agreement`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clearnets.autointerp.records import EFFECTS, EXPLAINED, EXPLANATIONS
from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_jsonl, write_jsonl
from clearnets.pipeline.runtime import Runtime, progress
from clearnets.pipeline.stage import EXECUTED, Stage

if TYPE_CHECKING:
    from clearnets.autointerp.ablated_layer import AblatedLayer
    from clearnets.autointerp.effects import Moves
    from clearnets.config import Config
    from clearnets.data.tokens import TokenStore

MADE, CHECKED = "explain", "score"
"""Splits on which sentences are made, and checked."""
FIELDS = (
    *("layer", "latent", "tokens_explain", "tokens_score"),
    *("divergence", "divergence_random", "cost"),
    *(
        f"{source}{field}"
        for source in ("effect", "lens", "random")
        for field in ("", "_auroc", "_auroc_shuffled")
    ),
)


STAGE = Stage(
    name="effects",
    does="Say what explained latents do to the next token, and check it by ablating them.",
    example="clearnets effects --aux transcoder",
    over=EXECUTED,
    params=("seeds", "threads", "effects"),
    reads=(
        *(
            "artifacts/data",
            "artifacts/match",
            "artifacts/cache/{item}",
            "artifacts/explain/{item}",
        ),
        "{source}",
    ),
    writes=("artifacts/effects/{item}",),
    on_device=True,
)


def units(config: Config, *, family: str) -> list[Unit]:
    """One unit per seed."""
    return [
        Unit(
            stage="effects",
            out=paths.effects(family, seed),
            settings={"seed": seed, "family": family, **config.dump(*STAGE.settings)},
            inputs={
                **paths.read_by(FAMILIES[family], seed),
                **{split: paths.cache(family, seed, split) for split in (MADE, CHECKED)},
                **{p: paths.explain(family, seed, p) for p in config.hookpoints(family)},
            },
        )
        for seed in config.seeds
    ]


def run(config: Config, *, runtime: Runtime, family: str) -> None:
    """Write the records of a family for every seed."""
    from clearnets.autointerp.effects import predicted
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.readers import open_model

    for unit, work in build_all(units(config, family=family)):
        store = open_tokens(paths.data())
        opened = open_model(family, unit.settings["seed"], runtime.torch_device())
        layers = _layers(config, unit, opened.model)
        made, _ = _ablate(config, unit, layers, store, opened.model, MADE)
        checked, random = _ablate(config, unit, layers, store, opened.model, CHECKED)
        lexicon = predicted(opened.model, store.strings())
        records = [
            {"layer": config.model.layers[number], **record}
            for number, layer in layers.items()
            for record in layer.records(made[number], checked[number], random[number], lexicon)
        ]
        nothing = dict.fromkeys(FIELDS)
        write_jsonl(work.out / EFFECTS, [nothing | record for record in records])


def _layers(config: Config, unit: Unit, model: Any) -> dict[int, AblatedLayer]:
    """Return the layers that have explained latents, by place among those that are read."""
    from clearnets.autointerp.ablated_layer import AblatedLayer
    from clearnets.coders.written import open_written
    from clearnets.latents.lens import Lenses

    family, seed = unit.settings["family"], unit.settings["seed"]
    written = open_written(model, FAMILIES[family], unit.inputs.get("coders"), k=config.model.k)
    lens_VD, layers = Lenses(seed).lens(family), {}
    for number, point in enumerate(config.hookpoints(family)):
        records = read_jsonl(unit.inputs[point] / EXPLANATIONS)
        latents = [record["latent"] for record in records if record["status"] == EXPLAINED]
        if latents:
            layers[number] = AblatedLayer(
                config.effects,
                (family, point, seed),
                latents,
                written[number].weight_LD[latents].numpy(force=True),
                lens_VD,
            )
    return layers


def _ablate(
    config: Config,
    unit: Unit,
    layers: dict[int, AblatedLayer],
    store: TokenStore,
    model: Any,
    split: str,
) -> tuple[dict[int, Moves], dict[int, Moves]]:
    """Return by layer what the latents move on a split, and what random directions of the same size
    move at the same places of `score`; nothing on the other."""
    import numpy as np

    from clearnets.autointerp.effects import Moves
    from clearnets.coders.batches import evenly_spaced
    from clearnets.coders.single_ablation import Copies, predict
    from clearnets.latents.store import load_layer

    tokens_RS = store.split(split)
    rows = evenly_spaced(len(tokens_RS), config.effects.rows)
    text_RS = np.asarray(tokens_RS[rows])
    latent_Q, copies, moves = {}, {}, {}
    for number, layer in layers.items():
        cache = load_layer(unit.inputs[split], layer.names[1])
        at = layer.draw(cache, rows, split)
        both_2ID = np.concatenate([layer.direction_ID, layer.random_directions()])
        halves = 1 + (split == CHECKED)
        latent_Q[number] = np.concatenate(
            [at.latent_P + half * len(layer.latents) for half in range(halves)]
        )
        change_QD = -np.tile(at.act_P, halves)[:, None] * both_2ID[latent_Q[number]]
        copies[number] = Copies(
            np.tile(at.row_P, halves), np.tile(at.position_P, halves), change_QD.astype(np.float32)
        )
        size = model.get_output_embeddings().weight.shape[0]
        moves[number] = Moves.none(len(both_2ID), size)
    predicted_RS = (text_RS != store.pad) & (text_RS != store.bos)
    next_RS = np.where(predicted_RS, text_RS.astype(np.int64), -1)
    label = f"effects {unit.settings['family']} seed {unit.settings['seed']}, {split}"
    with progress(label, sum(map(len, latent_Q.values())), "ablations") as bar:
        for part in predict(model, text_RS, copies):
            places = copies[part.layer]
            row_P, position_P = places.row_Q[part.number_Q], places.position_Q[part.number_Q] + 1
            inside_P = np.minimum(position_P, next_RS.shape[1] - 1)
            moves[part.layer].add(
                latent_Q[part.layer][part.number_Q],
                part.clean_QV.numpy(force=True),
                part.changed_QV.numpy(force=True),
                np.where(position_P == inside_P, next_RS[row_P, inside_P], -1),
            )
            bar.advance(len(part.number_Q))
    own, random = {}, {}
    for number, layer in layers.items():
        own[number], random[number] = moves[number].split(len(layer.latents))
    return own, random
