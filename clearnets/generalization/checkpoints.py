"""Task `checkpoints`: language models at several steps of a training that is over.

They are the experiment's own, or revisions of one named model: folders or branches of the hub that
are named by their step (`step1000`). The text is the experiment's own.

Shapes: B rows, S positions, N predicted tokens, C vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from clearnets import UserError
from clearnets.coders.feedforward import document_positions
from clearnets.config import Checkpoints, Config, PretrainedSparse
from clearnets.data.tokens import TokenStore, open_tokens
from clearnets.generalization.tasks import Batch, Run, Task, check_finite, chosen, spaced
from clearnets.models import hookpoints, pretrained
from clearnets.models.loading import load
from clearnets.pipeline import hub_client, paths
from clearnets.pipeline.artifacts import JsonlWriter, fingerprint, settings_of
from clearnets.pipeline.progress import Progress

_STEP = re.compile(r"step-?(\d+)")
_ATTENTION = ("attention", "attn", "self_attn")
_BATCH = 8


class Revision(PretrainedSparse):
    """One checkpoint of a model of any kind that was trained elsewhere."""

    at: ClassVar = "generalize.checkpoints"


class CheckpointsTask(Task):
    """One run for each of the experiment's models and seeds, or one of the named model."""

    def __init__(self, settings: Checkpoints, config: Config) -> None:
        self._settings = settings
        self._config = config
        self._folders: dict[str, Mapping[int, Path]] = {}

    def runs(self) -> list[Run]:
        """Return the runs of the experiment's models, or of the named one."""
        if self._settings.name is not None:
            return [Run(Path(self._settings.name).name, seed=0, variant="named")]
        return [
            Run(f"{mlp}-seed-{seed}", seed, mlp)
            for mlp in self._config.models
            for seed in self._config.seeds
        ]

    def work(self) -> int:
        return sum(len(self._sources(run)) for run in self.runs())

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Measure the losses of every checkpoint: nothing is trained."""
        for run in self.runs():
            with JsonlWriter(folder / run.name / "curve.jsonl") as curve:
                done = {row["step"] for row in curve.done}
                for step in self._sources(run):
                    if step not in done:
                        curve.append({"step": step, **self._measure(run, step, device)})
                    bar.advance()

    def _measure(self, run: Run, step: int, device: torch.device) -> dict[str, float | None]:
        model = self._load(run, step).to(device)
        found: dict[str, float | None] = {}
        for split in ("train", "test"):
            # A named model was trained on another text, so it has no training loss here.
            if split == "train" and self._settings.name is not None:
                found["train_loss"] = found["train_accuracy"] = None
                continue
            nats = right = count = 0.0
            for batch in self.batches(run, split):
                labels_N = batch.labels_N.to(device)
                inputs = Batch(batch.inputs.to(device), labels_N)
                with torch.no_grad():
                    logits_NC = self.logits(model, inputs).double()
                loss = nn.functional.cross_entropy(logits_NC, labels_N, reduction="sum")
                nats += float(loss)
                right += float((logits_NC.argmax(1) == labels_N).sum())
                count += len(labels_N)
            found[f"{split}_loss"], found[f"{split}_accuracy"] = nats / count, right / count
        check_finite(found, step)
        return found

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        return list(self._sources(run))

    def model(self, run: Run, folder: Path, step: int) -> nn.Module:
        return self._load(run, step)

    def _load(self, run: Run, step: int) -> Any:
        model: Any = load(self._sources(run)[step], "restore it")
        kind = model.config.model_type
        if kind != pretrained.OURS and kind not in pretrained.KINDS:
            names = ", ".join(kind.name for kind in pretrained.KINDS.values())
            raise UserError(f"{run.name} is of the unknown kind {kind!r}; there are: {names}")
        known = model.get_input_embeddings().num_embeddings
        if known < self._store.vocab_size and not getattr(model.config, "token_aliases", None):
            raise UserError(
                f"{run.name} knows {known} tokens and the text has {self._store.vocab_size}; set "
                "data.tokenizer to the model's own"
            )
        return model

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of every token but bos, pad and the first of a row."""
        where = document_positions(batch.inputs, self._store.bos) if self._within else None
        logits_BSC = model(batch.inputs, position_ids=where, use_cache=False).logits
        return logits_BSC[:, :-1][self._predicted(batch.inputs)]

    def _predicted(self, tokens_BS: Tensor) -> Tensor:
        next_BS = tokens_BS[:, 1:]
        return (next_BS != self._store.bos) & (next_BS != self._store.pad)

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        """Yield the first rows of the splits `train` and `valid`."""
        rows_BS = self._store.split("train" if split == "train" else "valid")
        for start in range(0, min(len(rows_BS), self._settings.rows), _BATCH):
            rows = np.asarray(rows_BS[start : min(start + _BATCH, self._settings.rows)])
            tokens_BS = torch.from_numpy(rows.astype(np.int64))
            labels_N = tokens_BS[:, 1:][self._predicted(tokens_BS)]
            yield Batch(tokens_BS, labels_N, torch.from_numpy(self._store.counted(rows)))

    def hookpoints(self, model: nn.Module) -> list[str]:
        """Return attention and feedforward of some layers, relative to the base model."""
        depth = len(hookpoints.layers(model))
        chosen_layers = np.linspace(0, depth - 1, min(self._settings.layers, depth)).round()
        where: Any = hookpoints.kind(model)
        parts = dict(hookpoints.layers(model)[0].named_children())
        attention = next(name for name in _ATTENTION if name in parts)
        return [
            name.replace("*", str(int(layer)))
            for layer in chosen_layers
            for name in (f"{where.layers}.*.{attention}", where.feedforwards)
        ]

    def native(self, model: nn.Module) -> dict[str, str]:
        """Return the encoders of feedforwards that are sparse by construction."""
        base: Any = getattr(model, "base_model", model)
        points = [name for name in self.hookpoints(model) if name.endswith(".mlp")]
        return {
            point: f"{point}.encoder"
            for point in points
            if hasattr(base.get_submodule(point), "encoder")
        }

    # Read at first use

    @cached_property
    def _store(self) -> TokenStore:
        return open_tokens(paths.data())

    @cached_property
    def _within(self) -> bool:
        """Whether positions count from the start of each document, as in the experiment's models.

        A named model reads rows as they are.
        """
        if self._settings.name is not None:
            return False
        run = self.runs()[0]
        return settings_of(paths.train(run.variant, run.seed))["model"]["attention"] == "within"

    def _sources(self, run: Run) -> Mapping[int, Path]:
        """Return the folder of each checkpoint that is measured, by step, ascending."""
        if run.name not in self._folders:
            self._folders[run.name] = self._find(run)
        return self._folders[run.name]

    def _find(self, run: Run) -> Mapping[int, Path]:
        name = self._settings.name
        if name is None:
            return self._chosen(_step_folders(paths.train(run.variant, run.seed) / "checkpoints"))
        if Path(name).is_dir():
            there = self._chosen(_step_folders(Path(name)))
            return {step: _complete(Revision(name=str(path))) for step, path in there.items()}
        if not hub_client.is_id(name):
            raise UserError(f"{Revision.at}.name {name!r}: no such folder")
        branches = self._chosen(revisions(name))
        return {
            step: _complete(Revision(name=name, revision=rev)) for step, rev in branches.items()
        }

    def _chosen(self, there: Mapping[int, Any]) -> dict[int, Any]:
        if not there:
            raise UserError(
                f"{self._settings.name or 'the training run'} has no checkpoints named by their "
                "step, such as step1000"
            )
        steps = sorted(there)
        of = self._settings
        return {
            step: there[step]
            for step in chosen(steps, spaced(of.spacing, steps[-1], of.checkpoints))
        }


def identity(settings: Checkpoints) -> dict[str, str]:
    """Return a hash of each checkpoint's files in a local folder, by step.

    It is empty for a hub id, whose branches are taken to hold the same weights for ever.
    """
    if settings.name is None or not Path(settings.name).is_dir():
        return {}
    return {
        str(step): fingerprint(pretrained.identity(Revision(name=str(path))))
        for step, path in sorted(_step_folders(Path(settings.name)).items())
    }


def revisions(name: str) -> dict[int, str]:
    """Return the branches of a model on the hub that are named by their step, by step.

    Raises:
        UserError: there is no such model, or the hub is out of reach.
    """
    import huggingface_hub as hub
    from huggingface_hub import errors

    with (
        hub_client.one_line_errors(name, None, at=f"{Revision.at}.name", what="a model"),
        hub_client.detect_offline() as offline,
    ):
        if offline:
            raise errors.OfflineModeIsEnabled
        branches = [ref.name for ref in hub.list_repo_refs(name).branches]
    return {int(at[1]): branch for branch in branches if (at := _STEP.fullmatch(branch))}


def _step_folders(root: Path) -> dict[int, Path]:
    found = ((_STEP.fullmatch(path.name), path) for path in root.glob("step*") if path.is_dir())
    return {int(at[1]): path for at, path in found if at}


def _complete(revision: Revision) -> Path:
    """Return the folder of a checkpoint after a check that all of its files are there."""
    return pretrained.locate(revision)[pretrained.CONFIG].parent
