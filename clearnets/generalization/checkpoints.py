"""Task `checkpoints`: language models at several steps of their training, which took place before.

Either those of the experiment, or one model by its revisions: folders or branches of the hub that
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
from clearnets.generalization.tasks import Batch, Run, check_finite, chosen, spaced
from clearnets.models import hookpoints, load, pretrained
from clearnets.pipeline import hub_client, paths
from clearnets.pipeline.artifacts import JsonlWriter, fingerprint, settings_of
from clearnets.pipeline.progress import Progress

_STEP = re.compile(r"step-?(\d+)")
_ATTENTION = ("attention", "attn", "self_attn")
_BATCH = 8


class Revision(PretrainedSparse):
    """One checkpoint of a model that was trained elsewhere, of any kind."""

    at: ClassVar = "generalize.checkpoints"


class CheckpointsTask:
    """One run for each trained model and seed, or one alone."""

    def __init__(self, settings: Checkpoints, config: Config) -> None:
        self._settings = settings
        self._config = config

    def runs(self) -> list[Run]:
        """The experiment's models, or the one that is named."""
        if self._settings.name is not None:
            return [Run(Path(self._settings.name).name, seed=0, variant="named")]
        return [
            Run(f"{mlp}-seed-{seed}", seed, mlp)
            for mlp in self._config.models
            for seed in self._config.seeds
        ]

    def work(self) -> int:
        """Checkpoints of all runs."""
        return sum(len(self._sources(run)) for run in self.runs())

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Measure the losses of every checkpoint; nothing is trained."""
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
            # A named model was trained on another text: here it has no training loss.
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
        """Steps that are read."""
        return list(self._sources(run))

    def model(self, run: Run, folder: Path, step: int) -> nn.Module:
        """The model of a step."""
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
        """Predictions of every token but bos, pad and the first of a row."""
        where = document_positions(batch.inputs, self._store.bos) if self._within else None
        logits_BSC = model(batch.inputs, position_ids=where, use_cache=False).logits
        return logits_BSC[:, :-1][self._predicted(batch.inputs)]

    def _predicted(self, tokens_BS: Tensor) -> Tensor:
        next_BS = tokens_BS[:, 1:]
        return (next_BS != self._store.bos) & (next_BS != self._store.pad)

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        """The first rows of the splits `train` and `valid`."""
        rows_BS = self._store.split("train" if split == "train" else "valid")
        for start in range(0, min(len(rows_BS), self._settings.rows), _BATCH):
            rows = np.asarray(rows_BS[start : min(start + _BATCH, self._settings.rows)])
            tokens_BS = torch.from_numpy(rows.astype(np.int64))
            labels_N = tokens_BS[:, 1:][self._predicted(tokens_BS)]
            yield Batch(tokens_BS, labels_N, torch.from_numpy(self._store.counted(rows)))

    def hookpoints(self, model: nn.Module) -> list[str]:
        """Attention and feedforward of some layers, relative to the base model."""
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
        """The encoders of feedforwards that are sparse by construction."""
        base: Any = getattr(model, "base_model", model)
        points = [name for name in self.hookpoints(model) if name.endswith(".mlp")]
        return {
            point: f"{point}.encoder"
            for point in points
            if hasattr(base.get_submodule(point), "encoder")
        }

    def progress(self, run: Run, folder: Path) -> dict[int, dict[str, float]]:
        """None."""
        return {}

    def inputs(self) -> dict[str, Path]:
        """By name, the units of other stages that are read."""
        named = {"data": paths.data()}
        if self._settings.name is None:
            for run in self.runs():
                named[f"train/{run.name}"] = paths.train(run.variant, run.seed)
        return named

    # Where things are, found when they are first asked for

    @cached_property
    def _store(self) -> TokenStore:
        return open_tokens(paths.data())

    @cached_property
    def _within(self) -> bool:
        """Whether each document counts its positions anew, as the models trained here may do; a
        named one reads rows as they come."""
        if self._settings.name is not None:
            return False
        run = self.runs()[0]
        return settings_of(paths.train(run.variant, run.seed))["model"]["attention"] == "within"

    def _sources(self, run: Run) -> Mapping[int, Path]:
        """The folder of each checkpoint that is read, by step, ascending."""
        if run.name not in self._found:
            self._found[run.name] = self._find(run)
        return self._found[run.name]

    @cached_property
    def _found(self) -> dict[str, Mapping[int, Path]]:
        return {}

    def _find(self, run: Run) -> Mapping[int, Path]:
        name = self._settings.name
        if name is None:
            return self._spread(_folders(paths.train(run.variant, run.seed) / "checkpoints"))
        if Path(name).is_dir():
            there = self._spread(_folders(Path(name)))
            return {step: _whole(Revision(name=str(path))) for step, path in there.items()}
        if not hub_client.is_id(name):
            raise UserError(f"{Revision.at}.name {name!r}: no such folder")
        branches = self._spread(revisions(name))
        return {step: _whole(Revision(name=name, revision=rev)) for step, rev in branches.items()}

    def _spread(self, there: Mapping[int, Any]) -> dict[int, Any]:
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
    """What the checkpoints of a folder hold, by the hashes of their files; a hub id's branches are
    taken to stand for the same weights for ever."""
    if settings.name is None or not Path(settings.name).is_dir():
        return {}
    return {
        str(step): fingerprint(pretrained.identity(Revision(name=str(path))))
        for step, path in sorted(_folders(Path(settings.name)).items())
    }


def revisions(name: str) -> dict[int, str]:
    """Branches of a model on the hub that are named by their step.

    Raises:
        UserError: no such model, or the hub is out of reach.
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


def _folders(root: Path) -> dict[int, Path]:
    found = ((_STEP.fullmatch(path.name), path) for path in root.glob("step*") if path.is_dir())
    return {int(at[1]): path for at, path in found if at}


def _whole(revision: Revision) -> Path:
    """The folder of a checkpoint, all of whose files are there."""
    return pretrained.locate(revision)[pretrained.CONFIG].parent
