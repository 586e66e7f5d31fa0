"""Train language models with transformers' `Trainer`, schedule-free AdamW and exact resume.

What is measured or saved never changes the training: evaluation and saving swap the averaged
weights in and put the training weights back bit for bit, so neither the evaluation schedule nor a
kill and resume changes a byte of any checkpoint.

Shape legend: B rows of a batch, S tokens of a row, V vocabulary.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from schedulefree import AdamWScheduleFree
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as hf_logging

from clearnets import UserError, config
from clearnets.data.tokens import TokenStore
from clearnets.models.loading import embedding_parameters
from clearnets.pipeline.artifacts import read_json, write_json, write_text
from clearnets.pipeline.progress import Progress, progress
from clearnets.pipeline.runtime import autocast, seed_for

IGNORED = -100
"""Label of a position that no loss counts (torch's and transformers' convention)."""

SAVE_SECONDS = 25.0
"""Wall time between two resume states. Saving loses nothing, so this changes no result."""

_PROGRESS = "progress.json"


class ExactScheduleFree(AdamWScheduleFree):
    """Schedule-free AdamW whose `eval()` and `train()` are exact inverses.

    The original computes the averaged weights x from the training weights y in place and y from x
    again, which rounds twice: each evaluation would change the training a little. Here `eval()`
    keeps a copy of y in the optimizer's state and `train()` puts it back bit for bit. The copy is
    a part of `state_dict()`, so a resume state that was saved in eval mode holds everything.
    """

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averaged weights into the parameters and keep the training weights aside."""
        for group in self.param_groups:
            if group["train_mode"]:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        self.state[p]["training_weights"] = p.detach().clone()
        super().eval()

    @torch.no_grad()
    def train(self) -> None:
        """Put the training weights back as they were before `eval()`."""
        for group in self.param_groups:
            if not group["train_mode"]:
                for p in group["params"]:
                    if "training_weights" in self.state[p]:
                        p.copy_(self.state[p].pop("training_weights"))
                group["train_mode"] = True


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


class Rows(Dataset):
    """Token rows in a given order; a DataLoader gets whole batches by one slice of the memmap."""

    def __init__(self, rows: np.ndarray, order: np.ndarray) -> None:
        self._rows, self._order = rows, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._rows[self._order[index]]

    def __getitems__(self, indices: Sequence[int]) -> np.ndarray:
        return self._rows[self._order[indices]]


@dataclass(frozen=True)
class Collator:
    """Model inputs of a batch of rows (B, S): input_ids, labels, and where asked position_ids."""

    bos: int
    pad: int
    within: bool
    """Attention stays within the documents of a row."""

    def __call__(self, rows_BS: np.ndarray | Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
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
    nll_BS = cross_entropy(
        logits_BSV[:, :-1].transpose(1, 2).float(),
        labels_BS[:, 1:],
        ignore_index=IGNORED,
        reduction="none",
    )
    return nll_BS.sum(1, dtype=torch.float64), (labels_BS[:, 1:] != IGNORED).sum(1)


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

    def add(self, loss: torch.Tensor, *, ends_step: bool) -> None:
        """Count a micro-batch's share of a step's loss; no synchronisation with the device."""
        self.loss_sum += loss
        self.loss_steps += ends_step

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
        # JSON keeps every bit of a double.
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


class _Trainer(Trainer):
    """`Trainer` that measures by sums, and saves the averaged weights only."""

    curve: _Curve
    precision: config.Precision

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        # Trainer divides each micro-batch's sum by the tokens of the whole step, in all processes.
        loss = super().training_step(*args, **kwargs)
        self.curve.add(loss, ends_step=self.accelerator.sync_gradients)
        return loss

    def compute_loss_context_manager(self) -> ExitStack:
        # Not by `TrainingArguments.bf16`, which would also measure in bfloat16.
        stack = super().compute_loss_context_manager()
        stack.enter_context(autocast(self.args.device, self.precision))
        return stack

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss per token over the eval dataset, with the averaged weights."""
        assert self.model is not None
        with _averaged(self.optimizer), _evaluating(self.model):
            nll, count = 0.0, 0
            for batch in self.get_eval_dataloader():
                batch = self._prepare_inputs(batch)
                labels_BS = batch.pop("labels")
                sums = row_nll(self.model(**batch).logits, labels_BS)
                nll_B, count_B = self.accelerator.gather_for_metrics(sums)
                nll += nll_B.sum().item()
                count += int(count_B.sum())
            train_loss = self.accelerator.reduce(self.curve.loss_sum.clone(), "mean")
            metrics = {
                "train_loss": float(train_loss) / max(1, self.curve.loss_steps),  # type: ignore
                "valid_loss": nll / count,
            }
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Return the averaged weights and their config. No pickled arguments."""
        if not self.args.should_save:
            return
        assert isinstance(self.model, PreTrainedModel)
        with _averaged(self.optimizer):
            _save(self.model, Path(output_dir or str(self.args.output_dir)))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # In eval mode, so that the training weights are in the optimizer's state: the file of
        # weights beside it holds the average.
        with _averaged(self.optimizer):
            super()._save_optimizer_and_scheduler(output_dir)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: to count them at every step takes time."""
        return 0


class _Schedule(TrainerCallback):
    """When to evaluate and save; writes checkpoints, keeps the curve and the progress bar."""

    def __init__(
        self,
        run: Run,
        curve: _Curve,
        bar: Progress,
        *,
        checkpoints: frozenset[int],
        eval_steps: int,
        tokens_per_step: int,
    ) -> None:
        self._run, self._curve, self._bar = run, curve, bar
        self._checkpoints, self._eval_steps = checkpoints, eval_steps
        self._tokens_per_step = tokens_per_step
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        control.should_evaluate = step % self._eval_steps == 0 or step in self._checkpoints
        if args.world_size > 1:
            # Every process has to come to the same decision, which clocks do not.
            due = step % self._eval_steps == 0
        else:
            due = time.monotonic() - self._saved >= self._run.save_seconds
        control.should_save = due or step == state.max_steps
        valid = f"valid loss {self._curve.rows[-1]['valid_loss']:.3f}" if self._curve.rows else ""
        self._bar.advance(self._tokens_per_step, valid)

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        *,
        metrics: Any = None,
        model: Any = None,
        **_: Any,
    ) -> None:
        step, valid_loss = state.global_step, metrics["valid_loss"]
        if not (math.isfinite(valid_loss) and math.isfinite(metrics["train_loss"])):
            raise UserError(f"training diverged before step {step}; lower train.learning_rate")
        self._curve.close_row(step=step, tokens=step * self._tokens_per_step, **metrics)
        if step in self._checkpoints and args.should_save:
            _save(model, self._run.out / "checkpoints" / f"step-{step:06d}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()  # Each process has a part of the state.
        if args.should_save:
            # Written last: a state without it was not finished and is never used.
            write_json(
                self._run.state / f"checkpoint-{state.global_step}" / _PROGRESS, self._curve.state()
            )
            for old in _resume_states(self._run.state)[:-2]:
                shutil.rmtree(old)
        self._saved = time.monotonic()


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
    """Write config and weights in Hugging Face's format."""
    model.save_pretrained(folder)


def _resume_states(folder: Path) -> list[Path]:
    """Return the finished resume states, the newest last."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{_PROGRESS}")]
    return sorted(found, key=_step_of)


def _step_of(resume_state: Path) -> int:
    return int(resume_state.name.removeprefix("checkpoint-"))


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
    if not 0 < settings.betas[0] < 1:
        raise UserError("train.betas: schedule-free AdamW needs the first between 0 and 1")
    args = _arguments(settings, run)
    order = _whole_batches(settings, text, run.seed)
    steps = len(order) // settings.batch_size
    hf_logging.disable_progress_bar()
    done = _finished_states(run.state, clear=args.should_save)
    args.eval_on_start = not done
    trainer = _trainer(model, args, settings, text, order)
    if done:
        trainer.curve.load(read_json(done[-1] / _PROGRESS))
    tokens_per_step = settings.batch_size * text.train_rows.shape[1]
    remaining = (steps - (_step_of(done[-1]) if done else 0)) * tokens_per_step
    with progress(run.label, remaining, "tokens", quiet=not args.should_save) as bar:
        schedule = _Schedule(
            run,
            trainer.curve,
            bar,
            checkpoints=frozenset(checkpoint_steps(steps)),
            eval_steps=settings.eval_steps,
            tokens_per_step=tokens_per_step,
        )
        trainer.add_callback(schedule)
        trainer.train(resume_from_checkpoint=str(done[-1]) if done else None)
    optimizer: Any = trainer.optimizer
    optimizer.eval()
    model.eval()
    last = trainer.curve.rows[-1]
    losses = {name: round(last[name], 6) for name in ("train_loss", "valid_loss")}
    summary = summary_of(model, steps=steps, tokens=steps * tokens_per_step, **losses)
    if args.should_save:
        _save(model, run.out / "final")
        write_text(run.out / "curve.csv", trainer.curve.csv())
        write_json(run.out / "summary.json", summary)
    return summary


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


def _finished_states(folder: Path, *, clear: bool) -> list[Path]:
    """Return the finished resume states, the newest last, and `clear` away unfinished ones."""
    folder.mkdir(parents=True, exist_ok=True)
    done = _resume_states(folder)
    if clear:
        for unfinished in set(folder.glob("checkpoint-*")) - set(done):
            shutil.rmtree(unfinished)
    return done


def _trainer(
    model: PreTrainedModel,
    args: TrainingArguments,
    settings: config.Train,
    text: Text,
    order: np.ndarray,
) -> _Trainer:
    valid_rows = np.asarray(text.valid_rows)
    if not (labels_of(valid_rows, bos=text.bos, pad=text.pad)[:, 1:] != IGNORED).any():
        raise UserError("the split `valid` holds no tokens; raise data.tokens.valid")
    # Rows of like length together, so that the collator can cut off their padding.
    by_length = np.argsort((valid_rows != text.pad).sum(axis=1), kind="stable")
    optimizer = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
        "warmup_steps": settings.warmup_steps,
    }
    trainer = _Trainer(
        model=model,
        args=args,
        data_collator=Collator(bos=text.bos, pad=text.pad, within=text.within),
        train_dataset=Rows(text.train_rows, order),
        eval_dataset=Rows(text.valid_rows, by_length),
        optimizer_cls_and_kwargs=(ExactScheduleFree, optimizer),
    )
    trainer.curve, trainer.precision = _Curve(args.device), settings.precision
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(settings: config.Train, run: Run) -> TrainingArguments:
    if run.device.index:
        raise UserError(
            f"training takes the first visible GPU, or one per process; set "
            f"CUDA_VISIBLE_DEVICES={run.device.index} and use --device cuda"
        )
    args = TrainingArguments(
        output_dir=str(run.state),
        seed=seed_for(run.seed, "trainer"),
        num_train_epochs=1,
        gradient_accumulation_steps=settings.grad_acc_steps,
        max_grad_norm=settings.max_grad_norm,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",  # Schedule-free: the optimizer warms up by itself.
        weight_decay=settings.weight_decay,
        train_sampling_strategy="sequential",  # `train_order` has shuffled already.
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        eval_strategy="no",  # `_Schedule` decides when to evaluate and save.
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
        log_level="error",
        use_cpu=run.device.type == "cpu",
        ddp_find_unused_parameters=False,
    )
    # Several visible GPUs would be wrapped in DataParallel, which torchrun does better.
    args._n_gpu = min(args.n_gpu, 1)
    micro_batch = settings.batch_size // settings.grad_acc_steps
    if micro_batch % args.world_size:
        raise UserError(
            f"train.batch_size / train.grad_acc_steps = {micro_batch} rows are no multiple of "
            f"{args.world_size} processes; choose another number of processes"
        )
    args.per_device_train_batch_size = micro_batch // args.world_size
    # No gradients: room for more.
    args.per_device_eval_batch_size = 4 * args.per_device_train_batch_size
    return args


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
