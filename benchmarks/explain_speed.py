"""Compare latents per second of records, explanations and scores with delphi's `LatentDataset`.

    python benchmarks/explain_speed.py [--tokens 1000000] [--latents 100] [--runs 5]

Both read a cache of synthetic activations in delphi's layout, of one layer with the sizes of
`params.yaml`. A *record* is what an explainer is given: a latent's active windows in order, the
sample of them and as many non-activating ones as params.yaml says, with token ids, activations and
the tokens' texts. delphi builds it with its `LatentDataset`, we with what `clearnets explain`
calls; both begin at the files, and their times count the loading. Then the explainer `tokens`
explains the same latents, and the judge of rules scores them on a second text, shuffled
explanations included. These count explained latents only and leave out the loading, which is
measured by itself. Words are drawn with Zipf's frequencies; a latent is active on some of them,
with noise.

All take turns, and what counts is processor time. Of the best run two bounds must hold, or the exit
status is 1: records of 100 latents in at most 5 seconds, and 100 latents explained and scored in a
second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import numpy as np
from common import in_turns, machine, ratios
from safetensors.numpy import save_file

from clearnets.autointerp.explained_layer import ExplainedLayer
from clearnets.autointerp.rules.matcher import Lexicon, Text, read_rows
from clearnets.autointerp.sampling import Negatives
from clearnets.autointerp.scored_layer import ScoredLayer
from clearnets.config import Config, load
from clearnets.latents.examples import Grid
from clearnets.latents.store import LayerCache, load_layer, ranges
from clearnets.pipeline.artifacts import Unit, build_all, write_json

POINT = "layers.0.mlp"
# What records of 100 latents may take, and how many latents must be explained and scored a second.
RECORDS_SECONDS, BOTH_RATE = 5.0, 100.0
VOCAB = 1536


def rows_of(seed: int, tokens: int, ctx_len: int) -> np.ndarray:
    """Return rows of token ids with Zipf's frequencies; 0 begins each row."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, VOCAB)
    ids = 1 + rng.choice(VOCAB - 1, size=(tokens // ctx_len, ctx_len), p=share / share.sum())
    ids[:, 0] = 0
    return ids.astype(np.uint16)


def counted(tokens_RS: np.ndarray) -> np.ndarray:
    return tokens_RS > 0


def strings() -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f" {letters[i % 26]}{letters[i // 26 % 26]}{letters[i // 676]}" for i in range(VOCAB)]


def make_cache(root: Path, config: Config, rows_RS: np.ndarray, seed: int) -> Path:
    """Make k latents active per token: its word's own latents more often than others."""
    rng = np.random.default_rng(seed)
    size, k = config.model.num_latents, config.model.k
    row, position = np.nonzero(counted(rows_RS))
    word_N = rows_RS[row, position].astype(np.int64)
    own_NK = (word_N[:, None] * 7 + np.arange(k) * 131) % size
    latent_NK = np.where(
        rng.random(own_NK.shape) < 0.7, own_NK, rng.integers(size, size=own_NK.shape)
    )
    at_N = np.repeat(np.arange(len(row)), k)
    pairs = np.unique(latent_NK.ravel() * len(row) + at_N)
    latent_E, token_E = np.divmod(pairs, len(row))
    act_E = rng.gamma(2, 1, len(pairs)).astype(np.float16) + np.float16(0.01)
    unit = Unit("cache", root, {}, {})
    for _, work in build_all([unit]):
        folder = work.out / POINT
        folder.mkdir()
        for first, last in ranges(size, config.cache.latent_splits):
            inside = (latent_E >= first) & (latent_E <= last)
            at = token_E[inside]
            locations = np.stack([row[at], position[at], latent_E[inside] - first], axis=1)
            arrays = {
                "locations": locations.astype(np.uint16),
                "activations": act_E[inside],
                "tokens": rows_RS,
            }
            save_file(arrays, folder / f"{first}_{last}.safetensors")
        settings = {"num_latents": size, "model_name": "", "ctx_len": rows_RS.shape[1]}
        write_json(folder / "config.json", settings)
    return root


class Decoder:
    """The part of a tokenizer that delphi uses, decoding one token at a time for transformers 5."""

    def __init__(self) -> None:
        self.strings = strings()

    def batch_decode(self, tokens: Any) -> list[str]:
        return [self.strings[token] for token in tokens.tolist()]


def delphi_records(root: Path, config: Config, latents: list[int]) -> int:
    """Build delphi's records of the latents and return their number."""
    import torch
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents import LatentDataset

    from clearnets.autointerp.llm import delphi_adapter  # noqa: F401

    settings = config.explain
    dataset = LatentDataset(
        root,
        SamplerConfig(
            n_examples_train=settings.n_examples_train,
            n_examples_test=0,
            n_quantiles=settings.n_quantiles,
        ),
        ConstructorConfig(
            example_ctx_len=settings.window,
            min_examples=settings.min_windows,
            n_non_activating=settings.n_non_activating,
        ),
        tokenizer=Decoder(),  # pyright: ignore[reportArgumentType]
        modules=[POINT],
        latents={POINT: torch.tensor(latents)},
    )
    return sum(1 for _ in dataset)


def our_records(root: Path, config: Config, latents: list[int], rows_RS: np.ndarray) -> int:
    """Build our records of the latents, beginning at the files of text and cache."""
    from clearnets.autointerp.llm.delphi_adapter import examples_of
    from clearnets.latents.examples import activations

    text = read_rows(rows_RS, counted, Lexicon(strings()), size=config.explain.window)
    layer = explained_layer(text, load_layer(root, POINT), config, latents)
    words, built = strings(), 0
    for latent in latents:
        _, seen = layer.survey(latent)
        if seen is not None:
            shown, examples = seen
            act_WL = activations(layer.cache, latent, shown.windows, examples.window_W)
            token_WL = shown.windows.these(examples.window_W).cut(rows_RS)
            examples_of(token_WL, act_WL, words)
            built += 1
    return built


def explained_layer(
    text: Text[Grid], cache: LayerCache, config: Config, latents: list[int]
) -> ExplainedLayer:
    """Return the layer's latents that are to be explained."""
    negatives = Negatives(config.explain.non_activating)
    return ExplainedLayer(("sae", POINT, 0), config.explain, text, cache, negatives, latents)


def explain(text: Text[Grid], cache: LayerCache, config: Config, latents: list[int]) -> list[dict]:
    """Return the records of the explainer `tokens`."""
    layer = explained_layer(text, cache, config, latents)
    return [layer.explain(latent) for latent in latents]


def score(text: Text[Grid], cache: LayerCache, config: Config, records: list[dict]) -> list[dict]:
    """Return the records of the judge of rules, shuffled explanations included."""
    kind = Negatives(config.score.non_activating)
    layer = ScoredLayer(
        ("sae", POINT, 0), config.score, config.explain, text, cache, None, kind, records, {}
    )
    for record in records:
        trial = layer.draw(record)
        if trial is not None:
            layer.trials[record["latent"]] = trial
    return layer.scores()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of each text (1000000)")
    parser.add_argument("--latents", type=int, default=100, help="drawn from the layer (100)")
    parser.add_argument("--runs", type=int, default=5, help="in turns, after one of warm-up (5)")
    options = parser.parse_args()
    config = load()
    rng = np.random.default_rng(0)
    latents = sorted(rng.permutation(config.model.num_latents)[: options.latents].tolist())
    size, lexicon = config.explain.window, Lexicon(strings())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sides = []
        for seed, name in enumerate(("explain", "score")):
            rows_RS = rows_of(seed, options.tokens, config.data.ctx_len)
            sides.append((make_cache(Path(name), config, rows_RS, seed), rows_RS))
        (root, rows_RS), _ = sides
        import delphi.latents  # noqa: F401  its import takes seconds and is not what is measured

        def loaded() -> list[tuple[Text[Grid], LayerCache]]:
            return [
                (read_rows(tokens_RS, counted, lexicon, size=size), load_layer(unit, POINT))
                for unit, tokens_RS in sides
            ]

        one, other = loaded()
        records = explain(*one, config, latents)
        scored = score(*other, config, records)
        built = {
            "records, clearnets": our_records(root, config, latents, rows_RS),
            "records, delphi": delphi_records(root, config, latents),
            "loading of both texts": len(latents),
            "explanations": sum(record["explanation"] is not None for record in records),
            "scores": sum(record["detection"] is not None for record in scored),
        }
        calls: list[Callable[[], object]] = [
            lambda: our_records(root, config, latents, rows_RS),
            lambda: delphi_records(root, config, latents),
            loaded,
            lambda: explain(*one, config, latents),
            lambda: score(*other, config, records),
        ]
        times = in_turns(dict(zip(built, calls)), options.runs)
    # By latent, since each side leaves out other latents with too few examples.
    each = {name: [s / built[name] for s in seconds] for name, seconds in times.items()}
    base = each["records, clearnets"]
    print(f"{machine()}; {options.tokens:,} tokens a text, {options.runs} runs in turns, ", end="")
    print("processor time\n")
    print("| | latents | ms per latent | against records of clearnets: median (least–most) |")
    print("|---|---:|---:|---:|")
    for name, of_one in each.items():
        print(f"| {name} | {built[name]} | {1e3 * median(of_one):.2f} | {ratios(of_one, base)} |")
    records_s = 100 * min(base)
    rate = 1 / min(a + b for a, b in zip(each["explanations"], each["scores"]))
    held = {
        f"records of 100 latents: {records_s:.2f} s, at most {RECORDS_SECONDS:g} s": records_s
        <= RECORDS_SECONDS,
        f"explained and scored: {rate:.0f} latents a second, at least {BOTH_RATE:g}": rate
        >= BOTH_RATE,
    }
    print("", *(f"{'pass' if holds else 'FAIL'}  {line}" for line, holds in held.items()), sep="\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
