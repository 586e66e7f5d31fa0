"""Cross-layer transcoders: the latents of a layer write to the outputs of its own feedforward and
of all later ones (Ameisen et al. 2025).

Layer j is reconstructed as b_dec_j + the sum over i <= j of S_i @ W_i->j, where S_i are the codes
of layer i, k per token. All layers are trained together on the sum of their fvus.

A layer's coder is sparsify's (encoder, W_i->i, b_dec) with a parameter more, `W_cross`: the
decoders to the later layers, beside each other, (L, E) with E = D * number of later layers. On disk
it is a file of its own beside sparsify's, so that others can read the rest.

Shapes: N tokens, D width of a feedforward, L latents, k active ones per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clearnets.coders.library import load_coder, save_coder
from clearnets.coders.objective import Loss, Output, forward
from clearnets.config import Precision
from clearnets.models import sparse_ops
from clearnets.pipeline.runtime import autocast

if TYPE_CHECKING:
    from sparsify import SparseCoder

    from clearnets.coders.training import Activations, Schedule

CROSS = "cross.safetensors"
"""The decoders to later layers, by hookpoint."""
_NAME = "W_cross"


def extend(coders: Mapping[str, SparseCoder]) -> None:
    """Give new coders of all layers, in order, decoders to the later layers, zero at first."""
    for later, coder in zip(range(len(coders))[::-1], coders.values()):
        if later:
            W_LE = coder.encoder.weight.new_zeros(coder.num_latents, later * coder.d_in)
            coder.register_parameter(_NAME, nn.Parameter(W_LE))


def later_layers(coder: SparseCoder) -> int:
    """Return to how many later layers a coder writes."""
    W_cross_LE = getattr(coder, _NAME, None)
    return 0 if W_cross_LE is None else W_cross_LE.shape[1] // coder.d_in


def save(coders: Mapping[str, SparseCoder], folder: Path) -> None:
    """Write coders of any kind, each to a folder named by its hookpoint."""
    names = list(coders)
    for at, (name, coder) in enumerate(coders.items()):
        W_cross_LE = coder._parameters.pop(_NAME, None)  # The rest is sparsify's.
        save_coder(coder, folder / name)
        if W_cross_LE is not None:
            parts = W_cross_LE.detach().cpu().split(coder.d_in, dim=1)
            decoders = dict(zip(names[at + 1 :], (W_LD.contiguous() for W_LD in parts)))
            save_file(decoders, folder / name / CROSS)
            coder.register_parameter(_NAME, W_cross_LE)


def load(
    folder: Path, names: Sequence[str], device: torch.device | str = "cpu"
) -> list[SparseCoder]:
    """Return the coders of all layers that `save` wrote.

    Args:
        names: the hookpoints in the order of the layers.

    Raises:
        UserError: as `library.load_coder`.
    """
    coders = [load_coder(folder / name, device) for name in names]
    for name, coder in zip(names, coders):
        if (folder / name / CROSS).exists():
            found = load_file(folder / name / CROSS, device=str(device))
            W_LE = torch.cat([found[later] for later in names if later in found], dim=1)
            coder.register_parameter(_NAME, nn.Parameter(W_LE))
    return coders


class InOrder:
    """Reconstruct the layers of one forward pass, from the first on, coders of any kind.

    What cross-layer latents write to later layers is added there.
    """

    def __init__(self, coders: Iterable[SparseCoder], precision: Precision = "float32") -> None:
        self._coders = list(coders)
        self._precision: Precision = precision
        self._later_NE: Tensor | None = None
        self.made: list[Output] = []
        """What the coders of the layers so far made."""

    def __call__(self, x_ND: Tensor, y_ND: Tensor) -> Tensor:
        """Return the next layer's reconstruction from its feedforward's input and output."""
        coder = self._coders[len(self.made)]
        with autocast(x_ND.device, self._precision):
            made = forward(coder, x_ND if coder.cfg.transcode else y_ND)
            self.made.append(self._with_writes(coder, made))
        return self.made[-1].output_ND

    def _with_writes(self, coder: SparseCoder, made: Output) -> Output:
        """Add what the layers below write to a layer, and keep what it writes to those above."""
        later_NE = self._later_NE
        if later_NE is not None:
            made = made._replace(output_ND=made.output_ND + later_NE[:, : coder.d_in])
            later_NE = later_NE[:, coder.d_in :]
        if later_layers(coder):
            written_NE = sparse_ops.decode(made.acts_Nk, made.indices_Nk, getattr(coder, _NAME))
            later_NE = written_NE if later_NE is None else later_NE + written_NE
        self._later_NE = later_NE
        return made

    @property
    def replacements(self) -> dict[int, Callable[[Tensor, Tensor], Tensor]]:
        """What `feedforward.replaced` puts in the place of all layers, for one forward pass."""
        return dict.fromkeys(range(len(self._coders)), self)


def add_gradient(
    coders: Mapping[str, SparseCoder], activations: Activations, schedule: Schedule
) -> dict[str, list[Loss]]:
    """Add the gradient of the sum of the layers' fvus, which read and reconstruct the clean model.

    Each layer's fvu has the weight that it has in the training of separate coders.
    """
    count = schedule.micro_acc_steps
    pairs = [activations.pair(coder, name) for name, coder in coders.items()]
    found: dict[str, list[Loss]] = {name: [] for name in coders}
    pieces: Any = zip(*(zip(x_ND.chunk(count), y_ND.chunk(count)) for x_ND, y_ND in pairs))
    for piece in pieces:
        made = InOrder(coders.values(), schedule.precision)
        residuals = [(made(x_MD, y_MD) - y_MD).pow(2).sum() for x_MD, y_MD in piece]
        fvus = [r / activations.totals[name] for r, name in zip(residuals, coders)]
        (sum(fvus) / schedule.grad_acc_steps).backward()  # pyright: ignore
        for name, fvu, residual, output in zip(coders, fvus, residuals, made.made):
            codes = output.acts_Nk.detach(), output.indices_Nk
            found[name].append(Loss(fvu.detach(), residual.detach(), *codes))
    return found
