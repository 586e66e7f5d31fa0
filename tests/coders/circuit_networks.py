"""Small networks of which circuits are found."""

from __future__ import annotations

import tiny_pipeline as tiny
import torch

from clearnets.coders.circuits import Questions, Subject
from clearnets.coders.written import Written, of_native
from clearnets.models.sparse_gptneox import build_model

PROMPTS, LENGTH = 6, 9


def model_of(mlp: str):
    """A network with random weights, of which both halves matter."""
    settings = tiny.config().model
    model = build_model(
        settings, mlp=mlp, vocab_size=50, ctx_len=tiny.CTX, pad=0, bos=1, eos=2, seed=0
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model.eval().requires_grad_(False)


def questions() -> Questions:
    generator = torch.Generator().manual_seed(1)
    tokens_NS = torch.randint(3, 50, (PROMPTS, LENGTH), generator=generator)
    right_N, wrong_N = torch.randint(3, 50, (2, PROMPTS), generator=generator)
    return Questions(tokens_NS, right_N, wrong_N)


def subject_of(mlp: str) -> Subject:
    model = model_of(mlp)
    if mlp != "dense":
        return Subject.of(model, of_native(model), questions())
    generator = torch.Generator().manual_seed(2)
    encoder_LD, decoder_LD = torch.randn(2, 20, tiny.HIDDEN, generator=generator)

    def encode(x_ND: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple((x_ND @ encoder_LD.mT).relu().topk(3))

    written = Written(encode, decoder_LD, torch.ones(tiny.HIDDEN))
    return Subject.of(model, [written] * tiny.LAYERS, questions())
