"""Train language models with schedule-free AdamW and exact resume.

What is measured or saved never changes the training: evaluation and saving swap the averaged
weights in and put the training weights back bit for bit, so neither the evaluation schedule nor a
kill and resume changes a byte of any checkpoint.

Shape legend: B rows of a batch, S tokens of a row, V vocabulary.
"""

from __future__ import annotations

import io
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from clearnets import UserError, config
from clearnets.config import Mlp
from clearnets.data.tokens import TokenStore
from clearnets.models.loading import embedding_parameters
from clearnets.models.sparse_gptneox import build_model
from clearnets.pipeline import processes
from clearnets.pipeline.artifacts import write_bytes, write_json, write_text
from clearnets.pipeline.progress import progress
from clearnets.pipeline.runtime import autocast, seed_for
from clearnets.training.revival import Encoders
from clearnets.training.schedule_free import ExactScheduleFree
from clearnets.training.weight_sparsity import keep_largest

IGNORED = -100
"""Label of a position that no loss counts (torch's and transformers' convention)."""

SAVE_SECONDS = 25.0
"""Wall time between two resume states. Saving loses nothing, so this changes no result."""

_STATE = "training.pt"

_EVAL_ROWS = 8
"""Rows of a batch that is only measured: its logits should stay in a CPU's cache."""


def checkpoint_steps(total: int) -> list[int]:
    """Return the steps whose model is kept: 0, powers of two up to half the run, then even ones.

    The even ones lie a 40th of the run apart, every 5 % of its second half. They begin at a
    quarter of the run, because the better model of a pair may have to be taken back that far.

    >>> checkpoint_steps(40)[:9]
    [0, 1, 2, 4, 8, 10, 11, 12, 13]
    """
    powers = (2**exponent for exponent in range(total.bit_length()))
    even = (round(total * part / 40) for part in range(10, 41))
    return sorted({0, *(step for step in powers if step <= total / 2), *even, total})


def labels_of(tokens_BS: np.ndarray, *, bos: int, pad: int) -> np.ndarray:
    """Return the targets of next-token prediction, unshifted: the tokens, bos and pad ignored.

    A bos follows an eos whatever the text and opens every row, so predicting it measures nothing.
    eos counts: knowing where a story ends is part of the language.
    """
    labels_BS = tokens_BS.astype(np.int64)
    labels_BS[(tokens_BS == bos) | (tokens_BS == pad)] = IGNORED
    return labels_BS


def positions_of(tokens_BS: np.ndarray, *, bos: int) -> np.ndarray:
    """Return positions that start at 0 again at each bos.

    transformers reads the restarts as borders of packed sequences, which attention then does not
    cross.
    """
    index_S = np.arange(tokens_BS.shape[1])
    starts_BS = np.where(tokens_BS == bos, index_S, 0)
    return index_S - np.maximum.accumulate(starts_BS, axis=1)


@dataclass(frozen=True)
class Collator:
    """Model inputs of a batch of rows (B, S): input_ids, labels, and where asked position_ids."""

    bos: int
    pad: int
    within: bool
    """Attention stays within the documents of a row."""

    def __call__(self, rows_BS: np.ndarray) -> dict[str, torch.Tensor]:
        tokens_BS = np.asarray(rows_BS)
        # Columns of nothing but padding cost time and change no loss.
        filled_S = (tokens_BS != self.pad).any(axis=0)
        tokens_BS = tokens_BS[:, : max(2, int(filled_S.nonzero()[0].max(initial=0)) + 1)]
        batch = {
            "input_ids": torch.from_numpy(tokens_BS.astype(np.int64)),
            "labels": torch.from_numpy(labels_of(tokens_BS, bos=self.bos, pad=self.pad)),
        }
        if self.within:
            batch["position_ids"] = torch.from_numpy(positions_of(tokens_BS, bos=self.bos))
        return batch


def row_nll(logits_BSV: torch.Tensor, labels_BS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per row the negative log-likelihood in nats (B,), float64, and counted tokens (B,)."""
    targets_BS = _targets(labels_BS)
    nll_BS = _nll(logits_BSV, targets_BS, "none").view_as(targets_BS)
    return nll_BS.sum(1, dtype=torch.float64), (targets_BS != IGNORED).sum(1)


def _targets(labels_BS: torch.Tensor) -> torch.Tensor:
    """Return for each position the label of the next one; the last has none."""
    return functional.pad(labels_BS[:, 1:], (0, 1), value=IGNORED)


def _nll(logits_BSV: torch.Tensor, targets_BS: torch.Tensor, reduction: str) -> torch.Tensor:
    logits = logits_BSV.flatten(0, 1).float()
    return functional.cross_entropy(
        logits, targets_BS.flatten(), ignore_index=IGNORED, reduction=reduction
    )


def train_order(num_rows: int, *, epochs: int, seed: int) -> np.ndarray:
    """Return the indices of the rows in the order of training, each epoch shuffled anew."""
    draws = [np.random.default_rng(seed_for(seed, "order", epoch)) for epoch in range(epochs)]
    return np.concatenate([rng.permutation(num_rows) for rng in draws])


class _Curve:
    """Rows of the loss curve and the training loss since the last of them."""

    def __init__(self, device: torch.device) -> None:
        self.rows: list[dict[str, Any]] = []
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.loss_steps = 0

    def add(self, loss: torch.Tensor) -> None:
        """Count the loss of a step; no synchronisation with the device."""
        self.loss_sum += loss
        self.loss_steps += 1

    def close_row(self, *, step: int, tokens: int, train_loss: float, valid_loss: float) -> None:
        self.rows.append(
            {
                "step": step,
                "tokens": tokens,
                "train_loss": train_loss if self.loss_steps else None,
                "valid_loss": valid_loss,
            }
        )
        self.loss_sum.zero_()
        self.loss_steps = 0

    def state(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "loss_sum": self.loss_sum.item(),
            "loss_steps": self.loss_steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.rows = list(state["rows"])
        self.loss_sum.fill_(state["loss_sum"])
        self.loss_steps = state["loss_steps"]

    def csv(self) -> str:
        lines = ["step,tokens,train_loss,valid_loss"]
        for row in self.rows:
            train_loss = "" if row["train_loss"] is None else f"{row['train_loss']:.6f}"
            lines.append(f"{row['step']},{row['tokens']},{train_loss},{row['valid_loss']:.6f}")
        return "\n".join(lines) + "\n"


@contextmanager
def _averaged(optimizer: Any) -> Iterator[None]:
    """Use the averaged weights inside, then go back to the mode that the optimizer was in."""
    training = optimizer.param_groups[0]["train_mode"]
    optimizer.eval()
    try:
        yield
    finally:
        if training:
            optimizer.train()


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _save(model: PreTrainedModel, folder: Path) -> None:
    """Write config and weights in Hugging Face's format, in place of what a killed run left."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)


@dataclass(frozen=True)
class Text:
    """What a language model is trained and measured on.

    Attributes:
        train_rows: tokens (rows, S), every row beginning with bos.
        valid_rows: the same, held out, one document per row, padded.
        bos: id of the token that opens each row and each document; never a target.
        pad: id of the padding; never a target.
        within: attention does not cross documents packed into one row.
    """

    train_rows: np.ndarray
    valid_rows: np.ndarray
    bos: int
    pad: int
    within: bool

    @classmethod
    def of(cls, tokens: TokenStore, *, within: bool) -> Text:
        """Return the splits `train` and `valid` of a token store."""
        return cls(tokens.split("train"), tokens.split("valid"), tokens.bos, tokens.pad, within)


@dataclass(frozen=True)
class Run:
    """Where and how a training runs; only its seed changes a result.

    Attributes:
        seed: of the order of the rows.
        out: folder for the results.
        state: folder for resume states.
        device: where to train.
        label: name of the run beside its progress bar.
        save_seconds: wall time between two resume states.
    """

    seed: int
    out: Path
    state: Path
    device: torch.device
    label: str = "train"
    save_seconds: float = SAVE_SECONDS


def train_new(
    mlp: Mlp, sizes: config.GPTNeoX, settings: config.Train, tokens: TokenStore, run: Run
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Build a model with one kind of feedforward and train it on a token store.

    Returns:
        The model, and what `train` returns.
    """
    model = build_model(
        sizes,
        mlp=mlp,
        vocab_size=tokens.vocab_size,
        ctx_len=tokens.ctx_len,
        pad=tokens.pad,
        bos=tokens.bos,
        eos=tokens.eos,
        seed=seed_for(run.seed, "init"),
    )
    text = Text.of(tokens, within=sizes.attention == "within")
    return model, train(model, settings.of(mlp), text, run)


def train(model: PreTrainedModel, settings: config.Train, text: Text, run: Run) -> dict[str, Any]:
    """Train `model` in place and leave it with its averaged weights, in eval mode.

    Where torchrun has started several processes, each calls this with the same arguments: they
    share the rows of every step, and the main one writes. On a CPU, and on one GPU with kernels
    that are deterministic, the same arguments give the same bytes; another number of processes or
    of micro-batches changes the rounding.

    Writes to `run.out` the folders `final/` and `checkpoints/step-*/`, `curve.csv` and
    `summary.json`. A run that was killed goes on from its newest state in `run.state`, and gives
    the same bytes.

    Args:
        model: a causal language model with its initial weights, on any device.
        settings: the section `train` of the config.
        text: what it is trained on.
        run: where.

    Returns:
        The values of `summary.json`.

    Raises:
        UserError: less than one batch of rows, a beta that does not suit the average, no token to
            validate on, or a loss that is no longer finite.
    """
    loop = _Loop(model, settings, text, run)
    hf_logging.disable_progress_bar()
    loop.resume()
    left = (loop.steps - loop.step) * loop.tokens_per_step
    with progress(run.label, left, "tokens", quiet=not processes.is_main()) as bar:
        if not loop.step:
            loop.measure()
        while loop.step < loop.steps:
            loop.train_step()
            if loop.step % settings.eval_steps == 0 or loop.step in loop.checkpoints:
                loop.measure()
            loop.save_if_due()
            bar.advance(loop.tokens_per_step, loop.note())
    return loop.finish()


def summary_of(
    model: PreTrainedModel, *, steps: int, tokens: int, train_loss: float | None, valid_loss: float
) -> dict[str, Any]:
    """Return the values of a run's `summary.json`."""
    return {
        "steps": steps,
        "tokens": tokens,
        "parameters": model.num_parameters(),
        "non_embedding_parameters": model.num_parameters() - embedding_parameters(model),
        "train_loss": train_loss,
        "valid_loss": valid_loss,
    }


def _whole_batches(settings: config.Train, text: Text, seed: int) -> np.ndarray:
    """Return the order of the training rows, without those that fill no batch at its end."""
    order = train_order(len(text.train_rows), epochs=settings.epochs, seed=seed)
    steps = len(order) // settings.batch_size
    if not steps:
        raise UserError(
            f"{len(text.train_rows)} training rows make no batch of {settings.batch_size}; "
            "raise data.tokens.train or lower train.batch_size"
        )
    return order[: steps * settings.batch_size]


class _Loop:
    """A training run: what changes from step to step, and what is done with it."""

    def __init__(
        self, model: PreTrainedModel, settings: config.Train, text: Text, run: Run
    ) -> None:
        _check(settings, text, run)
        self._settings, self._text, self._run = settings, text, run
        self._order = _whole_batches(settings, text, run.seed)
        self.steps = len(self._order) // settings.batch_size
        self.checkpoints = frozenset(checkpoint_steps(self.steps))
        self.tokens_per_step = settings.batch_size * text.train_rows.shape[1]
        valid_rows = np.asarray(text.valid_rows)
        # Rows of like length together, so that the collator can cut off their padding.
        self._valid_rows = valid_rows[
            np.argsort((valid_rows != text.pad).sum(axis=1), kind="stable")
        ]
        self._collate = Collator(bos=text.bos, pad=text.pad, within=text.within)
        self._device = torch.zeros(0, device=run.device).device
        self._model: Any = model.to(self._device)  # pyright: ignore[reportArgumentType]
        self._parallel: Any = self._model.train()
        if processes.count() > 1:
            gpus = [self._device] if self._device.type == "cuda" else None
            self._parallel = DistributedDataParallel(self._model, gpus)
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = ExactScheduleFree(
            self._params,
            lr=settings.learning_rate,  # pyright: ignore[reportArgumentType] - of one model
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup_steps,
        )
        self._optimizer.train()
        self._encoders = Encoders(self._model, settings)
        self._curve = _Curve(self._device)
        self._saved = time.monotonic()
        self.step = 0

    def train_step(self) -> None:
        """Train on the next batch: in pieces, of which each process has its share of the rows."""
        settings, count, rank = self._settings, processes.count(), processes.rank()
        rows_BS = self._text.train_rows[
            self._order[self.step * settings.batch_size : (self.step + 1) * settings.batch_size]
        ]
        labels_BS = labels_of(rows_BS, bos=self._text.bos, pad=self._text.pad)
        counted = max(1, int((labels_BS[:, 1:] != IGNORED).sum()))
        pieces = np.split(rows_BS, settings.grad_acc_steps)
        step_loss = torch.zeros((), device=self._device)
        for number, piece in enumerate(pieces, 1):
            batch = self._on_device(np.split(piece, count)[rank])
            targets_BS = _targets(batch.pop("labels"))
            self._encoders.reads(batch["input_ids"] != self._text.pad)
            # The processes exchange their gradients in the last backward pass of the step.
            apart = count > 1 and number < len(pieces)
            with self._parallel.no_sync() if apart else nullcontext():
                with autocast(self._device, settings.precision):
                    logits_BSV = self._parallel(**batch).logits
                    loss = _nll(logits_BSV, targets_BS, "sum") / counted
                (loss * count).backward()  # They average, and the step's loss is a sum.
            step_loss += loss.detach()
        torch.nn.utils.clip_grad_norm_(self._params, settings.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._encoders.end_step(self._optimizer)
        self._curve.add(step_loss)
        self.step += 1
        keep_largest(self._model, self._optimizer, self.step, self.steps)

    @torch.no_grad()
    def measure(self) -> None:
        """Add a row to the curve and keep a checkpoint that is due, with the averaged weights."""
        with _averaged(self._optimizer), _evaluating(self._model), self._encoders.folded():
            valid_loss = self._valid_loss()
            train_loss = float(processes.summed(self._curve.loss_sum)) / max(
                1, self._curve.loss_steps
            )
            if not (math.isfinite(valid_loss) and math.isfinite(train_loss)):
                raise UserError(
                    f"training diverged before step {self.step}; lower train.learning_rate"
                )
            self._curve.close_row(
                step=self.step,
                tokens=self.step * self.tokens_per_step,
                train_loss=train_loss,
                valid_loss=valid_loss,
            )
            if self.step in self.checkpoints and processes.is_main():
                _save(self._model, self._run.out / "checkpoints" / f"step-{self.step:06d}")

    def _valid_loss(self) -> float:
        """Return the mean loss per token over the rows held out, each batch in one process."""
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        starts = range(0, len(self._valid_rows), _EVAL_ROWS)
        for start in starts[processes.rank() :: processes.count()]:
            batch = self._on_device(self._valid_rows[start : start + _EVAL_ROWS])
            labels_BS = batch.pop("labels")
            nll_B, count_B = row_nll(self._model(**batch).logits, labels_BS)
            sums += torch.stack([nll_B.sum(), count_B.sum()])
        nll, count = processes.summed(sums).tolist()
        return nll / count

    def _on_device(self, rows_BS: np.ndarray) -> dict[str, torch.Tensor]:
        return {name: value.to(self._device) for name, value in self._collate(rows_BS).items()}

    def note(self) -> str:
        """Return the last validation loss, for the progress bar."""
        return f"valid loss {self._curve.rows[-1]['valid_loss']:.3f}"

    def save_if_due(self) -> None:
        """Write a resume state now and then, and after the last step; the main process does.

        Nothing in a step draws random numbers, so weights, optimizer and curve are all of it.
        """
        late = time.monotonic() - self._saved >= self._run.save_seconds
        measured = self.step % self._settings.eval_steps == 0 or self.step == self.steps
        # Between measurements each of several processes has a part of the curve's loss.
        due = measured or (late and processes.count() == 1)
        if not due or not processes.is_main():
            return
        state = {
            "step": self.step,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "encoders": self._encoders.state(),
            "curve": self._curve.state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self._run.state / _STATE, buffer.getvalue())
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the resume state, if there is one."""
        path = self._run.state / _STATE
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._encoders.load(state["encoders"])
        self._curve.load(state["curve"])
        self.step = state["step"]

    def finish(self) -> dict[str, Any]:
        """Leave the model with its averaged weights, write the results, return the summary."""
        self._optimizer.eval()
        self._encoders.finish()
        model, out = self._model.eval(), self._run.out
        last = self._curve.rows[-1]
        losses = {name: round(last[name], 6) for name in ("train_loss", "valid_loss")}
        tokens = self.steps * self.tokens_per_step
        summary = summary_of(model, steps=self.steps, tokens=tokens, **losses)
        if processes.is_main():
            _save(model, out / "final")
            write_text(out / "curve.csv", self._curve.csv())
            write_json(out / "summary.json", summary)
        return summary


def _check(settings: config.Train, text: Text, run: Run) -> None:
    """Refuse what cannot be trained."""
    if not 0 < settings.betas[0] < 1:
        raise UserError("train.betas: schedule-free AdamW needs the first between 0 and 1")
    if run.device.index:
        raise UserError(
            f"training takes the first visible GPU, or one per process; set "
            f"CUDA_VISIBLE_DEVICES={run.device.index} and use --device cuda"
        )
    micro_batch = settings.batch_size // settings.grad_acc_steps
    if micro_batch % processes.count():
        raise UserError(
            f"train.batch_size / train.grad_acc_steps = {micro_batch} rows are no multiple of "
            f"{processes.count()} processes; choose another number of processes"
        )
    labels_BS = labels_of(np.asarray(text.valid_rows), bos=text.bos, pad=text.pad)
    if not (labels_BS[:, 1:] != IGNORED).any():
        raise UserError("the split `valid` holds no tokens; raise data.tokens.valid")


@torch.no_grad()
def sample(
    model: PreTrainedModel, *, bos: int, count: int, length: int, seed: int
) -> list[list[int]]:
    """Return `count` texts that the model writes at temperature 0.8, as token ids without bos."""
    prompt = torch.full((count, 1), bos, device=model.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "sample"))
        tokens = model.generate(  # type: ignore[operator]
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=0.8,
            top_k=0,
            max_new_tokens=length,
            use_cache=True,
        )
    return [row[1:] for row in tokens.tolist()]
