"""A pipeline of random weights in the current folder: all that `clearnets cache` reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from clearnets.config import MLPS, Config, load
from clearnets.data.tokenizer import save_tokenizer, train_tokenizer
from clearnets.families import FAMILIES
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_json

PARAMS = Path(__file__).parents[1] / "params.yaml"
CTX, LAYERS, HIDDEN, LATENTS, K = 16, 2, 8, 64, 4
SEED = 0
MODELS = MLPS


def config() -> Config:
    """The default parameters at a tiny size."""
    base = load(PARAMS).model_dump(mode="json")
    base["data"]["ctx_len"] = CTX
    base["explain"]["window"] = 8
    base["model"] |= {
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_heads": 2,
        "expansion": LATENTS // HIDDEN,
        "k": K,
        "rank_ratio": 2,
    }
    base["cache"] = {"batch_size": 4, "latent_splits": 3}
    return Config.model_validate(base, strict=False)


def make_data(rows: int = 10) -> None:
    """A data unit with random rows: bos, some text tokens, eos, pad."""
    generator = np.random.default_rng(0)
    tokenizer = train_tokenizer(["the fox said no to the cat"] * 3, vocab_size=270)
    vocab = tokenizer.get_vocab_size()
    for _, work in build_all([Unit("data", paths.data(), {}, {})]):
        save_tokenizer(tokenizer, work.out / "tokenizer", ctx_len=CTX)
        meta = {"vocab_size": vocab, "ctx_len": CTX, "pad": 0, "bos": 1, "eos": 2, "concepts": []}
        write_json(work.out / "meta.json", meta)
        (work.out / "tokens").mkdir()
        for split in ("explain", "score", "concept_fit", "concept_test", "train", "valid"):
            tokens_RS = generator.integers(3, vocab, (rows, CTX)).astype(np.uint16)
            tokens_RS[:, 0] = 1
            for row, length in enumerate(generator.integers(2, CTX, rows)):
                tokens_RS[row, length] = 2
                tokens_RS[row, length + 1 :] = 0
            np.save(work.out / "tokens" / f"{split}.npy", tokens_RS)


def make_models() -> None:
    """Training runs of two checkpoints each, and the pair."""
    from clearnets.models.sparse_gptneox import build_model

    settings = config().model
    for mlp in MODELS:
        for _, work in build_all([Unit("train", paths.train(mlp, SEED), {}, {})]):
            for step in (0, 7):
                model = build_model(
                    settings, mlp=mlp, vocab_size=270, ctx_len=CTX, pad=0, bos=1, eos=2, seed=step
                )
                model.save_pretrained(work.out / "checkpoints" / f"step-{step:06d}")
    for _, work in build_all([Unit("match", paths.match(SEED), {}, {})]):
        pair = {
            mlp: {"step": 7, "path": paths.checkpoint(mlp, SEED, 7).as_posix(), "valid_loss": 1.0}
            for mlp in MODELS
        }
        write_json(work.out / "pair.json", pair)


def make_coders() -> None:
    """Coders of all families with random weights, in sparsify's format."""
    coders = [family for family in FAMILIES.values() if family.is_coder]
    for number, family in enumerate(coders):
        generator = torch.Generator().manual_seed(number)
        for _, work in build_all([Unit("sparsify", paths.coders(family.name, SEED), {}, {})]):
            for layer in range(LAYERS):
                folder = work.out / config().model.hookpoint(layer)
                folder.mkdir()
                save_file(
                    {
                        "encoder.weight": torch.randn(LATENTS, HIDDEN, generator=generator),
                        "encoder.bias": torch.randn(LATENTS, generator=generator),
                        "W_dec": torch.randn(LATENTS, HIDDEN, generator=generator),
                        "b_dec": torch.randn(HIDDEN, generator=generator),
                    },
                    folder / "sae.safetensors",
                )
                cfg = {"activation": "topk", "k": K, "transcode": family.transcode}
                write_json(folder / "cfg.json", {**cfg, "d_in": HIDDEN, "num_latents": LATENTS})


def make_equal_models() -> None:
    """The checkpoints of equal end-to-end loss: the models before their training."""
    for family in FAMILIES.values():
        if family.equal_loss:
            out = paths.equalize(family.name, SEED)
            for _, work in build_all([Unit("equalize", out, {}, {})]):
                begun = paths.checkpoint(str(family.model), SEED, 0)
                shutil.copytree(begun, work.out / "model")


def make_all() -> None:
    """Everything, in the current folder."""
    make_data()
    make_models()
    make_coders()
    make_equal_models()
