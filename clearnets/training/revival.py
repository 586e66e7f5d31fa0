"""Keep the latents of sparse feedforwards in use while a language model trains.

Two things are done to each encoder, and neither outlives training, because both are a shift of its
bias:

- *Centring*: it reads its input minus a running mean of that input. The layer norm before it leaves
  a large mean that all tokens share; without it the bias need not follow every change of the rows.
- *Revival*: after each step a constant is added to the bias of every latent that no token has
  activated for some steps (`models.revival`).

Shapes: D what an encoder reads, L latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clearnets import config
from clearnets.models.latent_encoders import LatentEncoder
from clearnets.models.revival import Silence
from clearnets.pipeline import processes


class Encoders:
    """The encoders of a model in training; none where it is dense."""

    def __init__(self, model: nn.Module, settings: config.Train) -> None:
        found = [module for module in model.modules() if isinstance(module, LatentEncoder)]
        self._each = [_Encoder(module, settings) for module in found]
        self._tokens = 0

    def reads(self, counted_BS: Tensor) -> None:
        """Take which positions of the next batch hold tokens; padding counts nowhere."""
        counted_N = counted_BS.flatten()
        self._tokens += int(counted_N.sum())
        for encoder in self._each:
            encoder.counted_N = counted_N

    def end_step(self, optimizer: Any) -> None:
        """Move means and biases after a step of a schedule-free optimizer."""
        for encoder in self._each:
            encoder.end_step(optimizer, self._tokens)
        self._tokens = 0

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Let the bias hold all of it, as in a model that is measured or saved, while open."""
        before = [encoder.fold() for encoder in self._each]
        try:
            yield
        finally:
            for encoder, bias_L in zip(self._each, before, strict=True):
                encoder.unfold(bias_L)

    def finish(self) -> None:
        """Leave the model with all of it in its biases, and go."""
        for encoder in self._each:
            encoder.fold()
            encoder.leave()

    def state(self) -> list[dict[str, Tensor]]:
        """Return what a resumed run needs."""
        return [{"mean": one.mean_D, "silent": one.silence.steps_L} for one in self._each]

    def load(self, state: list[dict[str, Tensor]]) -> None:
        """Take up what `state` returned."""
        for encoder, values in zip(self._each, state, strict=True):
            encoder.mean_D, encoder.silence.steps_L = values["mean"], values["silent"]


class _Encoder:
    def __init__(self, module: LatentEncoder, settings: config.Train) -> None:
        self._module, self._settings = module, settings
        self.mean_D = torch.zeros(module.d_in, device=module.bias.device)
        self.silence = Silence.of(module.bias)
        self.counted_N = torch.ones(0, dtype=torch.bool)
        self._sum_D = torch.zeros_like(self.mean_D)
        self._hooks = [
            module.register_forward_pre_hook(self._centre),
            module.register_forward_hook(self._watch),
        ]

    def leave(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _centre(self, module: LatentEncoder, args: tuple[Tensor]) -> tuple[Tensor] | None:
        if not module.training:  # Measured, with the mean in its bias.
            return None
        (x_BSD,) = args
        x_ND = x_BSD.detach().flatten(0, -2).float()
        self._sum_D += torch.where(self.counted_N[:, None], x_ND, 0.0).sum(0)
        return (x_BSD - self.mean_D.to(x_BSD.dtype),)

    def _watch(self, module: LatentEncoder, _: Any, output: tuple[Tensor, Tensor]) -> None:
        if module.training:
            acts_NK, indices_NK = (part.flatten(0, -2) for part in output)
            self.silence.hear((acts_NK > 0) & self.counted_N[:, None], indices_NK)

    @torch.no_grad()
    def end_step(self, optimizer: Any, tokens: int) -> None:
        settings, steps_L = self._settings, self.silence.steps_L
        sums = processes.summed(torch.cat([self._sum_D, self._sum_D.new_tensor([tokens])]))
        self.mean_D = self.mean_D.lerp(sums[:-1] / sums[-1], settings.centring)
        self._sum_D = torch.zeros_like(self._sum_D)
        # In any process.
        steps_L[processes.summed((steps_L < 0).float()) > 0] = -1
        # The iterate moves with the weights in use, and so the average does.
        self.silence.end_step(
            self._module.bias,
            optimizer,
            bias_step=settings.bias_step,
            silent_steps=settings.silent_steps,
        )

    @torch.no_grad()
    def fold(self) -> Tensor:
        """Take the mean into the bias; return the bias as it was."""
        before_L = self._module.bias.detach().clone()
        self._module.bias.sub_(self._module.products(self.mean_D[None])[0])
        return before_L

    @torch.no_grad()
    def unfold(self, bias_L: Tensor) -> None:
        self._module.bias.copy_(bias_L)
