"""A language model and a corpus small enough for a test; importable by a subprocess."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clearnets import config
from clearnets.models.sparse_gptneox import SparseGPTNeoXForCausalLM, build_model
from clearnets.training import language

PAD, BOS, EOS, VOCAB, CTX = 0, 1, 2, 24, 12
ROOT = Path(__file__).parents[2]


def model_settings() -> config.GPTNeoX:
    small = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "expansion": 4, "k": 2}
    return config.load(ROOT / "params.yaml").model.model_copy(update={**small, "rank_ratio": 2})


def train_settings(**values: Any) -> config.Train:
    small = {"batch_size": 4, "epochs": 2, "warmup_steps": 3, "eval_steps": 5, **values}
    return config.load(ROOT / "params.yaml").train.of("dense").model_copy(update=small)


def rows(count: int, *, seed: int) -> np.ndarray:
    """Documents of counting tokens, packed densely: learnable, with bos inside rows."""
    rng = np.random.default_rng(seed)
    tokens = np.empty((count, CTX), np.uint16)
    for row in tokens:
        border = int(rng.integers(3, CTX - 2))
        row[:] = (int(rng.integers(3, 9)) + np.arange(CTX)) % (VOCAB - 3) + 3
        row[0] = row[border] = BOS
        row[border - 1] = EOS
    return tokens


def padded_rows(count: int, *, seed: int) -> np.ndarray:
    """One document per row, padded behind its eos."""
    rng = np.random.default_rng(seed)
    tokens = rows(count, seed=seed)
    for row in tokens:
        end = int(rng.integers(2, CTX))
        row[1:end] = np.where(row[1:end] < 3, 5, row[1:end])
        row[end] = EOS
        row[end + 1 :] = PAD
    return tokens


def new_model(mlp: Any = "sparse") -> SparseGPTNeoXForCausalLM:
    ids = {"vocab_size": VOCAB, "ctx_len": CTX, "pad": PAD, "bos": BOS, "eos": EOS}
    return build_model(model_settings(), mlp=mlp, seed=7, **ids)


def run(
    folder: Path,
    *,
    model: Any = None,
    train_rows: np.ndarray | None = None,
    save_seconds: float = 1e9,
    device: str = "cpu",
    **settings: Any,
) -> Any:
    """Train into `folder`; a run that was killed goes on."""
    torch.set_num_threads(1)
    out, state = folder / "out", folder / "state"
    out.mkdir(parents=True, exist_ok=True)
    train_rows = rows(62, seed=1) if train_rows is None else train_rows
    text = language.Text(train_rows, padded_rows(9, seed=2), bos=BOS, pad=PAD, within=False)
    where = language.Run(3, out, state, torch.device(device), save_seconds=save_seconds)
    model = new_model() if model is None else model
    return language.train(model, train_settings(**settings), text, where)


def run_saving_always(folder: Path) -> None:
    """A run with a resume state after each step, for tests that kill it."""
    run(folder, save_seconds=0.0)


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def losses_of(folder: Path) -> np.ndarray:
    """Training and validation loss of each row of a run's curve but the first."""
    with (folder / "out" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))[1:]
    return np.array([[float(row["train_loss"]), float(row["valid_loss"])] for row in rows])
