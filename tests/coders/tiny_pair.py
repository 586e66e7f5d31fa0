"""A tiny pair on disk: data, train and match units as the stages before leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from clearnets import config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_json, write_text

ROOT = Path(__file__).parents[2]
PAD, BOS, EOS = 0, 1, 2
VOCAB, CTX = 48, 16


def tiny_config(**over) -> config.Config:
    base = config.read_yaml(ROOT / "params.yaml")
    tiny = {
        "data": {"tokenizer": {"vocab_size": 300}, "ctx_len": CTX},
        "model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "expansion": 4, "k": 4},
        "models": ["dense", "sparse"],
        "families": [
            *("native", "transcoder", "sae", "skip-transcoder", "random-native"),
            *("random-transcoder", "random-sae", "step0-transcoder"),
        ],
        "explain": {"window": 8},
        "coders": {"tokens": 12 * 4 * CTX, "batch_size": 4, "warmup_steps": 2},
    }
    return config.parse(config.overlay(config.overlay(base, tiny), over), "test")


def packed_rows(rows: int, seed: int) -> np.ndarray:
    """Rows with bos first, documents of a few tokens inside, as the train split has them."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, VOCAB, (rows, CTX))
    # Each token often repeats the one two before: something to learn from context.
    for i in range(2, CTX):
        tokens[:, i] = np.where(rng.random(rows) < 0.6, tokens[:, i - 2], tokens[:, i])
    tokens[:, 0] = BOS
    end = rng.integers(4, CTX - 4, rows)
    tokens[np.arange(rows), end] = EOS
    tokens[np.arange(rows), end + 1] = BOS
    return tokens.astype(np.uint16)


def padded_rows(rows: int, seed: int) -> np.ndarray:
    """One document per row, padded behind eos, as the valid split has them."""
    tokens = packed_rows(rows, seed).astype(np.int64)
    rng = np.random.default_rng(seed + 1)
    tokens[(tokens == BOS) | (tokens == EOS)] = 7
    tokens[:, 0] = BOS
    end = rng.integers(5, CTX + 1, rows)
    here = np.arange(CTX)
    tokens[here[None] == end[:, None]] = EOS
    tokens[here[None] > end[:, None]] = PAD
    return tokens.astype(np.uint16)


def build_models(settings: config.Config):
    from clearnets.models.sparse_gptneox import build_model

    models = {}
    for mlp in ("dense", "sparse"):
        model = build_model(
            settings.model,
            mlp=mlp,
            vocab_size=VOCAB,
            ctx_len=CTX,
            pad=PAD,
            bos=BOS,
            eos=EOS,
            seed=0,
        )
        # Untrained feedforwards do nearly nothing: make every layer matter.
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.2 * noise
        models[mlp] = model.eval().requires_grad_(False)
    return models


def write_project() -> config.Config:
    """Write a tiny project up to `match` into the working directory."""
    settings = tiny_config()
    models = build_models(settings)

    def unit(stage, out, fill, **values):
        for _, work in build_all([Unit(stage, out, values, {})]):
            fill(work.out)

    def data(out: Path):
        meta = {"vocab_size": VOCAB, "ctx_len": CTX, "pad": PAD, "bos": BOS, "eos": EOS}
        write_json(out / "meta.json", {**meta, "concepts": []})
        (out / "tokens").mkdir()
        np.save(out / "tokens" / "train.npy", packed_rows(80, 0))
        np.save(out / "tokens" / "valid.npy", padded_rows(21, 1))

    unit("data", paths.data(), data)
    for mlp, model in models.items():

        def train(out: Path, model=model):
            for step in (0, 5):
                model.save_pretrained(out / "checkpoints" / f"step-{step:06d}")
            lines = ["step,tokens,train_loss,valid_loss", "0,0,,4.0", "5,320,3.9,3.8"]
            write_text(out / "curve.csv", "\n".join(lines) + "\n")

        unit("train", paths.train(mlp, 0), train, model={"attention": "across"})

    def match(out: Path):
        pair = {
            mlp: {
                "step": 5,
                "path": paths.checkpoint(mlp, 0, 5).as_posix(),
                "valid_loss": 3.8,
                "difference": 0.0,
                "matched": True,
            }
            for mlp in models
        }
        (out / "pair.json").write_text(json.dumps(pair))

    unit("match", paths.match(0), match)
    return settings
