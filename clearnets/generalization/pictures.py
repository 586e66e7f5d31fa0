"""Tasks on pictures: classifiers of few or many pictures, and grids that stop at one loss.

Digits, MNIST, CIFAR-10 and any other pictures differ in their settings only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from clearnets.config import AnyClassifier, PictureCurves, PictureGrid
from clearnets.data import images
from clearnets.generalization.classification import Labelled, Stop, Trainer, checkpoint, train
from clearnets.generalization.tasks import (
    OUTCOME,
    WORKER_IMPORTS,
    Batch,
    Run,
    Task,
    curve,
    one_thread,
    spaced,
)
from clearnets.models import classifiers
from clearnets.pipeline.artifacts import write_json
from clearnets.pipeline.processes import cores, each
from clearnets.pipeline.progress import Progress
from clearnets.pipeline.runtime import Runtime, seed_for

_BATCH = 256


@dataclass(frozen=True)
class _Plan:
    """Everything that determines a run, besides the pictures."""

    run: Run
    model: AnyClassifier
    train: int
    label_noise: float
    weight_decay: float
    checkpoints: frozenset[int]
    last: int
    stop: Stop | None


class PictureTask(Task):
    """Runs on one source of pictures; see `Task`."""

    def __init__(self, settings: PictureCurves | PictureGrid) -> None:
        self._settings = settings
        plans = _curves(settings) if isinstance(settings, PictureCurves) else _grid(settings)
        self._plans = {plan.run.name: plan for plan in plans}

    def runs(self) -> list[Run]:
        return [plan.run for plan in self._plans.values()]

    def work(self) -> int:
        """Return the largest number of steps that all runs may take."""
        return sum(plan.last for plan in self._plans.values())

    def train(self, folder: Path, *, device: torch.device, bar: Progress) -> None:
        """Train the runs that are not complete.

        Raises:
            UserError: the pictures cannot be loaded, are too few or of a shape that a model cannot
                read; or training diverged.
        """
        # Before any training: it may be the last of many runs that does not fit.
        for plan in {(plan.model, plan.train): plan for plan in self._plans.values()}.values():
            self._drawn(plan)
            self._untrained(plan)
        left = []
        for plan in self._plans.values():
            # Written last: a run that has it is complete.
            if (folder / plan.run.name / OUTCOME).exists():
                bar.advance(plan.last)
            else:
                left.append(plan)
        if device.type == "cpu" and min(cores(), len(left)) > 1:
            # Each on one thread, so that the number of threads changes no byte.
            jobs = [(self._settings, plan.run.name, folder) for plan in left]
            done = each(_train, jobs, workers=cores(), preload=WORKER_IMPORTS)
            for plan, _ in zip(left, done):
                bar.advance(plan.last, plan.run.name)
            return
        for plan in left:
            with one_thread():
                self.train_one(plan.run.name, folder, device=device, bar=bar)

    def train_one(
        self, name: str, folder: Path, *, device: torch.device, bar: Progress | None = None
    ) -> None:
        """Train one run to its end; a killed one resumes."""
        plan, folder = self._plans[name], folder / name
        model = self._untrained(plan)
        model.to(device)  # type: ignore[arg-type]
        trainer = Trainer(
            model,
            _on(device, self._training_set(plan)),
            self._settings.training,
            weight_decay=plan.weight_decay,
            seed=plan.run.seed,
        )
        train(
            trainer,
            _on(device, self._test_set),
            checkpoints=plan.checkpoints,
            last=plan.last,
            stop=plan.stop,
            folder=folder,
            advanced=lambda steps: bar.advance(steps, name) if bar else None,
        )
        last = curve(plan.run, folder.parent)[-1]
        reached = plan.stop is None or last["train_loss"] <= plan.stop.loss
        write_json(folder / OUTCOME, {"reached": reached})
        if bar:
            # Where it stopped at a loss.
            bar.advance(plan.last - trainer.step)

    def checkpoints(self, run: Run, folder: Path) -> list[int]:
        return [row["step"] for row in curve(run, folder)]

    def model(self, run: Run, folder: Path, step: int) -> nn.Module:
        model = self._untrained(self._plans[run.name])
        model.load_state_dict(load_file(checkpoint(folder / run.name, step)))
        return model.eval()

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return one prediction per picture, (N, C)."""
        return model(batch.inputs).logits

    def batches(self, run: Run, split: str) -> Iterator[Batch]:
        """Yield the first pictures of the run's training set, with its wrong labels, or of the test
        set, which is the same for all runs."""
        data = self._test_set if split == "test" else self._training_set(self._plans[run.name])
        for start in range(0, min(len(data), self._settings.observed), _BATCH):
            rows = slice(start, min(start + _BATCH, self._settings.observed))
            yield Batch(data.x_NCHW[rows], data.y_N[rows])

    def hookpoints(self, model: nn.Module) -> list[str]:
        assert isinstance(model, PreTrainedModel)
        return classifiers.hookpoints(model)

    def native(self, model: nn.Module) -> dict[str, str]:
        """Return the module of the latents of each feedforward that is sparse by construction."""
        assert isinstance(model, PreTrainedModel)
        return {name.removesuffix(".encoder"): name for name in classifiers.latents(model)}

    # Made at first use

    @cached_property
    def _pictures(self) -> images.Divided:
        return _load(self._settings.pictures)  # type: ignore[arg-type]  # Frozen: hashable.

    @cached_property
    def _test_set(self) -> Labelled:
        return self._labelled(self._pictures.test.pixels_NCHW, self._pictures.test.labels_N)

    def _drawn(self, plan: _Plan) -> np.ndarray:
        labels_N = self._pictures.train.labels_N
        return images.balanced(labels_N, plan.train, seed_for(plan.run.seed, "pictures"))

    def _training_set(self, plan: _Plan) -> Labelled:
        drawn = self._pictures.train.take(self._drawn(plan))
        seed = seed_for(plan.run.seed, "noise")
        classes = self._pictures.classes
        labels_N = images.with_noise(drawn.labels_N, plan.label_noise, classes, seed)
        return self._labelled(drawn.pixels_NCHW, labels_N)

    def _labelled(self, pixels_NCHW: np.ndarray, labels_N: np.ndarray) -> Labelled:
        x_NCHW = images.standardized(pixels_NCHW, *self._moments)
        return Labelled(torch.from_numpy(x_NCHW), torch.from_numpy(labels_N))

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        return images.moments(self._pictures.train.pixels_NCHW)

    def _untrained(self, plan: _Plan) -> PreTrainedModel:
        _, *shape = self._pictures.train.pixels_NCHW.shape
        channels, height, width = shape
        return classifiers.build_classifier(
            plan.model,
            shape=(channels, height, width),
            classes=self._pictures.classes,
            seed=seed_for(plan.run.seed, "init"),
        )


def _train(settings: PictureCurves | PictureGrid, name: str, folder: Path) -> None:
    device = Runtime("cpu", threads=1).torch_device()
    PictureTask(settings).train_one(name, folder, device=device)


# A process works on many runs of one task.
_load = lru_cache(maxsize=1)(images.load)


def _on(device: torch.device, data: Labelled) -> Labelled:
    return Labelled(data.x_NCHW.to(device), data.y_N.to(device))


def _curves(settings: PictureCurves) -> Iterator[_Plan]:
    steps = frozenset(spaced(settings.spacing, settings.steps, settings.checkpoints))
    for (name, model), count, noise, seed in product(
        settings.models.items(), settings.train, settings.label_noise, settings.seeds
    ):
        run = Run(
            name=f"{name}-train-{count}-noise-{noise:g}-seed-{seed}",
            seed=seed,
            variant=name,
            settings={"train": count, "label_noise": noise},
        )
        yield _Plan(run, model, count, noise, settings.weight_decay, steps, settings.steps, None)


def _grid(settings: PictureGrid) -> Iterator[_Plan]:
    stop = Stop(settings.target_loss, settings.check_steps)
    for width, depth, decay, count, noise, seed in product(
        settings.hidden_size,
        settings.num_layers,
        settings.weight_decay,
        settings.train,
        settings.label_noise,
        settings.seeds,
    ):
        run = Run(
            name=f"width-{width}-depth-{depth}-decay-{decay:g}-train-{count}-noise-{noise:g}"
            f"-seed-{seed}",
            seed=seed,
            settings={
                "hidden_size": width,
                "num_layers": depth,
                "weight_decay": decay,
                "train": count,
                "label_noise": noise,
            },
        )
        model = settings.model.model_copy(update={"hidden_size": width, "num_layers": depth})
        # The untrained model too: some metrics are of the change since then.
        yield _Plan(run, model, count, noise, decay, frozenset([0]), settings.max_steps, stop)
